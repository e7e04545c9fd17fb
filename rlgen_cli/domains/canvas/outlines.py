"""The rims of strokes that are drawn as filled shapes."""

import math

import torch
from torch import Tensor

from rlgen_cli.core.specs import Tip
from rlgen_cli.domains.canvas.rasteriser import way_of

PARTS = 48  # of an ellipse's rim
SIDE, END = 10, 6  # parts of each side of a curve, and of its round end


def is_filled(tip: Tip) -> bool:
    """Whether a stroke is a filled shape, none that a line of one width draws."""
    return tip.kind in ("ellipse", "triangle") or tip.taper > 0


def outlines(points: Tensor, width: float, tip: Tip) -> list[Tensor]:
    """The rim of one such stroke as polygons that are filled together and turn the same way, float [M, 2] each, pixels.

    Args:
        points: [3, 2], start, control and end.
    """
    points = points.double()
    middle, length, along, beside = own_axes(points)
    half = width / 2
    if tip.kind == "ellipse":
        return [middle + rim((length / 2 + half) * along, half * beside)]
    if tip.kind == "triangle":
        base = [points[0] + half * beside, points[0] - half * beside]
        return [torch.stack([*base, middle + (length / 2 + half) * along])]
    return [tapered(points, width, tip.taper), points[0] + rim(half * along, -half * beside)]


def rim(along: Tensor, beside: Tensor) -> Tensor:
    """An ellipse around the origin by its half axes, [PARTS, 2]."""
    angle = torch.arange(PARTS).double().unsqueeze(1) * (2 * math.pi / PARTS)
    return angle.cos() * along + angle.sin() * beside


def own_axes(points: Tensor) -> tuple[Tensor, float, Tensor, Tensor]:
    """The middle between start and end, how far apart they are, and the directions along and beside the way."""
    way = way_of(points)
    along = way / way.norm()
    return (points[0] + points[2]) / 2, float(way.norm()), along, torch.stack([-along[1], along[0]])


def tapered(points: Tensor, width: float, taper: float) -> Tensor:
    """The rim of a curve that loses a share of its width, but for its round start."""
    t = torch.linspace(0, 1, SIDE + 1, dtype=points.dtype).unsqueeze(1)
    start, control, end = points
    place = (1 - t) ** 2 * start + 2 * t * (1 - t) * control + t**2 * end
    small = 1e-3 * own_axes(points)[2]  # a curve that stands still at an end has a direction there, too
    way = (1 - t) * (control - start) + t * (end - control) + small
    along = way / way.norm(dim=1, keepdim=True)
    half = width * (1 - taper * t) / 2
    beside = half * torch.stack([-along[:, 1], along[:, 0]], 1)
    turn = torch.linspace(0, math.pi, END + 1, dtype=points.dtype).unsqueeze(1)[1:-1]
    last = place[-1] + turn.cos() * beside[-1] + turn.sin() * half[-1] * along[-1]
    return torch.cat([place + beside, last, (place - beside).flip(0)])
