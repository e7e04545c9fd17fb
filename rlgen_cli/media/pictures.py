"""Pictures: grids as PNG, time-lapses as GIF, strokes as SVG."""

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rlgen_cli.errors import require
from rlgen_cli.export.raster import beside, enlarge, grid, write_gif, write_png
from rlgen_cli.export.svg import write_svg, write_svg_grid
from rlgen_cli.rollout import Rollout
from rlgen_cli.types import Stroke, View


class Pictures:
    """`env` makes pictures."""

    formats: tuple[str, ...] = ("png", "gif", "svg")
    last = 64  # samples that the end of a run leaves

    def __init__(self, env: Any) -> None:
        self.env = env

    def sheet(self, view: View, limit: int = 64) -> Tensor:
        return enlarge(sheet(view, limit))

    def diversity(self, sample: Tensor) -> float:
        return diversity(sample)

    def audio(self, view: View) -> None:
        """Pictures are silent."""

    def write(self, made: Rollout, formats: list[str], out: Path) -> None:
        """A grid and one file each; a time-lapse; vectors, which are left out where several formats are asked for and
        the environment makes no strokes."""
        env, view = self.env, self.env.view(made.final)
        n = len(view.sample)
        vectors = hasattr(env, "stroke")
        if "svg" in formats and not vectors:
            require(len(formats) > 1, "format: this environment makes no strokes, so it has no svg; use png or gif.")
        if "png" in formats:
            write_png(out / "grid.png", enlarge(sheet(view, n)))
            for i, image in enumerate(view.sample):
                write_png(out / f"{i:03d}.png", (image.expand(3, -1, -1) * 255).round().to(torch.uint8))
        if "gif" in formats:
            stride = max(1, len(made.states) // 128)
            shown = [*made.states[::stride], made.final]
            write_gif(out / "timelapse.gif", [enlarge(grid(env.view(state).sample), 320) for state in shown])
        if "svg" in formats and vectors:
            strokes: list[Stroke] = [env.stroke(s, a) for s, a in zip(made.states, made.actions, strict=True)]
            strokes = [Stroke(*(field.cpu() for field in stroke)) for stroke in strokes]
            background, size = env.palette[0].float().cpu() / 255, env.size
            write_svg_grid(out / "grid.svg", strokes, math.ceil(math.sqrt(n)), size, background)
            for i in range(n):
                write_svg(out / f"{i:03d}.svg", strokes, i, size, background)


def diversity(samples: Tensor) -> float:
    """Mean distance (root mean squared pixel difference) between neighbours in the batch: 0 is collapse."""
    return float((samples - samples.roll(1, 0)).square().flatten(1).mean(1).sqrt().mean())


def sheet(view: View, limit: int = 64) -> Tensor:
    """The samples as a grid, uint8 [3, H, W]; beside it the targets, where there are any."""
    made = grid(view.sample[:limit])
    if view.context.target is None:
        return made
    return beside(made, grid(view.context.target[:limit]))
