"""The embedded default: letters and digits in Pillow's own font under random affine changes. No file, no download."""

import functools
import math
import random

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from rlgen_cli.core.capacity import require_memory
from rlgen_cli.core.errors import require
from rlgen_cli.data.images import Images, Splits, split_by_content, to_channels


class Glyphs:
    """`per_class` pictures of each of `characters`, rotated, sheared, scaled and moved by up to `distortion`.

    Labelled by character. White on black, like MNIST. The pictures depend on these arguments only.
    """

    licence = "drawn by rlgen in Pillow's own font (Aileron, CC0 1.0), free for any use"

    def __init__(self, characters: str, per_class: int, distortion: float) -> None:
        require(len(characters) > 0, "characters: must hold at least one character.")
        require(per_class >= 1, f"per_class: must be at least 1, got {per_class}.")
        require(0.0 <= distortion <= 1.0, f"distortion: must be in [0, 1], got {distortion}.")
        self.characters = "".join(dict.fromkeys(characters))
        self.per_class, self.distortion = per_class, float(distortion)

    def load(self, size: int, channels: int) -> Splits:
        count = self.per_class * len(self.characters)
        require_memory(count * channels * size**2, f"per_class: {self.per_class} pictures of each character")
        images, labels = _drawn(self.characters, self.per_class, self.distortion, size)
        return split_by_content(Images(to_channels(images, channels), labels, tuple(self.characters)))


@functools.lru_cache(maxsize=4)  # the jobs of a sweep have the same
def _drawn(characters: str, per_class: int, distortion: float, size: int) -> tuple[Tensor, Tensor]:
    """All pictures, uint8 [M, 1, size, size], and their labels, int64 [M]."""
    rng = random.Random(0)
    images, labels = [], []
    for label, character in enumerate(characters):
        large = _draw(character, 4 * size)
        box = large.getbbox() or (0, 0, *large.size)  # of the glyph: (left, top, right, bottom)
        for _ in range(per_class):
            images.append(np.asarray(_distort(large, box, size, distortion, rng)))
            labels.append(label)
    return torch.from_numpy(np.stack(images)).unsqueeze(1), torch.tensor(labels)


def _distort(
    large: Image.Image, box: tuple[int, int, int, int], size: int, amount: float, rng: random.Random
) -> Image.Image:
    """One affine change about the centre, drawn at four times the size, then reduced."""
    side = large.width
    turn, shear = (rng.uniform(-0.25, 0.25) * amount for _ in range(2))
    wide, high = (1.0 + rng.uniform(-0.15, 0.25) * amount for _ in range(2))
    shift_x, shift_y = (rng.uniform(-0.07, 0.07) * amount * side for _ in range(2))
    a, b, d, e = wide, turn + shear, -turn, high  # output to input coordinates
    c = side / 2 * (1 - a - b) + shift_x
    f = side / 2 * (1 - d - e) + shift_y
    # Only where the glyph comes to lie is it drawn: most of the square stays black.
    corners = [(x - c, y - f) for x in box[::2] for y in box[1::2]]
    left, right = _span([(e * x - b * y) / (a * e - b * d) for x, y in corners], side)
    top, bottom = _span([(a * y - d * x) / (a * e - b * d) for x, y in corners], side)
    affine = (a, b, c + a * left + b * top, d, e, f + d * left + e * top)
    warped = large.transform((right - left, bottom - top), Image.Transform.AFFINE, affine, Image.Resampling.BILINEAR)
    whole = Image.new("L", large.size)
    whole.paste(warped, (left, top))
    return whole.resize((size, size), Image.Resampling.BOX)


def _span(places: list[float], side: int) -> tuple[int, int]:
    """Pixels of [0, side) from the first place to the last, with room for what is interpolated at the edges."""
    return max(math.floor(min(places)) - 2, 0), min(math.ceil(max(places)) + 2, side)


def _draw(character: str, side: int) -> Image.Image:
    """White on black, centred, filling about two thirds of the square."""
    image = Image.new("L", (side, side), 0)
    font = ImageFont.load_default(size=side * 0.78)
    draw = ImageDraw.Draw(image)
    left, top, right, bottom = draw.textbbox((0, 0), character, font=font)
    position = ((side - right - left) / 2, (side - bottom - top) / 2)
    draw.text(position, character, fill=255, font=font, stroke_width=max(side // 80, 0))
    return image
