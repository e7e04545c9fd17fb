"""What the strokes of a painting may be."""

import math
from typing import NamedTuple

import torch
from torch import Tensor


class Pens(NamedTuple):
    """Limits of strokes; without any, they may be all that the painter thinks of."""

    palette: Tensor | None = None  # colours, float [P, C]
    narrowest: float = 0.0  # pixels
    widest: float = math.inf
    faintest: float = 0.0  # least opacity

    def scaled(self, factor: float) -> "Pens":
        """The same for pictures `factor` times as large."""
        return self._replace(narrowest=factor * self.narrowest, widest=factor * self.widest)

    def width(self, width: Tensor) -> Tensor:
        """Widths within the limits."""
        return width.clamp(self.narrowest, self.widest)

    def opacity(self, opacity: Tensor) -> Tensor:
        """Opacities within the limits."""
        return opacity.clamp(self.faintest, 1.0)

    def colour(self, colour: Tensor) -> Tensor:
        """Of each colour [N, K, C] the nearest of the palette."""
        if self.palette is None:
            return colour
        return self.palette[torch.cdist(colour.flatten(0, 1), self.palette).argmin(1)].unflatten(0, colour.shape[:2])
