"""The newest finished samples of all environments, for discriminators and generators that learn along with a policy."""

from typing import Any

import torch
from torch import Tensor


class SampleBuffer:
    """A ring of rows of one shape and type, each with a label. Which samples are finished is never asked on the host.

    Args:
        buffer_size: rows that are kept.
        shape: of a row.
        dtype: of a row.
        device: where the rows lie.
    """

    def __init__(self, buffer_size: int, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> None:
        self.buffer_size, self.device = buffer_size, device
        # One row more than it holds: unfinished samples are written there and never read.
        self.rows = torch.zeros(buffer_size + 1, *shape, dtype=dtype, device=device)
        self.labels = torch.zeros(buffer_size + 1, dtype=torch.long, device=device)
        self.total = torch.zeros((), dtype=torch.long, device=device)  # samples that ever came in

    @property
    def count(self) -> Tensor:
        """Rows that are filled, a scalar."""
        return self.total.clamp(max=self.buffer_size)

    def add(self, rows: Tensor, label: Tensor | None, done: Tensor) -> None:
        """Keep those of rows [N, …] and labels [N] that are `done`, bool [N]."""
        slot = torch.where(done, (self.total + done.cumsum(0) - 1) % self.buffer_size, self.buffer_size)
        self.rows[slot] = rows
        if label is not None:
            self.labels[slot] = label
        self.total = self.total + done.sum()

    def draw(self, newest: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Rows [B, …] and labels [B], the i-th one of the newest `newest[i]`, which must not be more than `count`."""
        age = (torch.rand(len(newest), generator=rng, device=self.device) * newest).long()
        slot = (self.total - 1 - age) % self.buffer_size
        return self.rows[slot], self.labels[slot]

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows, "labels": self.labels, "total": self.total}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rows, self.labels, self.total = (state[name].to(self.device) for name in ("rows", "labels", "total"))
