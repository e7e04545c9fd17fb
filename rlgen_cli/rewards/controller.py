"""A score whose price is driven until a statistic of the finished samples is what it should be."""

from typing import Any

import torch
from torch import Tensor

from rlgen_cli.core.errors import require
from rlgen_cli.rewards.reward import Score
from rlgen_cli.core.types import EnvSpec, Metrics, View

FARTHEST = 4.0  # errors count at most so much


class Balance:
    """price · push(sample), the price following the error e = (target − mean of the statistic) / scale, as a controller
    with an integral and a proportional part does: price = start + integral · Σ e + proportional · e.

    What a whole batch should be on average (no correlation, a share of repetitions) cannot be said by a fixed reward
    for each sample; this is the Lagrangian of such a constraint, by dual ascent.

    Args:
        statistic: whose mean over finished samples is driven. push: what is rewarded for it.
        target, scale: as above. integral, proportional: of the integral and the proportional part.
        memory: how much of the mean is kept when new samples are finished.
        start: the first price. least: the lowest, or null for none.
    """

    judges, needs, changes = "any", frozenset[str](), True

    def __init__(
        self,
        *,
        spec: EnvSpec,
        device: torch.device,
        statistic: Score,
        push: Score,
        target: float,
        scale: float,
        integral: float,
        proportional: float,
        memory: float,
        start: float,
        least: float | None,
    ) -> None:
        require(scale > 0, f"scale: must be above 0, got {scale}.")
        require(0.0 <= memory < 1.0, f"memory: must be in [0, 1), got {memory}.")
        self.statistic, self.push = statistic, push
        self.target, self.scale, self.integral, self.proportional = target, scale, integral, proportional
        self.memory, self.least = memory, -torch.inf if least is None else least
        # Episodes of one length begin together, so they end together: in between there is nothing to measure.
        self.interval = spec.max_steps if spec.fixed_length else 1
        self.calls = 0
        self.sum = torch.full((), start, device=device)
        self.mean = torch.zeros((), device=device)
        self.error = torch.zeros((), device=device)

    @property
    def price(self) -> Tensor:
        return (self.sum + self.proportional * self.error).clamp(min=self.least)

    def __call__(self, view: View) -> Tensor:
        return self.price * self.push(view)

    @torch.no_grad()
    def learn(self, after: View, done: Tensor, progress: float) -> Metrics:
        """Follow the samples that are done; nothing moves where none is."""
        self.calls += 1
        if self.calls % self.interval:
            return {}
        count = done.sum()
        newest = torch.where(done, self.statistic(after), 0.0).sum() / count.clamp(min=1)
        mean = self.memory * self.mean + (1 - self.memory) * newest
        error = ((self.target - mean) / self.scale).clamp(-FARTHEST, FARTHEST)
        some = count > 0
        self.mean, self.error = torch.where(some, mean, self.mean), torch.where(some, error, self.error)
        self.sum = torch.where(some, (self.sum + self.integral * error).clamp(min=self.least), self.sum)
        return {"mean": self.mean, "price": self.price}

    def state_dict(self) -> dict[str, Any]:
        return {"sum": self.sum, "mean": self.mean, "error": self.error, "calls": self.calls}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.sum, self.mean, self.error = state["sum"], state["mean"], state["error"]
        self.calls = state["calls"]
