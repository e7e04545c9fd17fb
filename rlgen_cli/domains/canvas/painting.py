"""A picture of any size in a number of strokes: from the whole to its parts, strokes where they gain most.

A painter proposes strokes for square tiles of S pixels. The whole picture, reduced until S pixels are its shorter side,
is painted first, then tiles of it at rising resolution, in each round all tiles of a level at once. Of the strokes that
are proposed, those are drawn that gain most, one after the other, from the largest to the smallest. When its turn
comes, a stroke is tried a little elsewhere, larger and smaller, too, each time in the best colour, and the best of
these is drawn; one that gains nothing by then is left out, and what it would have cost goes to the rounds that follow.
"""

import math
from collections.abc import Callable
from itertools import cycle, islice
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate, pad

from rlgen_cli.domains.canvas.brushes.brush import box_cells
from rlgen_cli.domains.canvas.brushes.stroke_cells import Curves, best_colours, coverage, gains
from rlgen_cli.domains.canvas.compositing import EDGE, Strokes, composite, joined, removal_costs, turns
from rlgen_cli.domains.canvas.pens import Pens
from rlgen_cli.domains.canvas.rasteriser import BENT_LITTLE

# Proposes strokes, lengths in pixels of the tile, for targets and canvases uint8 [N, C, S, S].
Painter: TypeAlias = Callable[[Tensor, Tensor], Curves]

STROKES_A_TILE = 16  # of the finest level, by which its resolution is chosen
MARGIN = 4  # pixels around a tile in which strokes are measured, too
FINEST = 0.77  # share of the strokes that the finest level gets; of what is left the next one gets as much
ROUNDS = (1, 1, 6)  # of the whole, of the levels between, and of the finest
REPLACED = (0.1, 0.1, 0.1)  # shares of the strokes that are then taken away, those least needed, and painted anew
SMALL = 14  # pixels, of strokes that are drawn in windows of their own size
AT_ONCE = 16  # tiles that strokes are proposed for at a time: few, so that what is computed stays in the cache
THINNEST = 0.7  # pixels of a level
MORE = 12  # rounds at the finest level, at most, for strokes that gained nothing when their turn came
# What a stroke is tried with when its turn comes, of which the best is drawn: x, y (moved by pixels), turn (by an
# angle), length and width (times).
CHANGES = [
    (0.0, 0.0, 0.0, 1.0, 1.0),
    *((by, 0.0, 0.0, 1.0, 1.0) for by in (1.0, -1.0)),
    *((0.0, by, 0.0, 1.0, 1.0) for by in (1.0, -1.0)),
    *((0.0, 0.0, by, 1.0, 1.0) for by in (0.3, -0.3, 0.7, -0.7)),
    *((0.0, 0.0, 0.0, by, 1.0) for by in (0.4, 0.7, 1.5, 2.2)),
    *((0.0, 0.0, 0.0, 1.0, by) for by in (0.65, 0.8, 1.25, 1.55)),
]
ANY = Pens()


class Round(NamedTuple):
    """One pass over all tiles of a level."""

    shape: tuple[int, int]  # of the picture at this level, H and W
    shifted: bool  # tiles lie half a tile further than in other rounds
    share: float  # of the strokes that are left, that this round may draw
    replaced: float = 0.0  # share of the strokes that are taken away first


def rounds_for(shape: tuple[int, int], tile: int, strokes: int) -> list[Round]:
    """The rounds in which a picture of H × W pixels is painted.

    Args:
        tile: side of a tile, S. strokes: that there are to be.
    """
    area = shape[0] * shape[1] / min(shape) ** 2  # of the picture, in squares of its shorter side
    finest = min(float(min(shape)), tile * math.sqrt(strokes / (STROKES_A_TILE * area)))
    sides = [max(finest, float(tile))]
    while sides[0] > 1.5 * tile:
        sides.insert(0, max(float(tile), sides[0] / 2))
    found, left = [], 1.0
    for i, side in enumerate(sides):
        last = i == len(sides) - 1
        budget = left if last else (1 - FINEST) ** (len(sides) - 1 - i) * (1.0 if i == 0 else FINEST)
        count = ROUNDS[2] if last else ROUNDS[0] if i == 0 else ROUNDS[1]
        scale = side / min(shape)
        level = (max(tile, round(shape[0] * scale)), max(tile, round(shape[1] * scale)))
        for k in range(count):
            part = budget / count
            found.append(Round(level, k % 2 == 1 and min(level) > tile, part / left))
            left -= part
    for i, replaced in enumerate(REPLACED):
        found.append(Round(level, i % 2 == 1 and min(level) > tile, 1.0, replaced))
    return found


