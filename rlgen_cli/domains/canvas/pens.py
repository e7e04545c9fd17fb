"""What the strokes of a painting may be, and what is drawn for each of them."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from rlgen_cli.core.specs import Tip
from rlgen_cli.domains.canvas.compositing import Strokes, turns
from rlgen_cli.domains.canvas.rasteriser import straight, way_of


class Pens(NamedTuple):
    """Limits of strokes, without which they may be all that the painter thinks of, and what they look like."""

    palette: Tensor | None = None  # colours, float [P, C]
    narrowest: float = 0.0  # pixels
    widest: float = math.inf
    faintest: float = 0.0  # least opacity
    tip: Tip = Tip()
    bristles: int = 0  # that a stroke is drawn with; 0: as a whole

    def scaled(self, factor: float) -> "Pens":
        """The same for pictures `factor` times as large."""
        return self._replace(narrowest=factor * self.narrowest, widest=factor * self.widest)

    def points(self, points: Tensor) -> Tensor:
        """Points [..., 3, 2], whose control is in the middle unless strokes may bend."""
        return points if self.tip.kind == "curve" else straight(points)

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

    def hairs(self, strokes: Strokes) -> Strokes:
        """What is drawn for strokes: themselves, or a curve for each of their bristles, stroke after stroke.

        A bristle lies beside the stroke's own curve, begins and ends a little before or after it, and has a width of
        its own: there are gaps, through which is seen what lies below. They are the same for the k-th stroke of every
        picture.
        """
        if not self.bristles:
            return strokes
        points = strokes.points
        aside, early, late, thick = patterns(turns(strokes.picture), self.bristles)  # [K, B] each
        begin, middle, end = (way / way.norm(dim=1, keepdim=True).clamp(min=1e-6) for way in directions(points))
        normals = torch.stack([begin, middle, end], 1).flip(2) * torch.tensor([-1.0, 1.0], device=points.device)
        away = aside * strokes.width.unsqueeze(1)
        moved = points.unsqueeze(1) + away[:, :, None, None] * normals.unsqueeze(1)  # [K, B, 3, 2]
        reach = strokes.width.view(-1, 1, 1)
        ends = [
            moved[:, :, 0] - early.unsqueeze(2) * reach * begin.unsqueeze(1),
            moved[:, :, 2] + late.unsqueeze(2) * reach * end.unsqueeze(1),
        ]  # fmt: skip
        made = torch.stack([ends[0], moved[:, :, 1], ends[1]], 2).flatten(0, 1)
        width = (thick * strokes.width.unsqueeze(1)).flatten()
        opacity, colour, picture = (
            field.repeat_interleave(self.bristles, 0) for field in (strokes.opacity, strokes.colour, strokes.picture)
        )
        return Strokes(made, width, opacity, colour, picture)


def directions(points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Where curves [K, 3, 2] go at their start, in their middle and at their end, [K, 2] each; (1, 0) for a point."""
    start, control, end = points.unbind(1)
    along = way_of(points)
    return control - start + 1e-3 * along, along, end - control + 1e-3 * along


def patterns(turn: Tensor, bristles: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of the bristles of strokes with these numbers [K], in widths of the stroke, [K, bristles] each: how far beside
    its curve they lie, how much before and after it they begin and end, and how wide they are."""
    rng, count = torch.Generator().manual_seed(0), int(turn.amax()) + 1 if len(turn) else 0
    drawn = torch.rand(count, 4, bristles, generator=rng).to(turn.device)
    aside, early, late, thick = drawn[turn].unbind(1)
    place = (torch.arange(bristles, device=turn.device) + 0.5) / bristles - 0.5
    gap = 1 / bristles
    return place + 0.3 * gap * (aside - 0.5), 0.5 * early - 0.25, 0.5 * late - 0.25, gap * (0.6 + 0.6 * thick)
