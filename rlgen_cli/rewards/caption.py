"""Whether a picture shows what a caption asks for: a rule that finds objects by their colours and shapes, in the manner
of GenEval (Ghosh et al. 2023), for the captions of data/captions.py."""

import itertools
import math
from typing import NamedTuple

import torch
from torch import Tensor

from rlgen_cli.core.errors import require
from rlgen_cli.core.specs import EnvSpec, View
from rlgen_cli.data.captions import COLOURS, RELATIONS, SHAPES, Object, Scene, parse

SMALLEST = 24  # side of pictures whose shapes can be told apart, pixels
BRIGHT = 0.42  # of a pixel's largest channel, from which on it belongs to an object
LEAST_AREA = 1 / 80  # of an object, as a share of the picture; what is smaller is not seen
# Of a circle, a square and a triangle with its tip above, worked out by hand: see `objects_of`.
MOMENTS = (
    (2 / 3, 0.0, 1.0, 0.0),
    (1.0, 0.0, 3 / math.pi, 0.0),
    (0.8, 0.4 * math.sqrt(2), 1.5 * math.sqrt(3) / math.pi, math.log(3 / 4) / 2),
)
LARGEST_DISTANCE = 0.3  # of moments from those of the shape that an object is taken for
ROUNDS = 6  # of `components`
NEAR = 0.05  # share of the picture's side by which an object must be further left, right, above or below at least
KINDS = [Object(*kind) for kind in itertools.product(COLOURS, SHAPES)]


class Found(NamedTuple):
    """What there is in N pictures."""

    counts: Tensor  # float [N, kinds], objects of each kind
    strange: Tensor  # float [N], objects of no colour or shape that captions name
    centre: Tensor  # float [N, kinds, 2], mean of the middles of each kind's objects, as shares of the side; 0 without


class Objects(NamedTuple):
    """What is known of the object of each place; where none is, the area is 0."""

    area: Tensor  # float [N, H · W], pixels
    x: Tensor  # float [N, H · W], of its middle, pixels from the left; y from the top
    y: Tensor
    shape: Tensor  # int64 [N, H · W], an index of SHAPES, or one more for none of them


class Asked(NamedTuple):
    """What captions ask for, a row each."""

    counts: Tensor  # float [classes, kinds]
    first: Tensor  # int64 [classes], kinds of the two that stand in a relation; any where there is none
    second: Tensor
    direction: Tensor  # float [classes, 2], of the first as seen from the second; 0 without a relation


class Caption:
    """1 where the picture shows the asked objects and no others, where they are asked to be, else 0; or the share of
    conditions that are met: how many objects there are (0 or 1), their colours, their shapes, and both together (each
    the number of right ones, over how many are asked for or there, whichever is more), and the relation where one is
    asked for (0 or 1).

    An object is connected pixels (by their sides) of one colour, at least 1/80 of the picture; what is smaller is not
    seen. A pixel belongs to one where its largest channel is .42 or more, and has the colour that it is nearest to when
    its largest channel is made 1; grey is none of the captions'. An object has the shape that its moments are nearest
    to (Hu 1962), or none, which is as wrong as a shape that was not asked for. Of two, the one whose middle is further
    left, right, above or below stands so, by the larger of the two distances.

    Args:
        graded: the share, not 1 or 0.

    Raises:
        UserError: for labels that are no such captions, and pictures that are grey or too small.
    """

    judges = "picture"
    needs = frozenset(["label"])

    def __init__(self, *, spec: EnvSpec, device: torch.device, graded: bool) -> None:
        planes, high, wide = spec.picture().shape
        require(planes == 3, "_target_: captions name colours; use env.channels=3.")
        require(
            min(high, wide) >= SMALLEST,
            f"_target_: shapes of {high} × {wide} pixels cannot be told apart; use env.size={SMALLEST} or more.",
        )
        self.graded = graded
        self.asked = Asked(*(part.to(device) for part in asked(spec.class_names)))

    def __call__(self, view: View) -> Tensor:
        label = view.context["label"]
        met = conditions(found(view.sample), Asked(*(part[label] for part in self.asked)))
        return met.nanmean(1) if self.graded else (met.nan_to_num(1.0) == 1).all(1).float()


