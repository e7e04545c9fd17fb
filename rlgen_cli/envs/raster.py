"""Analytic, batched, anti-aliased rasterisers. Pixel centres are at whole numbers; points are (x, y) in pixels."""

import torch
from torch import Tensor

CHORDS = 12  # a quadratic Bézier is flattened to this many chords: under 0.1 px off for any curve on a 28 px canvas


def bezier(points: Tensor, width: Tensor, size: int) -> Tensor:
    """Coverage in [0, 1] of quadratic Bézier strokes with round ends, float [N, H, W]; differentiable.

    Args:
        points: [N, 3, 2], start, control and end in pixels.
        width: [N], in pixels; a stroke covers what lies nearer than half of it, with an edge one pixel soft.
        size: the canvas is size × size.
    """
    t = torch.linspace(0, 1, CHORDS + 1, device=points.device).view(1, -1, 1)
    start, control, end = points.unsqueeze(1).unbind(2)  # each [N, 1, 2]
    curve = (1 - t) ** 2 * start + 2 * t * (1 - t) * control + t**2 * end  # [N, CHORDS + 1, 2]
    squared = _segment_distance(curve[:, 0], curve[:, 1], size)
    for i in range(1, CHORDS):
        squared = torch.minimum(squared, _segment_distance(curve[:, i], curve[:, i + 1], size))
    return _coverage(squared, width)


def segment(start: Tensor, end: Tensor, width: Tensor, size: int) -> Tensor:
    """Coverage of straight strokes with round ends, float [N, H, W]; start and end are [N, 2], width [N]."""
    return _coverage(_segment_distance(start, end, size), width)


def _coverage(squared: Tensor, width: Tensor) -> Tensor:
    # The small term keeps the square root's gradient finite on the stroke's own axis.
    return (width.view(-1, 1, 1) / 2 + 0.5 - (squared + 1e-8).sqrt()).clamp(0, 1)


def _segment_distance(start: Tensor, end: Tensor, size: int) -> Tensor:
    """Squared distance of each pixel centre to the segments, [N, H, W]."""
    axis = torch.arange(size, device=start.device, dtype=start.dtype)
    to_x = axis.view(1, 1, -1) - start[:, 0].view(-1, 1, 1)  # [N, 1, W]
    to_y = axis.view(1, -1, 1) - start[:, 1].view(-1, 1, 1)  # [N, H, 1]
    along = end - start  # [N, 2]
    along_x, along_y = along[:, 0].view(-1, 1, 1), along[:, 1].view(-1, 1, 1)
    length = (along_x**2 + along_y**2).clamp(min=1e-8)
    share = ((to_x * along_x + to_y * along_y) / length).clamp(0, 1)  # [N, H, W]
    return (to_x - share * along_x) ** 2 + (to_y - share * along_y) ** 2


def pixel_line(dx: int, dy: int, reach: int, thickness: int) -> Tensor:
    """One line without anti-aliasing from the middle of a (2·reach + 2·thickness + 1)² window, float 0 or 1.

    Stepped along the longer axis and `thickness` pixels wide across the shorter one, as ReSketch draws; a move
    of nothing inks one such bar, and diagonals count as steep (these two conventions give ReSketch's random
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
