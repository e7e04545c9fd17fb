"""What an action chooses in a step of the sampler: its noise, one of a few noises, how strongly the label counts, or
whether the step is made at all."""

import math
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from rlgen_cli.core.capacity import require_memory
from rlgen_cli.core.errors import require
from rlgen_cli.core.specs import ActionSpec, Discrete, Normal


class Control(Protocol):
    """What a YAML below configs/control builds."""

    def enter(self, shape: tuple[int, int, int], steps: int, device: torch.device) -> ActionSpec:
        """The actions of an environment of samples of this shape (C, H, W), in which so many steps are made."""
        ...


@runtime_checkable
class AddsNoise(Protocol):
    """A control with which the sampler's steps add noise; without it they are those of an ordinary differential
    equation."""

    def noise(self, action: Tensor, step: Tensor) -> Tensor:
        """That of N steps, [N, C, H, W], step int64 [N]."""
        ...


@runtime_checkable
class Guides(Protocol):
    """A control for which the model is asked without its label, too."""

    def scale(self, action: Tensor) -> Tensor:
        """By how much the estimate moves with the label, [N, 1, 1, 1]; 1 is the model's own, 0 leaves the label out."""
        ...


@runtime_checkable
class Stops(Protocol):
    """A control that may end an episode early."""

    def stop(self, action: Tensor) -> Tensor:
        """Whether what the model sees by now is the sample, bool [N]."""
        ...


class Noise:
    """The action is the step's noise; a standard normal one is the model's own."""

    def enter(self, shape: tuple[int, int, int], steps: int, device: torch.device) -> ActionSpec:
        self.shape = shape
        return Normal(shape)

    def noise(self, action: Tensor, step: Tensor) -> Tensor:
        return action.unflatten(1, self.shape)


class PickNoise:
    """One of a few noises, of which each step has its own, the same in every episode, so that a choice can be learned;
    random choices sample from the model nearly as fresh noise does (Ohayon et al. 2025).

    Args:
        count: noises of a step. seed: they are drawn with.
    """

    def __init__(self, *, count: int, seed: int) -> None:
        require(2 <= count <= 4096, f"count: must be from 2 to 4096, got {count}.")
        require(seed >= 0, f"seed: must be at least 0, got {seed}.")
        self.count, self.seed = count, seed

    def enter(self, shape: tuple[int, int, int], steps: int, device: torch.device) -> ActionSpec:
        require_memory(4 * steps * self.count * math.prod(shape), f"count: {self.count} noises for each step")
        rng = torch.Generator().manual_seed(self.seed)
        self.noises = torch.randn(steps, self.count, *shape, generator=rng).to(device)
        return Discrete(self.count)

    def noise(self, action: Tensor, step: Tensor) -> Tensor:
        return self.noises[step, action]


class Guidance:
    """How strongly the label counts in each step of an ordinary differential equation: the estimate is x̂ + (w − 1) ·
    (x̂ − x̂ without the label) (classifier-free guidance, Ho and Salimans 2022), of which the action chooses w.

    Args:
        scales: that there are to choose from; a single one is guidance as usual.
    """

    def __init__(self, *, scales: list[float]) -> None:
        require(len(scales) >= 1, "scales: must hold at least one number.")
        finite = all(math.isfinite(scale) for scale in scales)
        require(finite, f"scales: must be numbers, got {list(scales)}.")
        self.scales = torch.tensor([float(scale) for scale in scales])

    def enter(self, shape: tuple[int, int, int], steps: int, device: torch.device) -> ActionSpec:
        self.scales = self.scales.to(device)
        return Discrete(len(self.scales))

    def scale(self, action: Tensor) -> Tensor:
        return self.scales[action].view(-1, 1, 1, 1)


class Stop:
    """1 stops: what the model sees by now is the sample; 0 makes a step of an ordinary differential equation. With a
    price on steps (`step_cost`), a policy spends them where they count."""

    def enter(self, shape: tuple[int, int, int], steps: int, device: torch.device) -> ActionSpec:
        return Discrete(2)

    def stop(self, action: Tensor) -> Tensor:
        return action == 1
