"""What REINFORCE subtracts from a return: how much was to be expected."""

from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from rlgen_cli.core import ranks
from rlgen_cli.core.errors import require
from rlgen_cli.core.specs import EnvSpec


class Steps(NamedTuple):
    """T steps of N environments."""

    returns: Tensor  # [T, N], to go
    value: Tensor  # [T, N], what the network expects
    age: Tensor  # int64 [T, N], steps into the episode
    counted: Tensor  # bool [T, N], learned from


class Baseline(Protocol):
    """The expected return, given what a step knew."""

    value_coef: float  # weight of the value's squared error; 0 for a baseline that learns no value

    def __call__(self, steps: Steps) -> Tensor:
        """[T, N], or a shape that broadcasts to it."""
        ...


@runtime_checkable
class KeepsStatistics(Protocol):
    """A baseline that a checkpoint must hold."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class NoBaseline:
    """Nothing is expected."""

    value_coef = 0.0

    def __call__(self, steps: Steps) -> Tensor:
        return torch.zeros_like(steps.returns)


class RunningMean:
    """A running mean of the return to go, for each step of the episode.

    Args:
        rate: how far the mean moves towards a new one; the first is taken whole.
    """

    value_coef = 0.0

    def __init__(self, *, spec: EnvSpec, device: torch.device, rate: float) -> None:
        require(0.0 < rate <= 1.0, f"rate: must be in (0, 1], got {rate}.")
        self.rate = float(rate)
        self.mean = torch.zeros(spec.max_steps, device=device)
        self.seen = torch.zeros(spec.max_steps, device=device)  # how many returns it was made of

    def __call__(self, steps: Steps) -> Tensor:
        expected, zero = self.mean[steps.age], torch.zeros_like(self.mean)
        count = ranks.total(zero.index_add(0, steps.age.flatten(), steps.counted.flatten().float()))
        total = ranks.total(zero.index_add(0, steps.age.flatten(), (steps.returns * steps.counted).flatten()))
        rate = torch.where(self.seen > 0, self.rate, 1.0) * (count > 0)
        self.mean = self.mean + rate * (total / count.clamp(min=1) - self.mean)
        self.seen = self.seen + count
        return expected

    def state_dict(self) -> dict[str, Any]:
        return {"mean": self.mean, "seen": self.seen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.mean, self.seen = state["mean"], state["seen"]


class LearnedValue:
    """The network's own value.

    Args:
        value_coef: weight of its squared error in the loss.
    """

    def __init__(self, *, value_coef: float) -> None:
        require(value_coef > 0, f"value_coef: must be above 0, got {value_coef}.")
        self.value_coef = float(value_coef)

    def __call__(self, steps: Steps) -> Tensor:
        return steps.value.detach()


class GroupMean:
    """The mean over episodes that began in the same state, at the same step (GRPO, Shao et al. 2024, section 4.1); for
    a reward at the end this compares finished samples.

    Args:
        group_size: episodes from one start.
    """

    value_coef = 0.0

    def __init__(self, *, spec: EnvSpec, num_envs: int, group_size: int) -> None:
        require(group_size >= 2, f"group_size: must be at least 2, got {group_size}.")
        require(num_envs % group_size == 0, f"group_size: must divide num_envs = {num_envs}, got {group_size}.")
        require(spec.fixed_length, "_target_: a group's mean needs episodes of one length; use env.stop=false.")
        self.group_size = group_size

    def __call__(self, steps: Steps) -> Tensor:
        return steps.returns.unflatten(1, (-1, self.group_size)).mean(2).repeat_interleave(self.group_size, 1)
