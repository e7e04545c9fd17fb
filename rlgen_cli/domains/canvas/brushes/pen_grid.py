"""Straight lines between the points of a lattice."""

from typing import Literal

from torch import Tensor

from rlgen_cli.data.images import Splits
from rlgen_cli.domains.canvas.brushes.stroke_grid import StrokeGrid


def pen_grid(
    *,
    size: int,
    palette: Tensor,
    grid: int,
    margin: int,
    widths: list[float] | Literal["auto"],
    data: Splits,
    patch_size: int,
) -> StrokeGrid:
    """Strokes between lattice points that never bend; see `StrokeGrid`."""
    return StrokeGrid(
        size=size,
        palette=palette,
        grid=grid,
        margin=margin,
        widths=widths,
        data=data,
        bends=[0.0],
        patch_size=patch_size,
    )
