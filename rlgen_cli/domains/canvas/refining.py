"""Strokes that are there, moved by the gradient of the error: a finish after painting, or from anywhere."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from rlgen_cli.core.adam import PlainAdam
from rlgen_cli.domains.canvas.compositing import Strokes, composite
from rlgen_cli.domains.canvas.pens import Pens
from rlgen_cli.domains.canvas.rasteriser import BENT_LITTLE

RATE = 0.02  # of Adam, at the start; it falls in a half cosine
WARM = 10  # updates until it is reached
# What a step of the size 1 changes: pixels of points, logarithms of widths, logits of opacities, colours.
POINT, WIDTH, OPACITY, COLOUR = 64.0, 3.0, 5.0, 1.0
FAINT = 1e-3  # least opacity, and least distance from a full one, at the start


def refined(
    target: Tensor,
    paper: Tensor,
    strokes: Strokes,
    updates: int,
    pens: Pens,
    wish: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> Strokes:
    """The strokes after so many updates of Adam on points, widths, opacities and, unless there is a palette, colours,
    for the least mean squared error, or what that is less `wish`.

    Args:
        target: float [N, C, H, W] in [0, 1]. paper: the colours below, [N, C]. strokes: lengths in the target's pixels.
        pens: what strokes may be. wish: what else pictures are worth beside their targets, [N].
    """
    blank = paper[:, :, None, None].expand_as(target)
    opacity = torch.logit(strokes.opacity, FAINT)
    starts = strokes.points / POINT, strokes.width.log() / WIDTH, opacity / OPACITY, strokes.colour / COLOUR
    numbers = [start.detach().clone() for start in starts]
    free = [number.requires_grad_() for number in (numbers if pens.palette is None else numbers[:-1])]
    optimizer = PlainAdam(free, RATE)
    for update in range(updates):
        optimizer.learning_rate = RATE * min(1.0, (update + 1) / WARM) * (1 + math.cos(math.pi * update / updates)) / 2
        with torch.enable_grad():
            picture = composite(blank, pens.hairs(drawn(numbers, strokes, pens)), pens.tip, coarse=BENT_LITTLE)
            loss = (picture - target).square().mean((1, 2, 3)).sum()
            if wish is not None:
                loss = loss - wish(picture, target).sum()
        for parameter, grad in zip(free, torch.autograd.grad(loss, free), strict=True):
            parameter.grad = grad
        optimizer.step()
    return drawn([number.detach() for number in numbers], strokes, pens)


def drawn(numbers: list[Tensor], strokes: Strokes, pens: Pens) -> Strokes:
    """The strokes that the numbers stand for, of the same pictures."""
    points, width, opacity, colour = numbers
    return Strokes(
        pens.points(points * POINT), pens.width((width * WIDTH).exp()), pens.opacity((opacity * OPACITY).sigmoid()),
        (colour * COLOUR).clamp(0, 1), strokes.picture,
    )  # fmt: skip