@torch.no_grad()
def painted(target: Tensor, paper: Tensor, painter: Painter, tile: int, strokes: int, pens: Pens = ANY) -> Strokes:
    """So many strokes, or fewer where no more gain anything, for pictures of one size; lengths in their pixels.

    Args:
        target: float [N, C, H, W] in [0, 1]. paper: the colours below, [N, C]. tile: side of the painter's pictures.
        pens: what strokes may be.
    """
    n, shape = len(target), (target.shape[2], target.shape[3])
    made, drawn = nothing(paper), torch.zeros(n, dtype=torch.long, device=target.device)
    level, seen, canvas = (0, 0), target, target
    rounds = rounds_for(shape, tile, strokes)
    further = rounds[-1]._replace(replaced=0.0)
    for step in [*rounds, *islice(cycle([further._replace(shifted=not further.shifted), further]), MORE)]:
        if step.replaced == 0 and bool((drawn == strokes).all()):
            break
        fitting = pens.scaled(step.shape[0] / shape[0])
        if fitting.widest < THINNEST and step.shape != rounds[-1].shape:
            continue  # nothing would be seen of such strokes here
        if step.shape != level or step.replaced:
            level, seen = step.shape, reduced(target, step.shape)
            blank = paper[:, :, None, None].expand(-1, -1, *level)
            if step.replaced:
                made = made.of(needed(rescaled(made, shape, level), blank, seen, step.replaced, pens))
                drawn = torch.bincount(made.picture, minlength=n)
            canvas = composite(blank, pens.hairs(rescaled(made, shape, level)), pens.tip, coarse=BENT_LITTLE)
        count = (step.share * (strokes - drawn)).round().long()  # [N]
        new, canvas = one_round(seen, canvas, painter, tile, count, step.shifted, fitting)
        drawn += torch.bincount(new.picture, minlength=n)
        made = joined(made, rescaled(new, level, shape))
    return made


def needed(strokes: Strokes, paper: Tensor, target: Tensor, share: float, pens: Pens) -> Tensor:
    """The places of the strokes without this share of each picture's, those whose absence would cost least, in their
    order, int64; bristles are taken for whole strokes."""
    order = removal_costs(paper, strokes, target, pens.tip, BENT_LITTLE).argsort()
    picture = strokes.picture[order]
    away = (share * torch.bincount(picture, minlength=len(paper))).long()
    return order[turns(picture) >= away[picture]].sort().values


def nothing(paper: Tensor) -> Strokes:
    """No strokes."""
    none = paper.new_zeros(0)
    return Strokes(none.view(0, 3, 2), none, none, none.view(0, paper.shape[1]), none.long())


def reduced(picture: Tensor, shape: tuple[int, int]) -> Tensor:
    """Pictures [N, C, H, W] at another size."""
    if picture.shape[2:] == shape:
        return picture
    return interpolate(picture, shape, mode="bilinear", antialias=True).clamp(0, 1)


def rescaled(strokes: Strokes, shape: tuple[int, int], to: tuple[int, int]) -> Strokes:
    """Strokes of pictures of one size (H, W) on those of another."""
    down, across = to[0] / shape[0], to[1] / shape[1]
    scale = torch.tensor([across, down], device=strokes.width.device)
    width = strokes.width * math.sqrt(down * across)
    return strokes._replace(points=(strokes.points + 0.5) * scale - 0.5, width=width)


class Proposals(NamedTuple):
    """K strokes, and the windows in which they are measured; lengths in pixels of a padded level."""

    strokes: Strokes  # of which colours are not known yet
    corner: Tensor  # int64 [K, 2], (x, y) of the window
    gain: Tensor  # float [K], alone, in the best colour, about

    def of(self, index: Tensor) -> "Proposals":
        """Some of them, by their places."""
        return Proposals(self.strokes.of(index), self.corner[index], self.gain[index])


def one_round(
    target: Tensor, canvas: Tensor, painter: Painter, tile: int, count: Tensor, shifted: bool, pens: Pens
) -> tuple[Strokes, Tensor]:
    """The strokes of a round, lengths in pixels of its level, and the canvases after it.

    Args:
        target, canvas: float [N, C, H, W]. count: int64 [N], the most strokes of each.
    """
    target, canvas = (pad(picture, [MARGIN] * 4, mode="replicate") for picture in (target, canvas))
    found = chosen(proposed(target, canvas, painter, tile, shifted, pens), count)
    small = extent(found.strokes) <= SMALL
    large = found.of((~small).nonzero().squeeze(1))
    made, canvas = drawn_in_turn(large, target, canvas, tile + 2 * MARGIN, pens)
    near = around(found.of(small.nonzero().squeeze(1)), target)
    more, canvas = drawn_in_turn(near, target, canvas, SMALL + 2 * MARGIN, pens)
    made, inner = joined(made, more), slice(MARGIN, -MARGIN)
    return made._replace(points=made.points - MARGIN), canvas[:, :, inner, inner]


