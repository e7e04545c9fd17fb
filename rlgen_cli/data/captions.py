"""Coloured shapes with captions, drawn here: small pictures for text-to-image models, in the spirit of GenEval (Ghosh
et al. 2023), whose captions a rule can check (rewards/caption.py).

Tasks: `single` (a red circle), `count` (three blue squares), `two` (a red circle and a green triangle) and `position`
(a red circle left of a blue square). `scenes` has all captions with their tasks, in the order of the labels.
"""

import functools
import hashlib
import itertools
import math
import re
from typing import NamedTuple

import torch
from torch import Tensor

from rlgen_cli.core.capacity import require_memory
from rlgen_cli.core.errors import require
from rlgen_cli.data.images import Images, Splits, to_channels

# Hues as far apart as they can be, at full brightness.
COLOURS = {
    "red": (1, 0, 0), "yellow": (1, 1, 0), "green": (0, 1, 0), "cyan": (0, 1, 1), "blue": (0, 0, 1),
    "magenta": (1, 0, 1),
}  # fmt: skip
SHAPES = ("circle", "square", "triangle")
COUNTS = {"two": 2, "three": 3, "four": 4}
# Where the first object lies, seen from the second: x to the right, y downwards.
RELATIONS = {"left of": (-1, 0), "right of": (1, 0), "above": (0, -1), "below": (0, 1)}
TASKS = ("single", "count", "two", "position")
HELD_OUT = 0.2  # share of captions that no training picture has
POSITIONS = 0.5  # share of the scenes with a relation that there are captions of
MOST = 4  # objects in a picture
SIDES = {1: (0.28, 0.5), 2: (0.26, 0.38), 3: (0.25, 0.32), 4: (0.25, 0.3)}  # of objects, by how many there are
GAP, BORDER = 0.08, 0.03  # least distance between objects, and to the picture's edge; all as shares of its side
CHUNK = 2000  # pictures that are drawn at a time

OBJECT = rf"({'|'.join(COLOURS)}) ({'|'.join(SHAPES)})"
SENTENCES = {
    "single": re.compile(f"a {OBJECT}"),
    "count": re.compile(f"({'|'.join(COUNTS)}) {OBJECT}s"),
    "two": re.compile(f"a {OBJECT} and a {OBJECT}"),
    "position": re.compile(f"a {OBJECT} ({'|'.join(RELATIONS)}) a {OBJECT}"),
}


class Object(NamedTuple):
    """What is to be seen at some place."""

    colour: str
    shape: str

    def __str__(self) -> str:
        return f"{self.colour} {self.shape}"


class Scene(NamedTuple):
    """What a caption asks for: these objects and no others."""

    task: str
    objects: tuple[Object, ...]
    relation: str | None = None  # of the first of two objects to the second

    def __str__(self) -> str:
        if self.task == "count":
            word = next(word for word, count in COUNTS.items() if count == len(self.objects))
            return f"{word} {self.objects[0]}s"
        return f" {self.relation or 'and'} ".join(f"a {one}" for one in self.objects)


def parse(caption: str) -> Scene | None:
    """What a caption asks for; None for what is none."""
    for task, sentence in SENTENCES.items():
        found = sentence.fullmatch(caption)
        if found is None:
            continue
        groups = found.groups()
        if task == "count":
            return Scene(task, (Object(*groups[1:]),) * COUNTS[groups[0]])
        objects = (Object(*groups[:2]), *([Object(*groups[-2:])] if len(groups) > 2 else []))
        relation = groups[2] if task == "position" else None
        return Scene(task, objects, relation) if len(set(objects)) == len(objects) else None
    return None


@functools.cache
def scenes() -> tuple[Scene, ...]:
    """All that there are captions of, each in one wording only, so that none is known from another's picture: of «a
    left of b» and «b right of a», a hash takes one."""
    kinds = [Object(*kind) for kind in itertools.product(COLOURS, SHAPES)]
    found = [Scene("single", (kind,)) for kind in kinds]
    found += [Scene("count", (kind,) * count) for count in COUNTS.values() for kind in kinds]
    for one, other in itertools.combinations(kinds, 2):
        found.append(in_one_order(Scene("two", (one, other)), Scene("two", (other, one))))
    for (one, other), (relation, inverse) in itertools.product(
        itertools.permutations(kinds, 2), (("left of", "right of"), ("above", "below"))
    ):
        scene = Scene("position", (one, other), relation)
        if share(f"there is {scene}") < POSITIONS:
            found.append(in_one_order(scene, Scene("position", (other, one), inverse)))
    return tuple(found)


def in_one_order(scene: Scene, same: Scene) -> Scene:
    """One of two wordings of the same."""
    return scene if share(f"{scene} or {same}") < 0.5 else same


