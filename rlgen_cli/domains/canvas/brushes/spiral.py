"""SPIRAL's brush: eight decisions a step."""

import torch
from torch import Tensor

from rlgen_cli.core.errors import require
from rlgen_cli.core.specs import Factored, Stroke, Tip
from rlgen_cli.domains.canvas.brushes.brush import Mark, check_patch_size, check_widths
from rlgen_cli.domains.canvas.brushes.decoded import DecodedStroke
from rlgen_cli.domains.canvas.brushes.lattice import Lattice


class SpiralBrush:
    """Eight decisions a step (Ganin et al. 2018, section 4.1).

    Action = (x, y, control x, control y, width, pressure, colour, pen): a quadratic Bézier from where the pen is to
    the lattice point (x, y); pen 0 moves without drawing.

    Args:
        size: side of the canvas, pixels.
        palette: uint8 [colours, C]; colour 0 is the background.
        grid: lattice points a side.
        margin: pixels that the lattice leaves free at the border.
        widths: the smallest and the largest, pixels.
        levels: evenly spaced widths to choose from, and as many pressures (opacities, up to 1); one level is the
            largest width and full pressure.
        patch_size: side of the close view around the pen, odd, or 0 for none.

    Raises:
        UserError: for a value out of range.
    """

    differentiable = False
    exact_palette = False
    tip = Tip()

    def __init__(
        self,
        *,
        size: int,
        palette: Tensor,
        grid: int,
        margin: int,
        widths: list[float],
        levels: int,
        patch_size: int,
    ) -> None:
        require(1 <= levels <= 256, f"levels: must be from 1 to 256, got {levels}.")
        check_patch_size(patch_size)
        widths, device = check_widths(widths), palette.device
        self.size, self.inks, self.patch_size = size, palette[1:], patch_size
        self.lattice = Lattice(size, grid, margin, device)
        self.pen_range = self.lattice.pen_range
        self.action = Factored((grid, grid, grid, grid, levels, levels, len(self.inks), 2))
        # Counted down and flipped, so that a single level is the largest.
        self.widths = torch.linspace(max(widths), min(widths), levels).flip(0).to(device)
        self.pressures = torch.linspace(1.0, 1 / levels, levels).flip(0).to(device)

    def mark(self, pen: Tensor, action: Tensor) -> Mark:
        return self._decode(pen, action).mark(self.inks, self.size)

    def stroke(self, pen: Tensor, action: Tensor) -> Stroke:
        return self._decode(pen, action).stroke(self.inks)

    def pen_xy(self, pen: Tensor) -> Tensor:
        return self.lattice.pen_xy(pen)

    def _decode(self, pen: Tensor, action: Tensor) -> DecodedStroke:
        end, control = self.pen_xy(action[:, :2]), self.pen_xy(action[:, 2:4])
        points = torch.stack([self.pen_xy(pen), control, end], 1)
        width, pressure = self.widths[action[:, 4]], self.pressures[action[:, 5]]
        return DecodedStroke(points, width, pressure, action[:, 6], action[:, :2].to(torch.int16), action[:, 7] > 0)
