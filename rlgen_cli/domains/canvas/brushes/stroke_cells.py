"""Many Bézier strokes an action, one from each cell of a grid, in the colours that come nearest to the target: for
copying pictures, as `rlgen paint` does."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from rlgen_cli.core.errors import require
from rlgen_cli.core.specs import Continuous, Stroke, Tip, TipKind
from rlgen_cli.domains.canvas.brushes.brush import check_tip, check_widths
from rlgen_cli.domains.canvas.rasteriser import BENT_LITTLE, rasterised, round_straight_through, straight

NUMBERS = 8  # of a stroke: x, y, direction (2), bend (2), width, opacity
LYING = 0.2  # u of strokes that an action of ½ draws: lines, since dots hardly learn to be anything else
REACH = 0.5  # half of the longest stroke's length along an axis of (u, v), as a fraction of the canvas's side


class Curves(NamedTuple):
    """K strokes on each of N canvases, without colours; lengths in pixels."""

    points: Tensor  # float [N, K, 3, 2]
    width: Tensor  # float [N, K]
    opacity: Tensor  # float [N, K]


class Layer(NamedTuple):
    """One stroke on each of N canvases, in the colour that was found."""

    stroke: Stroke
    canvas: Tensor  # float [N, C, H, W] in [0, 1], after it


class StrokeCells:
    """A free quadratic Bézier from each of grid² cells: action = (x, y, u, v, bx, by, width, opacity) for each, in
    [0, 1], of which those are drawn that alone would bring the canvas nearest to the target.

    x and y move the middle from the cell's by up to one cell's side. The vector (u, v), from near (½, ½), has the
    length of half the way from start to end, and twice its angle: a stroke is the same from either end, so that its
    direction has no other form that is unique and changes steadily. bx and by move the control point, by no more than
    half the way. Strokes are drawn from the largest to the smallest, each in the colour that brings the canvas nearest
    to the target under it (least squares). Differentiable.

    Args:
        size: side of the canvas, pixels.
        palette: uint8 [colours, C]; strokes have any colour.
        grid: cells a side. count: strokes that are drawn. widths: the smallest and the largest, pixels.
        edge: pixels that a rim takes to fade.
        kind, taper: what strokes look like; see Tip.

    Raises:
        UserError: for a value out of range.
    """

    pen_range = (0, 0)
    patch_size = 0
    differentiable = True
    exact_palette = False

    def __init__(
        self,
        *,
        size: int,
        palette: Tensor,
        grid: int,
        count: int,
        widths: list[float],
        edge: float,
        kind: TipKind,
        taper: float,
    ) -> None:
        require(1 <= grid <= 16, f"grid: must be from 1 to 16, got {grid}.")
        require(1 <= count <= grid**2, f"count: must be from 1 to grid² = {grid**2}, got {count}.")
        require(edge > 0, f"edge: must be above 0, got {edge}.")
        widths = check_widths(widths)
        self.tip = check_tip(kind, taper)
        self.size, self.grid, self.count, self.edge = size, grid, count, float(edge)
        self.min_width, self.max_width = min(widths), max(widths)
        self.action = Continuous(NUMBERS * grid**2, grid**2)
        middle = (torch.arange(grid, device=palette.device) + 0.5) / grid
        self.middle = torch.cartesian_prod(middle, middle).flip(1).view(-1, 2)  # [K, 2], (x, y), row by row

    def curves(self, action: Tensor) -> Curves:
        """The strokes of actions [N, D]."""
        part = action.clamp(0, 1).unflatten(1, (self.grid**2, NUMBERS))  # [N, K, NUMBERS]
        middle = self.middle + (2 * part[..., :2] - 1) / self.grid
        u, v = (2 * part[..., 2:4] - 1).unbind(-1)
        u = u + LYING
        angle, length = torch.atan2(v, u) / 2, REACH * (u.square() + v.square()).sqrt().unsqueeze(-1)
        half = length * torch.stack([angle.cos(), angle.sin()], -1)
        aside = length * (2 * part[..., 4:6] - 1) / math.sqrt(2)
        points = torch.stack([middle - half, middle + aside, middle + half], 2)
        width = self.min_width * (self.max_width / self.min_width) ** part[..., 6]
        points = points if self.tip.kind == "curve" else straight(points)
        return Curves(points * self.size - 0.5, width, part[..., 7])

    def layers(self, canvas: Tensor, target: Tensor, action: Tensor) -> Iterator[Layer]:
        """The strokes one after another; canvas and target are float [N, C, H, W] in [0, 1]."""
        curves = self.curves(action)
        alpha = coverage(curves, self.size, self.edge, self.tip)
        with torch.no_grad():
            best = (
                gains(alpha, canvas, target, best_colours(alpha, canvas, target)).topk(self.count, 1).indices
            )  # [N, count]
            area = alpha.sum((2, 3)).gather(1, best)
            order = best.gather(1, area.argsort(1, descending=True))
        row, drawn = torch.arange(len(order), device=order.device), torch.ones_like(order[:, 0], dtype=torch.bool)
        for place in order.unbind(1):
            a = alpha[row, place].unsqueeze(1)  # [N, 1, H, W]
            colour = best_colours(a, canvas, target).squeeze(1)
            canvas = canvas + a * (colour[:, :, None, None] - canvas)
            points, width, opacity = (field[row, place] for field in curves)
            yield Layer(Stroke(points, width, colour, opacity, drawn), canvas)

    def painted(self, canvas: Tensor, target: Tensor, action: Tensor) -> Tensor:
        """Canvases [N, C, H, W] after all strokes, in whole numbers as they were given; gradients pass those that are
        floats."""
        *_, last = self.layers(canvas / 255, target, action)
        after = last.canvas * 255
        return round_straight_through(after) if canvas.is_floating_point() else after.round().to(torch.uint8)

    def strokes(self, canvas: Tensor, target: Tensor, action: Tensor) -> list[Stroke]:
        """The same as vectors."""
        return [layer.stroke for layer in self.layers(canvas / 255, target, action)]

    def pen_xy(self, pen: Tensor) -> Tensor:
        return pen.float()


def coverage(curves: Curves, side: int, edge: float, tip: Tip) -> Tensor:
    """How much of each pixel of pictures of side × side each stroke covers, float [N, K, side, side]."""
    points, width = curves.points.flatten(0, 1), curves.width.flatten()
    alpha = rasterised(points, width, side, tip, edge, BENT_LITTLE).unflatten(0, curves.width.shape)
    return alpha * curves.opacity[:, :, None, None]


def best_colours(alpha: Tensor, canvas: Tensor, target: Tensor) -> Tensor:
    """For each stroke the colour c in [0, 1] with the least Σ (α c + (1 − α) canvas − target)², float [N, K, C].

    Args:
        alpha: what strokes cover, [N, K, H, W]. canvas, target: float [N, C, H, W].
    """
    alpha, canvas, target = alpha.flatten(2), canvas.flatten(2), target.flatten(2)
    square = alpha.square()
    wanted = alpha @ (target - canvas).mT + square @ canvas.mT
    return (wanted / (square.sum(2, keepdim=True) + 1e-3)).clamp(0, 1)


def gains(alpha: Tensor, canvas: Tensor, target: Tensor, colour: Tensor) -> Tensor:
    """By how much each stroke alone would lessen the squared distance to the target, [N, K].

    Args:
        alpha: what strokes cover, [N, K, H, W]. canvas, target: float [N, C, H, W]. colour: of strokes, [N, K, C].
    """
    alpha, canvas, error = alpha.flatten(2), canvas.flatten(2), (target - canvas).flatten(2)
    square = alpha.square()
    # Σ e² − (e − α (c − canvas))², multiplied out, so that no picture is made of any stroke.
    across = (colour * (alpha @ error.mT)).sum(2) - (alpha @ (error * canvas).mT).sum(2)
    own = (
        square.sum(2, keepdim=True) * colour.square() - 2 * colour * (square @ canvas.mT) + square @ canvas.square().mT
    )
    return 2 * across - own.sum(2)