def proposed(target: Tensor, canvas: Tensor, painter: Painter, tile: int, shifted: bool, pens: Pens) -> Proposals:
    """What the painter proposes for all tiles of padded pictures [N, C, H, W]."""
    n, _, high, wide = target.shape
    corner = corners(high - 2 * MARGIN, wide - 2 * MARGIN, tile, shifted).to(target.device)
    side, parts = tile + 2 * MARGIN, []
    for part in torch.arange(n * len(corner), device=target.device).split(AT_ONCE):
        picture, place = part // len(corner), corner[part % len(corner)]
        seen, before = (windows(pictures, picture, place, side) for pictures in (target, canvas))
        inner = slice(MARGIN, -MARGIN)
        curves = painter(*((255 * whole[:, :, inner, inner]).round().to(torch.uint8) for whole in (seen, before)))
        curves = Curves(pens.points(curves.points) + MARGIN, pens.width(curves.width), pens.opacity(curves.opacity))
        gain = roughly(curves, before, seen, pens)  # [M, K]
        k = gain.shape[1]
        points = (curves.points + place[:, None, None]).flatten(0, 1)
        colour = target.new_zeros(gain.numel(), target.shape[1])
        strokes = Strokes(
            points, curves.width.flatten(), curves.opacity.flatten(), colour, picture.repeat_interleave(k)
        )  # fmt: skip
        parts.append(Proposals(strokes, place.repeat_interleave(k, 0), gain.flatten()))
    return Proposals(
        joined(*(part.strokes for part in parts)),
        torch.cat([part.corner for part in parts]),
        torch.cat([part.gain for part in parts]),
    )


def roughly(curves: Curves, canvas: Tensor, target: Tensor, pens: Pens) -> Tensor:
    """What strokes gain, [N, K], measured on every second pixel's mean: enough to choose by, in a quarter of the
    time."""
    half = Curves((curves.points + 0.5) / 2 - 0.5, curves.width / 2, curves.opacity)
    canvas, target = avg_pool2d(canvas, 2), avg_pool2d(target, 2)
    alpha = coverage(half, canvas.shape[3], EDGE, pens.tip)
    return gains(alpha, canvas, target, pens.colour(best_colours(alpha, canvas, target)))


def chosen(found: Proposals, count: Tensor) -> Proposals:
    """For each picture the `count` [N] strokes that gain most, if they gain anything, in the order of size."""
    best = found.gain.argsort(descending=True)
    picture = found.strokes.picture[best]
    found = found.of(best[(turns(picture) < count[picture]) & (found.gain[best] > 0)])
    length = (found.strokes.points[:, 2] - found.strokes.points[:, 0]).norm(dim=1)
    return found.of((found.strokes.width * (found.strokes.width + length)).argsort(descending=True))


def extent(strokes: Strokes) -> Tensor:
    """The longer side of the boxes around strokes, [K]."""
    return (strokes.points.amax(1) - strokes.points.amin(1)).amax(1) + strokes.width


def around(found: Proposals, picture: Tensor) -> Proposals:
    """The same strokes in windows that are no larger than small ones need, inside of the padded picture."""
    low, high = found.strokes.points.amin(1), found.strokes.points.amax(1)
    side = SMALL + 2 * MARGIN
    corner = ((low + high) / 2).round().long() - side // 2
    last = torch.tensor([picture.shape[3], picture.shape[2]], device=corner.device) - side
    return found._replace(corner=torch.minimum(corner.clamp(min=0), last))


