"""Many strokes on pictures of any size, each computed only within the squares that it touches."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from rlgen_cli.core.specs import Tip
from rlgen_cli.domains.canvas.rasteriser import COARSE, rasterised

EDGE = 1.0  # pixels that a stroke's rim takes to fade
SIDE = 16  # of the squares, pixels
AT_ONCE = 1024  # pieces that are rasterised at a time: few, so that what is computed stays in the cache


class Strokes(NamedTuple):
    """K quadratic Béziers of one or more pictures, in the order in which they are drawn; lengths in pixels."""

    points: Tensor  # float [K, 3, 2], x and y of start, control and end
    width: Tensor  # float [K]
    opacity: Tensor  # float [K]
    colour: Tensor  # float [K, C]
    picture: Tensor  # int64 [K], whose it is

    def of(self, index: Tensor) -> "Strokes":
        """Some of them, by their places."""
        return Strokes(*(field[index] for field in self))


def joined(*parts: Strokes) -> Strokes:
    """The strokes of all, one after the other."""
    return Strokes(*(torch.cat(fields) for fields in zip(*parts, strict=True)))


def turns(picture: Tensor) -> Tensor:
    """How many earlier strokes belong to the same picture, int64 [K]."""
    ordered, order = picture.sort(stable=True)
    turn = torch.empty_like(order)
    turn[order] = torch.arange(len(order), device=order.device) - torch.searchsorted(ordered, ordered)
    return turn


class Pieces(NamedTuple):
    """What strokes cover of squares, the P pairs of a stroke and a square that it may touch, those of the lowest layer
    first: of the pieces of a layer no two lie in the same square."""

    stroke: Tensor  # int64 [P]
    square: Tensor  # int64 [P], of all pictures' squares
    layers: list[int]  # pieces of each layer, of which each is under the next


def composite(
    paper: Tensor, strokes: Strokes, tip: Tip, edge: float = EDGE, coarse: int = COARSE
) -> Tensor:  # fmt: skip
    """Pictures float [N, C, H, W] with the strokes drawn on `paper`, of the same shape; differentiable.

    Args:
        tip: what they look like. edge, coarse: see rasteriser.bezier.
    """
    n, _, high, wide = paper.shape
    rows, columns = -(-high // SIDE), -(-wide // SIDE)
    pieces = pieces_of(strokes, rows, columns, edge)
    alpha = coverage(strokes, pieces, rows, columns, tip, edge, coarse)
    squares = as_squares(paper, rows, columns)
    made: Tensor = Over.apply(squares, alpha, strokes.colour[pieces.stroke], pieces.square, pieces.layers)
    return from_squares(made, n, rows, columns)[:, :, :high, :wide]


@torch.no_grad()
def removal_costs(paper: Tensor, strokes: Strokes, target: Tensor, tip: Tip, coarse: int = COARSE) -> Tensor:
    """By how much the squared distance to the target would grow without each of the strokes alone, float [K].

    What is on a pixel is linear in what a stroke does to it: without it, it is less by what that is after all strokes
    above.

    Args:
        paper, target: float [N, C, H, W]. tip: what strokes look like. coarse: see rasteriser.bezier.
    """
    rows, columns = -(-paper.shape[2] // SIDE), -(-paper.shape[3] // SIDE)
    pieces = pieces_of(strokes, rows, columns, EDGE)
    alpha = coverage(strokes, pieces, rows, columns, tip, EDGE, coarse).unsqueeze(1)  # [P, 1, SIDE, SIDE]
    colour, squares = strokes.colour[pieces.stroke][:, :, None, None], as_squares(paper, rows, columns).clone()
    changes = []
    for a, c, place in layered(pieces.layers, alpha, colour, pieces.square):
        changes.append(a * (c - squares[place]))
        squares[place] += changes[-1]
    error = squares - as_squares(target, rows, columns)
    through = as_squares(torch.ones_like(paper[:, :1]), rows, columns)  # what is seen of lower layers: 0 beyond borders
    cost = alpha.new_empty(len(alpha))
    parts = list(layered(pieces.layers, alpha, pieces.square, cost))
    for (a, place, to), change in zip(reversed(parts), reversed(changes), strict=True):
        change = through[place] * change
        to.copy_((change * (change - 2 * error[place])).sum((1, 2, 3)))
        through[place] *= 1 - a
    return cost.new_zeros(len(strokes.width)).index_add(0, pieces.stroke, cost)


@torch.no_grad()
def pieces_of(strokes: Strokes, rows: int, columns: int, edge: float) -> Pieces:
    """Which squares strokes touch, by the boxes around them, of pictures of so many rows and columns of squares."""
    room = ((strokes.width + edge) / 2).unsqueeze(1)
    last = torch.tensor([columns - 1, rows - 1], device=room.device)
    low, high = (
        ((strokes.points.amin(1) - room + 0.5) / SIDE).floor(),
        ((strokes.points.amax(1) + room + 0.5) / SIDE).floor(),
    )
    low, high = low.long().clamp(min=0), torch.minimum(high.long(), last)  # [K, 2], (x, y)
    count = (high - low + 1).clamp(min=0)
    pieces = count.prod(1)
    stroke = torch.repeat_interleave(pieces)  # [P]
    place = torch.arange(len(stroke), device=stroke.device) - (pieces.cumsum(0) - pieces)[stroke]
    x, y = low[stroke, 0] + place % count[stroke, 0], low[stroke, 1] + place // count[stroke, 0]
    square = (strokes.picture[stroke] * rows + y) * columns + x
    square, order = square.sort(stable=True)
    first = torch.searchsorted(square, square)
    layer, again = (torch.arange(len(square), device=square.device) - first).sort(stable=True)
    return Pieces(stroke[order][again], square[again], torch.bincount(layer).tolist())


def coverage(
    strokes: Strokes, pieces: Pieces, rows: int, columns: int, tip: Tip, edge: float, coarse: int
) -> Tensor:  # fmt: skip
    """How much of each pixel of their squares the pieces cover, float [P, SIDE, SIDE]."""
    place = pieces.square % (rows * columns)
    corner = SIDE * torch.stack([place % columns, place // columns], 1)
    points = strokes.points[pieces.stroke] - corner.unsqueeze(1)
    width = strokes.width[pieces.stroke]
    parts = zip(points.split(AT_ONCE), width.split(AT_ONCE), strict=True)
    alpha = torch.cat([rasterised(*part, SIDE, tip, edge, coarse) for part in parts])
    return alpha * strokes.opacity[pieces.stroke].view(-1, 1, 1)


def as_squares(pictures: Tensor, rows: int, columns: int) -> Tensor:
    """Pictures [N, C, H, W] as squares [N · rows · columns, C, SIDE, SIDE], with zeros beyond their borders."""
    n, channels, high, wide = pictures.shape
    whole = torch.nn.functional.pad(pictures, [0, columns * SIDE - wide, 0, rows * SIDE - high])
    parts = whole.view(n, channels, rows, SIDE, columns, SIDE).permute(0, 2, 4, 1, 3, 5)
    return parts.reshape(n * rows * columns, channels, SIDE, SIDE)


def from_squares(squares: Tensor, n: int, rows: int, columns: int) -> Tensor:
    """The inverse, with what lies beyond the borders."""
    channels = squares.shape[1]
    parts = squares.view(n, rows, columns, channels, SIDE, SIDE).permute(0, 3, 1, 4, 2, 5)
    return parts.reshape(n, channels, rows * SIDE, columns * SIDE)


class Over(torch.autograd.Function):
    """Colours over squares, a layer after the other."""

    @staticmethod
    def forward(ctx: Any, squares: Tensor, alpha: Tensor, colour: Tensor, square: Tensor, layers: list[int]) -> Tensor:
        """The squares [S, C, SIDE, SIDE] under the pieces.

        Args:
            alpha: [P, SIDE, SIDE]. colour: [P, C]. square: int64 [P]. layers: pieces of each layer.
        """
        squares, seen = squares.clone(), []
        for a, c, place in layered(layers, alpha, colour, square):
            under = squares[place]
            squares[place] = under + a.unsqueeze(1) * (c[:, :, None, None] - under)
            seen += [under] if any(ctx.needs_input_grad) else []
        if seen:
            ctx.save_for_backward(torch.cat(seen), alpha, colour, square)
        ctx.layers = layers
        return squares

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        seen, alpha, colour, square = ctx.saved_tensors
        grad, of_alpha, of_colour = grad.clone(), torch.empty_like(alpha), torch.empty_like(colour)
        parts = list(layered(ctx.layers, seen, alpha, colour, square, of_alpha, of_colour))
        for under, a, c, place, to_alpha, to_colour in reversed(parts):
            g = grad[place]
            to_alpha.copy_((g * (c[:, :, None, None] - under)).sum(1))
            through = g * a.unsqueeze(1)
            to_colour.copy_(through.sum((2, 3)))
            grad[place] = g - through
        return grad, of_alpha, of_colour, None, None


def layered(layers: list[int], *fields: Tensor) -> Any:
    """The parts of tensors [P, …] that belong to each layer."""
    return zip(*(field.split(layers) for field in fields), strict=True)
