"""A score whose price is driven until a statistic of the finished samples is what it should be."""

from typing import Any

import torch
from torch import Tensor

from rlgen_cli.core import ranks
from rlgen_cli.core.errors import require
from rlgen_cli.core.protocols import Score
from rlgen_cli.core.specs import EnvSpec, Metrics, Transition, View

MAX_ERROR = 4.0  # larger errors count as this much


class Gains:
    """How strongly a controller follows an error e: price = initial + integral · Σ e + proportional · e.

    Args:
        integral, proportional: of the two parts. initial_price: before anything was measured.
        min_price: the lowest price, or null for none.
    """

    def __init__(self, *, integral: float, proportional: float, initial_price: float, min_price: float | None) -> None:
        self.integral, self.proportional, self.initial_price = integral, proportional, initial_price
        self.min_price = -torch.inf if min_price is None else min_price


class Controller:
    """price · reward(sample), the price following the error e = (target − mean of the statistic) / scale, as a
    proportional-integral controller does.

    What a whole batch should be on average (no correlation, a share of repetitions) cannot be said by a fixed reward
    for each sample; this is the Lagrangian of such a constraint, by dual ascent (Stooke et al. 2020).

    Args:
        statistic: whose mean over finished samples is driven. reward: the score that is paid for it.
        target, scale: of the statistic, as above. gains: of the controller.
        ema_decay: share of the mean that is kept when new samples are finished.

    Raises:
        UserError: for a value out of range.
    """

    judges: str = "any"  # what the statistic and the reward judge
    learned = True
    needs: frozenset[str] = frozenset()
    by_rank: frozenset[str] = frozenset()

    def __init__(
        self,
        *,
        spec: EnvSpec,
        device: torch.device,
        statistic: Score,
        reward: Score,
        target: float,
        scale: float,
        gains: Gains,
        ema_decay: float,
    ) -> None:
        require(scale > 0, f"scale: must be above 0, got {scale}.")
        require(0.0 <= ema_decay < 1.0, f"ema_decay: must be in [0, 1), got {ema_decay}.")
        self.statistic, self.reward = statistic, reward
        self.judges = statistic.judges if reward.judges == "any" else reward.judges
        self.needs = statistic.needs | reward.needs
        self.target, self.scale, self.gains, self.ema_decay = target, scale, gains, ema_decay
        self.interval = spec.steps_between_ends  # in between there is nothing to measure
        self.steps = 0
        self.finished = torch.zeros((), dtype=torch.long, device=device)  # samples of the newest measurement
        self.measured = torch.zeros((), device=device)  # their mean
        self.sum = torch.full((), gains.initial_price, device=device)
        self.mean = torch.zeros((), device=device)
        self.error = torch.zeros((), device=device)

    @property
    def price(self) -> Tensor:
        """What the reward is multiplied with now, a scalar."""
        return (self.sum + self.gains.proportional * self.error).clamp(min=self.gains.min_price)

    def __call__(self, view: View) -> Tensor:
        return self.price * self.reward(view)

    @torch.no_grad()
    def observe(self, step: Transition) -> None:
        """Measure the samples that the step finished."""
        assert step.next_view is not None
        self.steps += 1
        if self.steps % self.interval:
            return
        self.finished = ranks.total(step.terminated.sum())
        total = ranks.total(torch.where(step.terminated, self.statistic(step.next_view), 0.0).sum())
        self.measured = total / self.finished.clamp(min=1)

    def update(self, progress: float) -> Metrics:
        """Follow the newest measurement; nothing moves where no sample was finished."""
        if self.steps % self.interval:
            return {}
        mean = self.ema_decay * self.mean + (1 - self.ema_decay) * self.measured
        error = ((self.target - mean) / self.scale).clamp(-MAX_ERROR, MAX_ERROR)
        total = (self.sum + self.gains.integral * error).clamp(min=self.gains.min_price)
        some = self.finished > 0
        self.mean, self.error = torch.where(some, mean, self.mean), torch.where(some, error, self.error)
        self.sum = torch.where(some, total, self.sum)
        return {"mean": self.mean, "price": self.price}

    def state_dict(self) -> dict[str, Any]:
        return {"sum": self.sum, "mean": self.mean, "error": self.error, "steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.sum, self.mean, self.error = (state[name].to(self.sum.device) for name in ("sum", "mean", "error"))
        self.steps = state["steps"]
