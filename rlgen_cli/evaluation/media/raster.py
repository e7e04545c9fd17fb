"""PNG grids and GIF time-lapses."""

import math
import textwrap
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn.functional import pad

from rlgen_cli.data.images import pil_to_tensor, tensor_to_pil

FRAME_MS, LAST_MS = 60, 1500
GAP = 2  # between pictures, in their own pixels
LINE = 14  # letters of a caption in a line
CAPTION = 20  # height of a line above a sheet, pixels


def grid(images: Tensor, columns: int | None = None, gap: int = GAP) -> Tensor:
    """Pictures [N, C, H, W] in [0, 1] side by side, uint8 [3, H', W'], grey gaps between."""
    n = len(images)
    columns = columns or math.ceil(math.sqrt(n))
    rows = math.ceil(n / columns)
    tiles = images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images
    tiles = pad(tiles, [0, gap, 0, gap], value=0.5)
    if rows * columns > n:
        tiles = torch.cat([tiles, torch.full((rows * columns - n, *tiles.shape[1:]), 0.5, device=tiles.device)])
    high, wide = tiles.shape[-2:]
    sheet = tiles.view(rows, columns, 3, high, wide).permute(2, 0, 3, 1, 4).reshape(3, rows * high, columns * wide)
    return (pad(sheet, [gap, 0, gap, 0], value=0.5) * 255).round().to(torch.uint8)


def bare(image: Tensor) -> Tensor:
    """One picture [1, C, H, W] in [0, 1] without a border, uint8 [3, H, W]."""
    return (image[0].expand(3, -1, -1) * 255).round().to(torch.uint8)


def beside(left: Tensor, right: Tensor) -> Tensor:
    """Two sheets [3, H, W] with a white bar between."""
    bar = torch.full((3, left.shape[1], 4), 255, dtype=torch.uint8, device=left.device)
    return torch.cat([left, bar, right], 2)


def captioned(sheet: Tensor, text: str) -> Tensor:
    """A uint8 sheet [3, H, W] with a line of text above it."""
    strip = Image.new("RGB", (sheet.shape[2], CAPTION), "white")
    ImageDraw.Draw(strip).text((4, 2), text, fill="black", font=ImageFont.load_default(size=14))
    return torch.cat([pil_to_tensor(strip).to(sheet.device), sheet], 1)


def numbered(sheet: Tensor, steps: list[int]) -> Tensor:
    """A uint8 sheet [3, H, W] whose columns are some steps and whose rows are samples, with the steps above it."""
    strip = Image.new("RGB", (sheet.shape[2], CAPTION), "white")
    draw, font = ImageDraw.Draw(strip), ImageFont.load_default(size=12)
    pitch = sheet.shape[2] / len(steps)
    for i, step in enumerate(steps):
        draw.text(((i + 0.5) * pitch, CAPTION / 2), str(step) if i else f"step {step}", "black", font, anchor="mm")
    return torch.cat([pil_to_tensor(strip).to(sheet.device), sheet], 1)


def words_grid(words: list[str], side: int, factor: int, columns: int | None = None, gap: int = GAP) -> Tensor:
    """Words, or captions in some lines, as the tiles of a `grid` of pictures of `side` pixels that is enlarged by
    `factor`, uint8 [3, H, W]."""
    columns = columns or math.ceil(math.sqrt(len(words)))
    pitch, room = (side + gap) * factor, side * factor
    rows = math.ceil(len(words) / columns)
    sheet = Image.new("RGB", (columns * pitch + gap * factor, rows * pitch + gap * factor), (128, 128, 128))
    draw = ImageDraw.Draw(sheet)
    words = [textwrap.fill(word, LINE, break_long_words=False) for word in words]
    lines = [line for word in words for line in word.splitlines()]
    longest, most = max(map(len, lines), default=0), max(word.count("\n") + 1 for word in words)
    font = ImageFont.load_default(size=max(8, min(room // max(2, 5 * most // 4), 2 * room // (longest + 1))))
    for i, word in enumerate(words):
        x, y = (gap * factor + place * pitch for place in (i % columns, i // columns))
        draw.rectangle([x, y, x + room - 1, y + room - 1], fill="white")
        draw.text((x + room / 2, y + room / 2), word, fill="black", font=font, anchor="mm", align="center")
    return pil_to_tensor(sheet)


def enlarge(sheet: Tensor, least: int = 512) -> Tensor:
    """Whole-number enlargement to about `least` pixels, so that small pictures can be seen."""
    return magnified(sheet, max(1, round(least / max(sheet.shape[1:]))))


def magnified(sheet: Tensor, factor: int) -> Tensor:
    """Each pixel as a square of `factor` pixels a side."""
    return sheet.repeat_interleave(factor, 1).repeat_interleave(factor, 2)


def write_png(path: Path, sheet: Tensor) -> None:
    """A uint8 sheet [3, H, W], or [4, H, W] with a transparent part."""
    tensor_to_pil(sheet).save(path, optimize=True)


def write_gif(path: Path, sheets: list[Tensor]) -> None:
    """Uint8 sheets [3, H, W] as an endless time-lapse that rests on its last frame."""
    frames = [tensor_to_pil(sheet).convert("P", palette=Image.Palette.ADAPTIVE, colors=64) for sheet in sheets]
    durations = [FRAME_MS] * (len(frames) - 1) + [LAST_MS]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=durations, loop=0, optimize=True)
