"""Text: one sample a line."""

from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from rlgen_cli.core.specs import State, View
from rlgen_cli.data.images import pil_to_tensor
from rlgen_cli.evaluation.media.raster import write_png
from rlgen_cli.evaluation.rollout import Rollout

SHOWN, LINE, MARGIN = 24, 18, 8  # lines on a sheet; pixels


class Readable(Protocol):
    """An encoding of sequences that are read."""

    def text(self, tokens: Tensor) -> list[str]:
        """A line for each of the sequences [N, T, F]."""
        ...


@runtime_checkable
class MakesText(Protocol):
    """An environment of sequences that are read."""

    encoding: Readable

    def view(self, state: State) -> View: ...


class TextMedium:
    """Lines of text, and a picture of them."""

    formats: tuple[str, ...] = ("txt", "png")
    usual = formats
    last = 64  # samples that the end of a run leaves

    def __init__(self, env: MakesText) -> None:
        self.env = env

    def sheet(self, view: View, limit: int = SHOWN) -> Tensor:
        """The first lines as a picture, uint8 [3, H, W]."""
        return _drawn(self.env.encoding.text(view.sample[: min(limit, SHOWN)]))

    def diversity(self, sample: Tensor) -> float:
        return token_diversity(sample)

    def numbers(self, view: View) -> dict[str, float]:
        """Nothing beyond the scores."""
        return {}

    def audio(self, view: View) -> None:
        """Text is silent."""

    def needs_steps(self, formats: list[str]) -> bool:
        """Only the finished text is written."""
        return False

    def write(self, made: Rollout, formats: list[str], out: Path) -> dict[str, Any]:
        view = self.env.view(made.final)
        if "txt" in formats:
            (out / "samples.txt").write_text("\n".join(self.env.encoding.text(view.sample)) + "\n", encoding="utf-8")
        if "png" in formats:
            write_png(out / "grid.png", self.sheet(view))
        return {}


def token_diversity(samples: Tensor) -> float:
    """Share of tokens [N, T, F] that differ between neighbours in the batch: 0 is collapse."""
    return float((samples != samples.roll(1, 0)).any(2).float().mean())


def _drawn(lines: list[str]) -> Tensor:
    """Black on white, in Pillow's own font."""
    font = ImageFont.load_default(size=14)
    wide = max(int(font.getlength(line)) for line in [*lines, " "]) + 2 * MARGIN
    image = Image.new("RGB", (wide, LINE * len(lines) + 2 * MARGIN), "white")
    draw = ImageDraw.Draw(image)
    for i, line in enumerate(lines):
        draw.text((MARGIN, MARGIN + LINE * i), line, fill="black", font=font)
    return pil_to_tensor(image)
