"""Analytic, batched, anti-aliased rasterisers. Pixel centres are at whole numbers; points are (x, y) in pixels."""

import torch
from torch import Tensor

from rlgen_cli.core.specs import Tip

COARSE, REFINE = 12, 2  # points that a curve's nearest one is looked for among, and Newton steps from there
BENT_LITTLE = 5  # such points, where a curve's control point is no further from its middle than its ends are


def rasterised(points: Tensor, width: Tensor, size: int, tip: Tip, edge: float, coarse: int = COARSE) -> Tensor:
    """Coverage in [0, 1] of strokes, float [N, H, W]; differentiable. See `bezier` for the arguments."""
    if tip.kind == "ellipse":
        return ellipse(points, width, size, edge)
    if tip.kind == "triangle":
        return triangle(points, width, size, edge)
    return bezier(points, width, size, edge, coarse, tip.taper)


def straight(points: Tensor) -> Tensor:
    """Points [..., 3, 2] with the control in the middle between start and end."""
    start, _, end = points.unbind(-2)
    return torch.stack([start, (start + end) / 2, end], -2)


def way_of(points: Tensor) -> Tensor:
    """From start to end of points [..., 3, 2], [..., 2]: what is a point has a direction, too, to the right."""
    return points[..., 2, :] - points[..., 0, :] + points.new_tensor([1e-4, 0.0])


def bezier(
    points: Tensor, width: Tensor, size: int, edge: float = 1.0, coarse: int = COARSE, taper: float = 0.0
) -> Tensor:
    """Coverage in [0, 1] of quadratic Bézier strokes with round ends, float [N, H, W]; differentiable.

    Args:
        points: [N, 3, 2], start, control and end in pixels.
        width: [N], in pixels; a stroke covers what lies nearer than half of it.
        size: the canvas is size × size.
        edge: how many pixels the coverage takes to fall from 1 to 0; half of them lie outside the width.
        coarse: points that a curve's nearest one is looked for among.
        taper: share of the width that is lost from start to end.
    """
    start, control, end = points.unsqueeze(-1).unbind(1)  # each [N, 2, 1]
    linear, square = 2 * (control - start), start - 2 * control + end
    axis = torch.arange(size, device=points.device, dtype=points.dtype)
    with torch.no_grad():
        t = _nearest(start, linear, square, axis, coarse)  # [N, H, W]
    # The distance to the nearest point changes with the curve as if that point stayed where it is (envelope theorem).
    (x0, y0), (x1, y1), (x2, y2) = (part.unsqueeze(-1).unbind(1) for part in (start, linear, square))
    to_x, to_y = x0 + t * (x1 + t * x2) - axis, y0 + t * (y1 + t * y2) - axis.view(-1, 1)
    squared, width = to_x.square() + to_y.square(), width.view(-1, 1, 1)
    if not taper:
        return _coverage(squared, width, edge)
    at_start = (x0 - axis).square() + (y0 - axis.view(-1, 1)).square()  # of a short curve its round start is most
    return torch.maximum(_coverage(squared, width * (1 - taper * t), edge), _coverage(at_start, width, edge))


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
    return _coverage(_segment_distance(start, end, size), width.view(-1, 1, 1), 1.0)


def ellipse(points: Tensor, width: Tensor, size: int, edge: float) -> Tensor:
    """Coverage of filled ellipses that reach as far as straight strokes of this width with round ends, float [N, H, W];
    differentiable. The distance to the rim is F / |∇F| of the ellipse's equation F = 0, nearly right where F is small.
    """
    along, beside, length = _own_axes(points, size)
    half = width.view(-1, 1, 1) / 2
    across, level = along / (length / 2 + half).square(), beside / half.square()
    equation = along * across + beside * level - 1
    return (0.5 - equation / (2 * edge * (across.square() + level.square() + 1e-8).sqrt())).clamp(0, 1)


def triangle(points: Tensor, width: Tensor, size: int, edge: float) -> Tensor:
    """Coverage of filled triangles, as wide as a straight stroke at its start, which is the middle of their base, and
    with their tip where its round end ends, float [N, H, W]; differentiable."""
    along, beside, length = _own_axes(points, size)
    half = width.view(-1, 1, 1) / 2
    tall = length + half  # from base to tip
    beyond_side = (half * (along + length / 2) + tall * (beside.abs() - half)) / (half.square() + tall.square()).sqrt()
    # The rim of a sharp tip would reach far beyond it.
    outside = torch.maximum(torch.maximum(-(along + length / 2), along - length / 2 - half), beyond_side)
    return (0.5 - outside / edge).clamp(0, 1)


def _own_axes(points: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Where pixels lie along and beside the lines from start to end, from their middles, [N, H, W] each, and the lines'
    lengths, [N, 1, 1]."""
    axis = torch.arange(size, device=points.device, dtype=points.dtype)
    start, end = points[:, 0], points[:, 2]
    way = way_of(points)
    length = way.norm(dim=1).view(-1, 1, 1)
    (x, y), (u, v) = (part.view(-1, 2, 1, 1).unbind(1) for part in ((start + end) / 2, way / length.view(-1, 1)))
    to_x, to_y = axis - x, axis.view(-1, 1) - y  # [N, 1, W], [N, H, 1]
    return to_x * u + to_y * v, to_y * u - to_x * v, length


def _coverage(squared: Tensor, width: Tensor, edge: float) -> Tensor:
    # The small term keeps the square root's gradient finite on the stroke's own axis.
    return ((width / 2 - (squared + 1e-8).sqrt()) / edge + 0.5).clamp(0, 1)


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
