"""The newest of whatever comes in, drawn in proportion to weights."""

from typing import Any

import torch
from torch import Tensor

from rlgen_cli.core.tree import leaves, map_tensors, plain, typed


class WeightedBuffer:
    """A ring of rows of a tree, with log-weights. Which rows are wanted is never asked on the host.

    Args:
        buffer_size: rows that are kept.
        like: any rows, a tree of tensors with a leading dimension.
    """

    def __init__(self, buffer_size: int, like: Any) -> None:
        self.buffer_size = buffer_size

        def room(field: Tensor) -> Tensor:
            # One row more than it holds: unwanted ones are written there and never read.
            return field.new_zeros(buffer_size + 1, *field.shape[1:])

        self.rows = map_tensors(room, like)
        device = next(leaves(self.rows)).device
        self.log_weight = torch.full((buffer_size + 1,), -torch.inf, device=device)
        self.total = torch.zeros((), dtype=torch.long, device=device)  # rows that ever came in

    def add(self, rows: Any, log_weight: Tensor, wanted: Tensor) -> None:
        """Keep those of N rows and log-weights [N] that are `wanted`, bool [N]."""
        slot = torch.where(wanted, (self.total + wanted.cumsum(0) - 1) % self.buffer_size, self.buffer_size)
        map_tensors(lambda kept, new: kept.index_copy_(0, slot, new), self.rows, rows)
        self.log_weight[slot] = log_weight
        self.log_weight[self.buffer_size] = -torch.inf
        self.total = self.total + wanted.sum()

    def draw(self, count: int, rng: torch.Generator) -> Any:
        """So many rows by their weights, with replacement; there must be one."""
        cumulative = self.log_weight.softmax(0).cumsum(0)
        place = torch.rand(count, generator=rng, device=cumulative.device) * cumulative[-1]
        return self._at(torch.searchsorted(cumulative, place, right=True).clamp(max=self.buffer_size - 1))

    def draw_any(self, count: int, rng: torch.Generator) -> Any:
        """So many rows, each as likely as another, with replacement; there must be one."""
        held = self.total.clamp(max=self.buffer_size)
        place = torch.rand(count, generator=rng, device=held.device) * held
        return self._at(place.long().clamp(max=self.buffer_size - 1))

    def newest(self, count: int, skipped: int) -> Any:
        """The newest rows after those that are skipped."""
        age = skipped + torch.arange(count, device=self.total.device)
        return self._at((self.total - 1 - age) % self.buffer_size)

    def _at(self, slot: Tensor) -> Any:
        return map_tensors(lambda kept: kept.index_select(0, slot), self.rows)

    def effective_size(self) -> Tensor:
        """How many rows of equal weight would tell as much (Kish 1965)."""
        return self.log_weight.softmax(0).square().sum().reciprocal()

    def log_mean_weight(self) -> Tensor:
        """The logarithm of the mean weight."""
        return self.log_weight.logsumexp(0) - self.total.clamp(max=self.buffer_size).log()

    def state_dict(self) -> dict[str, Any]:
        return {"rows": plain(self.rows), "log_weight": self.log_weight, "total": self.total}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rows = typed(state["rows"], self.rows)
        self.log_weight, self.total = state["log_weight"], state["total"]
