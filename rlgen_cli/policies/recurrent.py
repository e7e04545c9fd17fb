"""Memory within an episode: recurrent networks and a causal transformer over a policy's features.

All take T steps of N environments, x [T, N, D], the memory that the first of them begins with (`carry`) and `start`,
bool [T, N], true where a step begins a new episode and nothing before may be remembered. They return features
[T, N, features] and the memory after the last step. `initial_carry(n)` is the memory of a beginning.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from rlgen_cli.core.errors import require
from rlgen_cli.core.host import readable


def pieces(start: Tensor) -> Iterator[slice]:
    """The stretches that T steps fall into when they are cut where some episode begins, so that within each, one call
    can serve all steps; `start` bool [T, N].

    Each step is a stretch of its own where `start` cannot be read, and in bfloat16, which only cells are cast to.
    """
    steps = len(start)
    if steps == 1 or not readable(start) or torch.is_autocast_enabled("cpu"):
        cuts = list(range(steps))
    else:
        begins = start.any(1)
        begins[0] = True
        cuts = begins.nonzero().flatten().tolist()
    for first, after in zip(cuts, [*cuts[1:], steps], strict=True):
        yield slice(first, after)


class Hidden(NamedTuple):
    """A recurrent network's memory."""

    value: Tensor  # [N, D]


