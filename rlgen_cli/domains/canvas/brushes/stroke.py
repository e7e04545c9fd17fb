"""Free Bézier strokes, which gradients pass."""

import torch
from torch import Tensor

from rlgen_cli.core.errors import require
from rlgen_cli.core.specs import Continuous, Stroke, Tip
from rlgen_cli.domains.canvas.brushes.brush import Mark, check_widths
from rlgen_cli.domains.canvas.rasteriser import bezier, round_straight_through


class StrokeBrush:
    """A free quadratic Bézier: action = (x0, y0, x1, y1, x2, y2, width, opacity, colour…) in [0, 1].

    Differentiable: opacity and colour are rounded to whole numbers as on every canvas, and gradients pass the rounding
    unchanged (straight through).

    Args:
        size: side of the canvas, pixels.
        palette: uint8 [colours, C]; only the background is taken from it, strokes have any colour.
        widths: the smallest and the largest, pixels.
        edge: pixels that a stroke's rim takes to fade.

    Raises:
        UserError: for a value out of range.
    """

    pen_range = (0, 0)
    patch_size = 0
    differentiable = True
    exact_palette = False
    tip = Tip()

    def __init__(self, *, size: int, palette: Tensor, widths: list[float], edge: float) -> None:
        require(edge > 0, f"edge: must be above 0, got {edge}.")
        widths = check_widths(widths)
        self.size, self.min_width, self.max_width, self.edge = size, min(widths), max(widths), float(edge)
        self.action = Continuous(8 + palette.shape[1])

    def mark(self, pen: Tensor, action: Tensor) -> Mark:
        stroke = self.stroke(pen, action)
        alpha = bezier(stroke.points, stroke.width, self.size, self.edge) * stroke.opacity.view(-1, 1, 1)
        colour = round_straight_through(stroke.colour * 255)
        return Mark(round_straight_through(alpha * 255), colour, pen, stroke.drawn)

    def stroke(self, pen: Tensor, action: Tensor) -> Stroke:
        action = action.clamp(0, 1)
        points = action[:, :6].view(-1, 3, 2) * self.size - 0.5  # from border to border, whatever the size
        width = self.min_width + (self.max_width - self.min_width) * action[:, 6]
        return Stroke(points, width, action[:, 8:], action[:, 7], torch.ones_like(width, dtype=torch.bool))

    def pen_xy(self, pen: Tensor) -> Tensor:
        return pen.float()
