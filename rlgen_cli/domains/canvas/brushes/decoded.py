"""What an action of SPIRAL's brushes says, once it is decoded."""

from typing import NamedTuple

from torch import Tensor

from rlgen_cli.core.specs import Stroke
from rlgen_cli.domains.canvas.brushes.brush import Mark
from rlgen_cli.domains.canvas.rasteriser import bezier


class DecodedStroke(NamedTuple):
    """N quadratic Bézier strokes."""

    points: Tensor  # float [N, 3, 2], start, control, end in pixels
    width: Tensor  # float [N], pixels
    opacity: Tensor  # float [N]
    ink: Tensor  # int64 [N], index of the colour
    pen: Tensor  # int16 [N, 2], afterwards
    drawn: Tensor  # bool [N]

    def mark(self, inks: Tensor, size: int) -> Mark:
        """What the strokes leave on a canvas of size × size; `inks` are colours, uint8 [inks, C]."""
        alpha = bezier(self.points, self.width, size) * (self.opacity * self.drawn).view(-1, 1, 1)
        return Mark((alpha * 255).round(), inks[self.ink], self.pen, self.drawn)

    def stroke(self, inks: Tensor) -> Stroke:
        """The same as vectors."""
        return Stroke(self.points, self.width, inks[self.ink].float() / 255, self.opacity, self.drawn)
