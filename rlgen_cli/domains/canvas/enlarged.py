"""Drawings at any size, rasterised from their strokes."""

from collections import deque
from collections.abc import Iterator

import torch
from torch import Tensor

from rlgen_cli.domains.canvas.outlines import is_filled
from rlgen_cli.domains.canvas.rasteriser import rasterised, segment
from rlgen_cli.domains.canvas.svg import Drawing


def enlarged(drawing: Drawing, sample: int, scale: int) -> Tensor:
    """One sample with each pixel's side `scale` pixels long, float [C + 1, H, W] in [0, 1]: its colours, and what the
    strokes cover, beside which the paper shows."""
    (last,) = deque(stages(drawing, sample, scale), maxlen=1)
    return last


def stages(drawing: Drawing, sample: int, scale: int) -> Iterator[Tensor]:
    """The same picture before the first step and after each, [C + 1, H, W]."""
    high, wide = drawing.high * scale, drawing.wide * scale
    side = max(high, wide)
    picture = drawing.background.view(-1, 1, 1).repeat(1, high, wide)
    covered = torch.zeros(1, high, wide)
    yield torch.cat([picture, covered])
    for stroke in drawing.strokes:
        points, width, colour, opacity, drawn = (field[sample : sample + 1] for field in stroke)
        if bool(drawn):
            # A pixel's middle lies at a whole number, before and after.
            start, control, end = ((points + 0.5) * scale - 0.5).unbind(1)  # [1, 2] each
            if not is_filled(drawing.tip) and torch.allclose(2 * control, start + end, atol=1e-3):
                coverage = segment(start, end, width * scale, side)
            else:
                coverage = rasterised(torch.stack([start, control, end], 1), width * scale, side, drawing.tip, 1.0)
            coverage = coverage[:, :high, :wide] * opacity  # [1, H, W]
            picture = picture + (colour.view(-1, 1, 1) - picture) * coverage
            covered = covered + (1 - covered) * coverage
        yield torch.cat([picture, covered])