class GRU(nn.Module):
    """A gated recurrent unit (Cho et al. 2014), added to the features that it reads."""

    kind = "recurrent"

    def __init__(self, *, features: int) -> None:
        super().__init__()
        self.features = features
        self.cell = nn.GRUCell(features, features)

    def initial_carry(self, n: int) -> Hidden:
        return Hidden(self.cell.weight_hh.new_zeros(n, self.cell.hidden_size))

    def forward(self, x: Tensor, carry: Hidden, start: Tensor) -> tuple[Tensor, Hidden]:
        hidden, seen = carry.value.unsqueeze(0), []
        for piece in pieces(start):
            outputs, hidden = self._along(x[piece], hidden * ~start[piece][0].unsqueeze(1))
            seen.append(outputs)
        return x + torch.cat(seen), Hidden(hidden.squeeze(0))

    def _along(self, x: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Features of steps without a beginning, [T, N, D], and the memory afterwards; memories are [1, N, D]."""
        if len(x) == 1:  # a cell is faster for one step, and a layer for several
            hidden = self.cell(x[0], hidden[0]).unsqueeze(0)
            return hidden, hidden
        return torch.gru(x, hidden, weights(self.cell), True, 1, 0.0, False, False, False)


class Cells(NamedTuple):
    """An LSTM's memory."""

    value: Tensor  # [N, width]
    cell: Tensor  # [N, width]


class LSTM(nn.Module):
    """Long short-term memory (Hochreiter and Schmidhuber 1997) of `width` units; what it reads is not added."""

    kind = "recurrent"

    def __init__(self, *, features: int, width: int) -> None:
        super().__init__()
        require(width >= 1, f"width: must be at least 1, got {width}.")
        self.features = width
        self.cell = nn.LSTMCell(features, width)

    def initial_carry(self, n: int) -> Cells:
        zero = self.cell.weight_hh.new_zeros(n, self.features)
        return Cells(zero, zero)

    def forward(self, x: Tensor, carry: Cells, start: Tensor) -> tuple[Tensor, Cells]:
        hidden, cell, seen = carry.value.unsqueeze(0), carry.cell.unsqueeze(0), []
        for piece in pieces(start):
            going = ~start[piece][0].unsqueeze(1)
            outputs, hidden, cell = self._along(x[piece], hidden * going, cell * going)
            seen.append(outputs)
        return torch.cat(seen), Cells(hidden.squeeze(0), cell.squeeze(0))

    def _along(self, x: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As GRU._along."""
        if len(x) == 1:
            hidden, cell = (part.unsqueeze(0) for part in self.cell(x[0], (hidden[0], cell[0])))
            return hidden, hidden, cell
        return torch.lstm(x, (hidden, cell), weights(self.cell), True, 1, 0.0, False, False, False)


def weights(cell: nn.RNNCellBase) -> list[Tensor]:
    """A cell's parameters, in the order in which a layer over many steps takes them."""
    return [cell.weight_ih, cell.weight_hh, cell.bias_ih, cell.bias_hh]


class Past(NamedTuple):
    """A transformer's memory: what each layer read in the newest `span` steps, newest last."""

    layers: Tensor  # [N, layers, span, D]
    age: Tensor  # int64 [N], how many of these steps belong to the episode


class Transformer(nn.Module):
    """A small causal transformer over the episode so far, at most `span` steps back.

    Layer norm comes first in each block; positions are a learned bias by distance. What layers read is kept, so a new
    step costs one step (Dai et al. 2019).
    """

    kind = "transformer"
    like: Tensor  # where the weights are

    def __init__(self, *, features: int, layers: int, heads: int, span: int) -> None:
        super().__init__()
        require(1 <= layers <= 100, f"layers: must be from 1 to 100, got {layers}.")
        require(span >= 1, f"span: must be at least 1, got {span}.")
        require(heads >= 1, f"heads: must be at least 1, got {heads}.")
        require(features % heads == 0, f"heads: must divide the width {features}, got {heads}.")
        self.blocks = nn.ModuleList(Block(features, heads, span) for _ in range(layers))
        self.span, self.features = span, features
        self.register_buffer("like", torch.zeros(()), persistent=False)

    def initial_carry(self, n: int) -> Past:
        layers = self.like.new_zeros(n, len(self.blocks), self.span, self.features)
        return Past(layers, torch.zeros(n, dtype=torch.long, device=self.like.device))

    def forward(self, x: Tensor, carry: Past, start: Tensor) -> tuple[Tensor, Past]:
        steps = len(x)
        visible, age = self._visible(carry.age, start)
        x, kept = x.transpose(0, 1), []  # [N, T, D]
        for i, block in enumerate(self.blocks):
            known = torch.cat([carry.layers[:, i], x], 1)  # [N, span + T, D]
            kept.append(known[:, steps:])
            x = block(x, known, visible, self._distance(steps, x.device))
        return x.transpose(0, 1), Past(torch.stack(kept, 1), age)

    def _distance(self, steps: int, device: torch.device) -> Tensor:
        """How far back each known step lies from each new one, [T, span + T]."""
        new, known = torch.arange(steps, device=device), torch.arange(-self.span, steps, device=device)
        return new.unsqueeze(1) - known

    def _visible(self, age: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
        """What each new step may look at, bool [N, T, span + T], and the age of the memory afterwards, [N]."""
        episode = start.long().cumsum(0).T  # [N, T]; 0 is the one that the memory belongs to
        old = torch.arange(-self.span, 0, device=age.device) >= -age.unsqueeze(1)  # [N, span]
        known = torch.cat([torch.where(old, 0, -1), episode], 1)  # [N, span + T]
        distance = self._distance(len(start), age.device)
        same = known.unsqueeze(1) == episode.unsqueeze(2)
        after = (known == episode[:, -1:]).sum(1).clamp(max=self.span)
        return same & (distance >= 0) & (distance <= self.span), after


class Block(nn.Module):
    """Attention and a perceptron, each added to what it reads."""

    def __init__(self, width: int, heads: int, span: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm, self.middle = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key_value, self.out = (
            nn.Linear(width, width), nn.Linear(width, 2 * width), nn.Linear(width, width),
        )  # fmt: skip
        self.bias = nn.Parameter(torch.zeros(heads, span + 1))
        self.rest = nn.Sequential(nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor, known: Tensor, visible: Tensor, distance: Tensor) -> Tensor:
        query = self._split(self.query(self.norm(x)))
        key, value = (self._split(part) for part in self.key_value(self.norm(known)).chunk(2, -1))
        bias = self.bias[:, distance.clamp(0, self.bias.shape[1] - 1)]  # [heads, T, span + T]
        mask = bias.masked_fill(~visible.unsqueeze(1), -torch.inf)
        seen = scaled_dot_product_attention(query, key, value, attn_mask=mask)
        x = x + self.out(seen.transpose(1, 2).flatten(2))
        return x + self.rest(self.middle(x))

    def _split(self, x: Tensor) -> Tensor:
        """[N, S, D] to [N, heads, S, D / heads]."""
        return x.unflatten(2, (self.heads, -1)).transpose(1, 2)
