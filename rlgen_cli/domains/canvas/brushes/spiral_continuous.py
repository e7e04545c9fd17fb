"""SPIRAL's brush with free points, widths and pressures."""

import torch
from torch import Tensor

from rlgen_cli.core.specs import Continuous, Factored, Mixed, Stroke, Tip
from rlgen_cli.domains.canvas.brushes.brush import Mark, check_margin, check_patch_size, check_widths
from rlgen_cli.domains.canvas.brushes.decoded import DecodedStroke

UNITS = 64  # of the pen's position, per pixel


class SpiralContinuousBrush:
    """Action = (colour, pen; x, y, control x, control y, width, pressure): two whole numbers and six in [0, 1].

    A quadratic Bézier from where the pen is to (x, y); pen 0 moves without drawing.

    Args:
        size: side of the canvas, pixels.
        palette: uint8 [colours, C]; colour 0 is the background.
        margin: pixels from the border that points keep.
        widths: the smallest and the largest, pixels.
        patch_size: side of the close view around the pen, odd, or 0 for none.

    Raises:
        UserError: for a value out of range.
    """

    differentiable = False
    exact_palette = False
    tip = Tip()

    def __init__(self, *, size: int, palette: Tensor, margin: int, widths: list[float], patch_size: int) -> None:
        check_margin(margin, size)
        check_patch_size(patch_size)
        widths = check_widths(widths)
        self.size, self.inks, self.patch_size = size, palette[1:], patch_size
        self.min_width, self.max_width = min(widths), max(widths)
        self.low, self.span = float(margin), float(size - 1 - 2 * margin)
        self.action = Mixed(Factored((len(self.inks), 2)), Continuous(6))
        self.pen_range = (margin * UNITS, (size - 1 - margin) * UNITS)

    def mark(self, pen: Tensor, action: Tensor) -> Mark:
        return self._decode(pen, action).mark(self.inks, self.size)

    def stroke(self, pen: Tensor, action: Tensor) -> Stroke:
        return self._decode(pen, action).stroke(self.inks)

    def pen_xy(self, pen: Tensor) -> Tensor:
        return pen.float() / UNITS

    def _decode(self, pen: Tensor, action: Tensor) -> DecodedStroke:
        free = action[:, 2:].clamp(0, 1)
        end, control = self.low + self.span * free[:, :2], self.low + self.span * free[:, 2:4]
        width = self.min_width + (self.max_width - self.min_width) * free[:, 4]
        after = (end * UNITS).round().to(torch.int16)
        points = torch.stack([self.pen_xy(pen), control, self.pen_xy(after)], 1)
        return DecodedStroke(points, width, free[:, 5], action[:, 0].long(), after, action[:, 1] > 0)
