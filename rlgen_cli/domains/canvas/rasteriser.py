"""Analytic, batched, anti-aliased rasterisers. Pixel centres are at whole numbers; points are (x, y) in pixels."""

import torch
from torch import Tensor

COARSE, REFINE = 12, 2  # points that a curve's nearest one is looked for among, and Newton steps from there
BENT_LITTLE = 5  # such points, where a curve's control point is no further from its middle than its ends are


def bezier(points: Tensor, width: Tensor, size: int, edge: float = 1.0, coarse: int = COARSE) -> Tensor:
    """Coverage in [0, 1] of quadratic Bézier strokes with round ends, float [N, H, W]; differentiable.

    Args:
        points: [N, 3, 2], start, control and end in pixels.
        width: [N], in pixels; a stroke covers what lies nearer than half of it.
        size: the canvas is size × size.
        edge: how many pixels the coverage takes to fall from 1 to 0; half of them lie outside the width.
        coarse: points that a curve's nearest one is looked for among.
    """
    start, control, end = points.unsqueeze(-1).unbind(1)  # each [N, 2, 1]
    linear, square = 2 * (control - start), start - 2 * control + end
    axis = torch.arange(size, device=points.device, dtype=points.dtype)
    with torch.no_grad():
        t = _nearest(start, linear, square, axis, coarse)  # [N, H, W]
    # The distance to the nearest point changes with the curve as if that point stayed where it is (envelope theorem).
    (x0, y0), (x1, y1), (x2, y2) = (part.unsqueeze(-1).unbind(1) for part in (start, linear, square))
    to_x, to_y = x0 + t * (x1 + t * x2) - axis, y0 + t * (y1 + t * y2) - axis.view(-1, 1)
    return _coverage(to_x.square() + to_y.square(), width, edge)


def _nearest(start: Tensor, linear: Tensor, square: Tensor, axis: Tensor, coarse: int) -> Tensor:
    """The t in [0, 1] whose point start + linear t + square t² is nearest to each pixel, [N, H, W]."""
    n, size = len(start), len(axis)
    grid = torch.linspace(0, 1, coarse, device=axis.device)
    curve = start + grid * (linear + grid * square)  # [N, 2, coarse]
    away = (curve.unsqueeze(-1) - axis).square()  # [N, 2, coarse, size]
    best = away[:, 0, 0].unsqueeze(1) + away[:, 1, 0].unsqueeze(2)  # [N, H, W]
    t = torch.zeros_like(best)
    for i in range(1, coarse):
        distance = away[:, 0, i].unsqueeze(1) + away[:, 1, i].unsqueeze(2)
        t.masked_fill_(distance < best, i / (coarse - 1))
        torch.minimum(best, distance, out=best)
    (start_x, start_y), (linear_x, linear_y), (square_x, square_y) = (
        part.view(n, 2, 1, 1).unbind(1) for part in (start, linear, square)
    )
    aim_x, aim_y = axis - start_x, axis.view(size, 1) - start_y  # [N, 1, W], [N, H, 1]
    for _ in range(REFINE):
        tangent_x, tangent_y = linear_x + square_x * t, linear_y + square_y * t
        off_x, off_y = tangent_x * t - aim_x, tangent_y * t - aim_y
        tangent_x, tangent_y = tangent_x + square_x * t, tangent_y + square_y * t
        speed = tangent_x.square() + tangent_y.square()
        bend = speed + 2 * (off_x * square_x + off_y * square_y)  # half the second derivative of the squared distance
        # Where the curve bends away, a gradient step; never further than the next coarse point.
        move = (off_x * tangent_x + off_y * tangent_y) / (torch.maximum(bend, 0.3 * speed) + 1e-6)
        t = (t - move.clamp(-0.6 / (coarse - 1), 0.6 / (coarse - 1))).clamp(0, 1)
    return t


def segment(start: Tensor, end: Tensor, width: Tensor, size: int) -> Tensor:
    """Coverage of straight strokes with round ends, float [N, H, W]; start and end are [N, 2], width [N]."""
    return _coverage(_segment_distance(start, end, size), width, 1.0)


def _coverage(squared: Tensor, width: Tensor, edge: float) -> Tensor:
    # The small term keeps the square root's gradient finite on the stroke's own axis.
    return ((width.view(-1, 1, 1) / 2 - (squared + 1e-8).sqrt()) / edge + 0.5).clamp(0, 1)


def _segment_distance(start: Tensor, end: Tensor, size: int) -> Tensor:
    """Squared distance of each pixel centre to the segments, [N, H, W]."""
    axis = torch.arange(size, device=start.device, dtype=start.dtype)
    to_x = axis.view(1, 1, -1) - start[:, 0].view(-1, 1, 1)  # [N, 1, W]
    to_y = axis.view(1, -1, 1) - start[:, 1].view(-1, 1, 1)  # [N, H, 1]
    along = end - start  # [N, 2]
    along_x, along_y = along[:, 0].view(-1, 1, 1), along[:, 1].view(-1, 1, 1)
    length = (along_x**2 + along_y**2).clamp(min=1e-8)
    fraction = ((to_x * along_x + to_y * along_y) / length).clamp(0, 1)  # [N, H, W]
    return (to_x - fraction * along_x) ** 2 + (to_y - fraction * along_y) ** 2


def pixel_line(dx: int, dy: int, reach: int, thickness: int) -> Tensor:
    """One line without anti-aliasing from the middle of a (2·reach + 2·thickness + 1)² window, float 0 or 1.

    Stepped along the longer axis and `thickness` pixels wide across the shorter one, as ReSketch draws; a move
    of nothing draws one such bar, and diagonals count as steep (these two conventions give ReSketch's random
    score).
    """
    middle, half = reach + thickness, thickness // 2
    mask = torch.zeros(2 * middle + 1, 2 * middle + 1)
    steps = max(abs(dx), abs(dy))
    for i in range(steps + 1):
        x = middle + _round(i * dx, steps)
        y = middle + _round(i * dy, steps)
        for side in range(-half, thickness - half):
            if abs(dx) > abs(dy) or steps == 0:
                mask[y + side, x] = 1
            else:
                mask[y, x + side] = 1
    return mask


def _round(numerator: int, denominator: int) -> int:
    """numerator / denominator, rounded half up; 0 for 0 / 0."""
    return (2 * numerator + denominator) // (2 * denominator) if denominator else 0


def round_straight_through(x: Tensor) -> Tensor:
    """`x` rounded; its gradient is that of `x` (the straight-through estimator, Bengio et al. 2013)."""
    return x + (x.round() - x).detach()