def asked(captions: tuple[str, ...]) -> Asked:
    """What captions ask for.

    Raises:
        UserError: for what is none.
    """
    counts, pairs = torch.zeros(len(captions), len(KINDS)), torch.zeros(len(captions), 2, dtype=torch.long)
    direction = torch.zeros(len(captions), 2)
    for i, caption in enumerate(captions):
        scene = parse(caption)
        require(scene is not None, f"_target_: the data's label {caption!r} is no caption; use data=captions.")
        assert isinstance(scene, Scene)
        kinds = torch.tensor([KINDS.index(one) for one in scene.objects])
        counts[i] = torch.bincount(kinds, minlength=len(KINDS))
        if scene.relation is not None:
            pairs[i], direction[i] = kinds, torch.tensor(RELATIONS[scene.relation]).float()
    return Asked(counts, pairs[:, 0], pairs[:, 1], direction)


def conditions(seen: Found, wanted: Asked) -> Tensor:
    """How far each condition is met, in [0, 1]: number, colours, shapes, both, and relation, nan where none is asked
    for: float [N, 5]."""
    counts, total = seen.counts, seen.counts.sum(1) + seen.strange
    grids = [part.unflatten(1, (len(COLOURS), len(SHAPES))) for part in (counts, wanted.counts)]
    there, number = torch.maximum(total, wanted.counts.sum(1)), total == wanted.counts.sum(1)
    parts = [
        torch.minimum(*views).sum(1) / there
        for views in ([part.sum(2) for part in grids], [part.sum(1) for part in grids], [counts, wanted.counts])
    ]
    row = torch.arange(len(counts), device=counts.device)
    away = seen.centre[row, wanted.first] - seen.centre[row, wanted.second]
    along, across = (away * wanted.direction).sum(1), (away * wanted.direction.flip(1)).sum(1).abs()
    both = (counts[row, wanted.first] > 0) & (counts[row, wanted.second] > 0)
    relation = (both & (along > NEAR) & (along > across)).float()
    relation = torch.where((wanted.direction == 0).all(1), torch.nan, relation)
    return torch.stack([number.float(), *parts, relation], 1)


def found(pictures: Tensor) -> Found:
    """The objects in pictures [N, 3, H, W] in [0, 1]."""
    n, _, high, wide = pictures.shape
    colour = colours(pictures)
    objects = objects_of(components(colour).flatten(1), high, wide)
    colour = colour.flatten(1)  # an object's place is one of its pixels
    is_object = (objects.area >= LEAST_AREA * high * wide) & (colour >= 0)
    known = (is_object & (colour < len(COLOURS)) & (objects.shape < len(SHAPES))).float()
    kind = colour.clamp(0, len(COLOURS) - 1) * len(SHAPES) + objects.shape.clamp(max=len(SHAPES) - 1)  # [N, H · W]
    none = torch.zeros(n, len(KINDS), device=pictures.device)
    counts = none.scatter_add(1, kind, known)
    across, down = (none.scatter_add(1, kind, known * middle) for middle in (objects.x / wide, objects.y / high))
    centre = torch.stack([across, down], 2) / counts.clamp(min=1).unsqueeze(2)
    return Found(counts, is_object.float().sum(1) - counts.sum(1), centre)


