"""Single pixels."""

import torch
from torch import Tensor

from rlgen_cli.core.specs import Discrete, Stroke, Tip
from rlgen_cli.domains.canvas.brushes.brush import Mark


class PixelBrush:
    """Sets the pixel (x, y) to colour c: action = c·H·W + y·W + x.

    Args:
        size: side of the canvas, pixels.
        palette: uint8 [colours, C].
    """

    pen_range = (0, 0)
    patch_size = 0
    differentiable = False
    exact_palette = True
    tip = Tip("pixel")

    def __init__(self, *, size: int, palette: Tensor) -> None:
        self.size, self.palette = size, palette
        self.action = Discrete(len(palette) * size * size, (len(palette), size, size))

    def mark(self, pen: Tensor, action: Tensor) -> Mark:
        cell, colour = action % (self.size * self.size), self.palette[action // (self.size * self.size)]
        corner = torch.stack([cell % self.size, cell // self.size], 1)
        opaque = torch.full((len(action), 1, 1), 255, dtype=torch.uint8, device=action.device)
        return Mark(opaque, colour, pen, torch.ones_like(action, dtype=torch.bool), corner)

    def stroke(self, pen: Tensor, action: Tensor) -> Stroke:
        cell = action % (self.size * self.size)
        xy = torch.stack([cell % self.size, cell // self.size], 1).float()
        colour = self.palette[action // (self.size * self.size)].float() / 255
        one = torch.ones_like(xy[:, 0])
        return Stroke(xy.unsqueeze(1).expand(-1, 3, -1), one, colour, one, one.bool())

    def pen_xy(self, pen: Tensor) -> Tensor:
        return pen.float()
