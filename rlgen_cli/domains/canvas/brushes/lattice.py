"""The points that a pen can be at when it moves on a lattice."""

import torch
from torch import Tensor

from rlgen_cli.core.errors import require
from rlgen_cli.domains.canvas.brushes.brush import check_margin


class Lattice:
    """grid × grid evenly spaced points; a pen's coordinates are whole numbers below `grid`.

    Args:
        size: side of the canvas, pixels.
        grid: points a side.
        margin: pixels that stay free at the border.
        device: of positions.

    Raises:
        UserError: for a value out of range.
    """

    def __init__(self, size: int, grid: int, margin: int, device: torch.device) -> None:
        check_margin(margin, size)
        require(2 <= grid <= size, f"grid: must be from 2 to env.size = {size}, got {grid}.")
        self.pen_range = (0, grid - 1)
        self.axis = torch.linspace(margin, size - 1 - margin, grid).to(device)  # [grid], pixels

    def pen_xy(self, pen: Tensor) -> Tensor:
        """Positions in pixels, float [N, 2], of lattice coordinates [N, 2]."""
        return self.axis[pen.long()]