def share(text: str) -> float:
    """A number in [0, 1) that depends on the text only."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "little") / 2**32


def held_out(caption: str) -> bool:
    """Whether no training picture has this caption."""
    return share(caption) < HELD_OUT


class Captions:
    """`per_class` pictures of each caption, whose labels index the captions (`classes`, of all splits).

    Captions that are held out have pictures in valid and test only, and the others in train only, so that `split=test`
    asks for what was never trained on. The pictures depend on these arguments only.
    """

    licence = "drawn by rlgen, free for any use"

    def __init__(self, per_class: int) -> None:
        require(per_class >= 2, f"per_class: must be at least 2, got {per_class}.")
        self.per_class = per_class

    def load(self, size: int, channels: int) -> Splits:
        count = self.per_class * len(scenes())
        require_memory(count * channels * size**2, f"per_class: {self.per_class} pictures of each caption")
        classes = tuple(map(str, scenes()))
        images, labels = _drawn(self.per_class, size)
        images = to_channels(images, channels)
        out = torch.tensor([held_out(caption) for caption in classes])[labels]
        half = torch.arange(count) % 2 == 0
        return Splits(*(Images(images[part], labels[part], classes) for part in (~out, out & half, out & ~half)))


@functools.lru_cache(maxsize=1)  # the jobs of a sweep have the same
def _drawn(per_class: int, size: int) -> tuple[Tensor, Tensor]:
    """All pictures, uint8 [M, 3, size, size], caption after caption, and their labels, int64 [M]."""
    rng = torch.Generator().manual_seed(0)
    labels = torch.arange(len(scenes())).repeat_interleave(per_class)
    return torch.cat([draw(part, size, rng) for part in labels.split(CHUNK)]), labels


def draw(labels: Tensor, size: int, rng: torch.Generator) -> Tensor:
    """A picture of each of `scenes()` that labels, int64 [M], name: uint8 [M, 3, size, size]."""
    kinds = [Object(*kind) for kind in itertools.product(COLOURS, SHAPES)]
    asked = torch.full((len(scenes()), MOST), -1)  # each scene's objects, by kind
    aim = torch.zeros(len(scenes()), 2)  # where the first lies, seen from the second
    for i, scene in enumerate(scenes()):
        asked[i, : len(scene.objects)] = torch.tensor([kinds.index(one) for one in scene.objects])
        aim[i] = torch.tensor(RELATIONS[scene.relation]) if scene.relation else 0.0
    kind = asked[labels]  # [M, MOST], −1 for none
    centre, side = _placed(kind >= 0, aim[labels], rng)
    colour = torch.tensor(list(COLOURS.values())).float()[kind.clamp(min=0) // len(SHAPES)]  # [M, MOST, 3]
    dark, bright = (_uniform(low, high, kind.shape, rng) for low, high in ((0.0, 0.15), (0.75, 1.0)))
    colour = bright.unsqueeze(2) * torch.maximum(colour, dark.unsqueeze(2))
    cover = _cover(centre, side, kind % len(SHAPES), size) * (kind >= 0)[:, :, None, None]  # [M, MOST, S, S]
    background = _uniform(0.02, 0.14, (len(labels), 3), rng)
    # Objects do not overlap, so that their order is none.
    picture = torch.einsum("mohw,moc->mchw", cover, colour)
    picture = picture + (1 - cover.sum(1, keepdim=True)) * background[:, :, None, None]
    return (255 * picture).round().clamp(0, 255).to(torch.uint8)


def _placed(there: Tensor, aim: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Centres [M, MOST, 2] and sides [M, MOST] of objects, as shares of the picture's side, drawn anew until none is
    near another, and the first two stand as `aim` [M, 2] says; `there`, bool [M, MOST]."""
    low, high = (torch.tensor([SIDES[n][i] for n in range(1, MOST + 1)])[there.sum(1) - 1] for i in range(2))
    centre, side = torch.zeros(*there.shape, 2), torch.zeros(there.shape)
    pairs = torch.triu(torch.ones(MOST, MOST, dtype=torch.bool), 1)
    todo = torch.arange(len(there))
    while len(todo):
        drawn = torch.rand(len(todo), MOST, generator=rng)
        sides = low[todo].unsqueeze(1) + (high - low)[todo].unsqueeze(1) * drawn  # [m, MOST]
        margin = (sides / 2 + BORDER).unsqueeze(2)
        centres = margin + (1 - 2 * margin) * torch.rand(len(todo), MOST, 2, generator=rng)
        apart = (centres.unsqueeze(1) - centres.unsqueeze(2)).abs().amax(3)  # [m, MOST, MOST]
        near = apart < (sides.unsqueeze(1) + sides.unsqueeze(2)) / 2 + GAP
        both = there[todo].unsqueeze(1) & there[todo].unsqueeze(2) & pairs
        away, wanted = centres[:, 0] - centres[:, 1], aim[todo]
        along, across = (away * wanted).sum(1), (away * wanted.flip(1)).sum(1).abs()
        # Clearly so: a rule that takes the larger of the two distances must not be in doubt.
        stands = (along > across + GAP) | (wanted == 0).all(1)
        good = ~(near & both).any((1, 2)) & stands
        centre[todo[good]], side[todo[good]] = centres[good], sides[good]
        todo = todo[~good]
    return centre, side


def _cover(centre: Tensor, side: Tensor, shape: Tensor, size: int) -> Tensor:
    """How much of each pixel objects cover, [M, O, size, size], from the distance of its middle to their edges."""
    place = (torch.arange(size) + 0.5) / size
    x = (place.view(1, 1, 1, -1) - centre[:, :, 0, None, None]).abs()
    y = place.view(1, 1, -1, 1) - centre[:, :, 1, None, None]
    half = (side / 2)[:, :, None, None]
    circle = (x.square() + y.square()).sqrt() - half
    square = torch.maximum(x, y.abs()) - half
    # As wide and high as the square, its tip above.
    triangle = torch.maximum((2 * x - y - half) / math.sqrt(5), y - half)
    which = shape[:, :, None, None]
    edge = torch.where(which == 0, circle, torch.where(which == 1, square, triangle))
    return (0.5 - edge * size).clamp(0, 1)


def _uniform(low: float, high: float, shape: tuple[int, ...] | torch.Size, rng: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(shape, generator=rng)