def objects_of(place: Tensor, high: int, wide: int) -> Objects:
    """What objects are like whose pixels say their place, int64 [N, H · W].

    With u and v the distances of pixels from an object's middle, to the right and downwards, in standard deviations, a
    shape is told by the means of u²v² and of u²v, by how much of its ellipse of inertia it fills, and by the logarithm
    of its width over its height. These hardly change with size, noise and blur.
    """
    row, column = _places(high, wide, place.device)
    area = _sum(place, torch.ones_like(place, dtype=torch.float32))
    some = area.clamp(min=1)
    x, y = _sum(place, column.expand(place.shape)) / some, _sum(place, row.expand(place.shape)) / some
    u, v = column - x.gather(1, place), row - y.gather(1, place)
    # A pixel is a square, whose own variance is 1/12.
    width, height = ((_sum(place, part.square()) / some + 1 / 12).sqrt() for part in (u, v))
    both = _sum(place, u.square() * v.square()) / (some * width.square() * height.square())
    skewed = _sum(place, u.square() * v) / (some * width.square() * height)
    moments = torch.stack([both, skewed, area / (4 * math.pi * width * height), (width / height).log()], 2)
    ideal = torch.tensor(MOMENTS, device=place.device)
    distance, shape = (moments.unsqueeze(2) - ideal).square().sum(3).min(2)
    return Objects(area, x + 0.5, y + 0.5, torch.where(distance < LARGEST_DISTANCE**2, shape, len(SHAPES)))


def colours(pictures: Tensor) -> Tensor:
    """The colour of each pixel, int64 [N, H, W]: an index of COLOURS, one more for greys, −1 for the background."""
    palette = torch.tensor([*COLOURS.values(), (1, 1, 1)], dtype=torch.float32, device=pictures.device)
    largest = pictures.amax(1)  # [N, H, W]
    pure = pictures / largest.clamp(min=BRIGHT).unsqueeze(1)
    near = torch.einsum("nchw,kc->nkhw", pure, palette) - palette.square().sum(1).view(1, -1, 1, 1) / 2
    return torch.where(largest >= BRIGHT, near.argmax(1), -1)


def components(colour: Tensor) -> Tensor:
    """The connected pixels of one colour that each pixel belongs to, int64 [N, H, W]: the index of their last pixel,
    row by row.

    In each of ROUNDS rounds the largest index goes along every stretch of one colour in a row, and then in a column.
    One round is enough for a rectangle, two or three for other shapes without holes; what winds more often than there
    are rounds may count as several.
    """
    n, high, wide = colour.shape
    index = torch.arange(high * wide, device=colour.device).view(1, high, wide).expand(n, -1, -1)
    rows, columns = (_stretches(colour, axis) for axis in (2, 1))
    for _ in range(ROUNDS):
        for stretch in (rows, columns):
            flat = index.flatten(1)
            index = _most(stretch, flat, "amax").gather(1, stretch).view(n, high, wide)
    return index


def _stretches(colour: Tensor, axis: int) -> Tensor:
    """A number for each stretch of one colour along an axis, the same for its pixels, int64 [N, H · W], below that."""
    starts = torch.ones_like(colour, dtype=torch.bool)
    length = colour.shape[axis]
    changes = colour.narrow(axis, 1, length - 1) != colour.narrow(axis, 0, length - 1)
    starts = torch.cat([starts.narrow(axis, 0, 1), changes], axis)
    in_order = starts if axis == 2 else starts.transpose(1, 2)
    number = in_order.flatten(1).cumsum(1) - 1
    return (number if axis == 2 else number.view(-1, *in_order.shape[1:]).transpose(1, 2)).flatten(1)


def _places(high: int, wide: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Row and column of each pixel, float [H · W]."""
    index = torch.arange(high * wide, device=device)
    return (index // wide).float(), (index % wide).float()


def _sum(place: Tensor, value: Tensor) -> Tensor:
    """At each place [N, P] the sum of the values [N, P] that belong there."""
    return torch.zeros_like(value).scatter_add(1, place, value)


def _most(place: Tensor, value: Tensor, which: str) -> Tensor:
    """At each place [N, P] the largest (amax) or smallest (amin) of the values that belong there, 0 where none does."""
    return torch.zeros_like(value).scatter_reduce(1, place, value, which, include_self=False)