def drawn_in_turn(found: Proposals, target: Tensor, canvas: Tensor, side: int, pens: Pens) -> tuple[Strokes, Tensor]:
    """The strokes with their colours, in the variant that gains most when their turn comes, without those that gain
    nothing then, and the canvases after them, [N, C, H, W]. Strokes whose windows do not overlap are drawn at once."""
    turn = layers_of(found.strokes.picture, found.corner, side)
    order = turn.argsort(stable=True)
    strokes, corner = found.strokes.of(order), found.corner[order]
    if not len(corner):
        return strokes, canvas
    curves = variants(strokes._replace(points=strokes.points - corner.unsqueeze(1)), pens)
    parts = zip(*(field.split(AT_ONCE) for field in curves), strict=True)
    alpha = torch.cat([coverage(Curves(*part), side, EDGE, pens.tip) for part in parts])  # [K, V, side, side]
    seen = windows(target, strokes.picture, corner, side)
    pixels = canvas.permute(0, 2, 3, 1).flatten(1, 2).contiguous()  # [N, H · W, C]
    cells, rows = box_cells(corner, side, side, canvas.shape[3]), strokes.picture.unsqueeze(1)
    colours, kept, forms = [], [], []
    sizes = torch.bincount(turn).tolist()
    for a, t, cell, row in zip(*(field.split(sizes) for field in (alpha, seen, cells, rows)), strict=True):
        before = pixels[row, cell].mT.unflatten(2, (side, side))  # [M, C, side, side]
        tried = pens.colour(best_colours(a, before, t))  # [M, V, C]
        form, place = gains(a, before, t, tried).argmax(1), torch.arange(len(a), device=a.device)
        a, colour = a[place, form].unsqueeze(1), tried[place, form]
        after = before + a * (colour[:, :, None, None] - before)
        forms.append(form)
        better = ((after - t).square() - (before - t).square()).sum((1, 2, 3)) < 0
        pixels[row, cell] = torch.where(better.view(-1, 1, 1, 1), after, before).flatten(2).mT
        colours.append(colour)
        kept.append(better)
    row = torch.arange(len(corner), device=corner.device)
    points, width, opacity = (field[row, torch.cat(forms)] for field in curves)
    made = Strokes(points + corner.unsqueeze(1), width, opacity, torch.cat(colours), strokes.picture)
    made = made.of(torch.cat(kept).nonzero().squeeze(1))
    return made, pixels.mT.unflatten(2, canvas.shape[2:])


def layers_of(picture: Tensor, corner: Tensor, side: int) -> Tensor:
    """For strokes in their order, of which later ones lie above, in which layer each can be drawn, int64 [K]: above all
    earlier ones whose windows overlap with its own.

    Args:
        picture: whose it is, [K]. corner: of its window, [K, 2]. side: of all windows.
    """
    whose, corners = picture.cpu().numpy(), corner.cpu().numpy()
    layer = np.zeros(len(whose), dtype=np.int64)
    for i in range(1, len(layer)):
        near = (np.abs(corners[:i] - corners[i]) < side).all(1) & (whose[:i] == whose[i])
        layer[i] = layer[:i].max(initial=-1, where=near) + 1
    return torch.from_numpy(layer).to(picture.device)


def variants(strokes: Strokes, pens: Pens = ANY) -> Curves:
    """Each stroke as it is and with each of CHANGES, [K, V] each."""
    x, y, turn, length, width = torch.tensor(CHANGES, device=strokes.width.device).unbind(1)  # [V] each
    middle = (strokes.points[:, :1] + strokes.points[:, 2:]) / 2
    arms = (strokes.points - middle).unsqueeze(1) * length.view(-1, 1, 1)  # [K, V, 3, 2]
    cosine, sine = turn.cos().view(-1, 1), turn.sin().view(-1, 1)
    across, down = arms.unbind(-1)
    arms = torch.stack([across * cosine - down * sine, across * sine + down * cosine], -1)
    points = middle.unsqueeze(1) + arms + torch.stack([x, y], 1).unsqueeze(1)
    width = pens.width(strokes.width.unsqueeze(1) * width)
    return Curves(points, width, strokes.opacity.unsqueeze(1).expand_as(width))


def windows(pictures: Tensor, picture: Tensor, corner: Tensor, side: int) -> Tensor:
    """Parts of pictures [N, C, H, W] from given corners on, [K, C, side, side]."""
    cells = box_cells(corner, side, side, pictures.shape[3])
    return pictures.flatten(2)[picture.unsqueeze(1), :, cells].mT.unflatten(2, (side, side))


def corners(high: int, wide: int, tile: int, shifted: bool) -> Tensor:
    """Where tiles of a picture begin, int64 [T, 2], (x, y): side by side, or between those; at its borders they
    overlap."""
    x, y = (along(length, tile, shifted) for length in (wide, high))
    return torch.cartesian_prod(y, x).view(-1, 2).flip(1)


def along(length: int, tile: int, shifted: bool) -> Tensor:
    """Where tiles begin along an axis, as evenly as whole pixels allow."""
    count = -(-length // tile)
    places = torch.linspace(0, length - tile, count)
    if shifted and count > 1:
        places = (places[1:] + places[:-1]) / 2
    return places.round().long()
