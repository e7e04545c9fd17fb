"""The newest finished samples of all environments, for discriminators and generators that learn along with a policy."""

from typing import Any

import torch
from torch import Tensor


class Finished:
    """A ring of `capacity` rows of a shape and type, each with a label; which samples are finished is never asked on
    the host."""

    def __init__(self, capacity: int, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> None:
        self.capacity = capacity
        # One row more than it holds: unfinished samples are written there and never read.
        self.rows = torch.zeros(capacity + 1, *shape, dtype=dtype, device=device)
        self.labels = torch.zeros(capacity + 1, dtype=torch.long, device=device)
        self.seen = torch.zeros((), dtype=torch.long, device=device)

    @property
    def count(self) -> Tensor:
        """Rows that are filled, a scalar."""
        return self.seen.clamp(max=self.capacity)

    def add(self, rows: Tensor, label: Tensor | None, done: Tensor) -> None:
        """Keep those of rows [N, …] and labels [N] that are `done`, bool [N]."""
        slot = torch.where(done, (self.seen + done.cumsum(0) - 1) % self.capacity, self.capacity)
        self.rows[slot] = rows
        if label is not None:
            self.labels[slot] = label
        self.seen = self.seen + done.sum()

    def draw(self, reach: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Rows and labels, each one of the newest `reach` [B], which must not be more than `count`."""
        age = (torch.rand(len(reach), generator=rng, device=reach.device) * reach).long()
        slot = (self.seen - 1 - age) % self.capacity
        return self.rows[slot], self.labels[slot]

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows, "labels": self.labels, "seen": self.seen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rows, self.labels, self.seen = state["rows"], state["labels"], state["seen"]
