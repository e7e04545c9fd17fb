"""Memory within an episode: recurrent networks and a causal transformer over a policy's features.

All take T steps of N environments, x [T, N, D], the memory that the first of them begins with (`carry`) and `start`,
bool [T, N], true where a step begins a new episode and nothing before may be remembered. They return features
[T, N, features] and the memory after the last step. `initial_carry(n)` is the memory of a beginning.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from rlgen_cli.core.errors import require
from rlgen_cli.core.host import readable

# Of torch.gru and torch.lstm: with biases, 1 layer, no dropout (nor training of one), one direction, time first.
ONE_LAYER = (True, 1, 0.0, False, False, False)
SHORT = 4  # steps, of which a cell needs less time than a layer


def pieces(start: Tensor) -> list[slice]:
    """The stretches that T steps fall into when they are cut where some episode begins, so that within each, one call
    of a layer can serve all steps; `start` bool [T, N].

    Where less than `SHORT` steps lie between two cuts, each is a stretch of its own, for a cell; so are all where
    `start` cannot be read, and in bfloat16, which only cells are cast to.
    """
    steps = len(start)
    if steps < SHORT or not readable(start) or torch.is_autocast_enabled("cpu"):
        return [slice(t, t + 1) for t in range(steps)]
    begins = start.any(1)
    begins[0] = True
    cuts, found = begins.nonzero().flatten().tolist(), []
    for first, after in zip(cuts, [*cuts[1:], steps], strict=True):
        stride = after - first if after - first >= SHORT else 1
        found += [slice(t, t + stride) for t in range(first, after, stride)]
    return found


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
        hidden, seen = carry.value, []
        for piece in pieces(start):
            hidden = hidden * ~start[piece.start].unsqueeze(1)
            if piece.stop - piece.start == 1:
                hidden = self.cell(x[piece.start], hidden)
                seen.append(hidden.unsqueeze(0))
            else:
                outputs, hidden = torch.gru(x[piece], hidden.unsqueeze(0), weights(self.cell), *ONE_LAYER)
                hidden = hidden.squeeze(0)
                seen.append(outputs)
        return x + torch.cat(seen), Hidden(hidden)


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
        hidden, cell, seen = carry.value, carry.cell, []
        for piece in pieces(start):
            going = ~start[piece.start].unsqueeze(1)
            hidden, cell = hidden * going, cell * going
            if piece.stop - piece.start == 1:
                hidden, cell = self.cell(x[piece.start], (hidden, cell))
                seen.append(hidden.unsqueeze(0))
            else:
                memory = hidden.unsqueeze(0), cell.unsqueeze(0)
                outputs, hidden, cell = torch.lstm(x[piece], memory, weights(self.cell), *ONE_LAYER)
                hidden, cell = hidden.squeeze(0), cell.squeeze(0)
                seen.append(outputs)
        return torch.cat(seen), Cells(hidden, cell)


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
