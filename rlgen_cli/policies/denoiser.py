"""A diffusion model's own network as policy: what is learned is added to its weights.

The model's weights stay where they are, so that a policy begins as the model (its mean action is 0) whenever that was
trained, and holds only what it has changed.
"""

import copy
import math
from typing import Any, Literal, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call

from rlgen_cli.core.errors import require
from rlgen_cli.core.protocols import Denoises
from rlgen_cli.core.specs import Normal, Observation, ObservationSpec


class LowRank(nn.Module):
    """A change of a weight [A, B, …] by a product of two thin matrices (LoRA, Hu et al. 2022); none at first."""

    def __init__(self, shape: torch.Size, rank: int) -> None:
        super().__init__()
        self.shape, (rows, columns) = shape, (shape[0], math.prod(shape[1:]))
        self.left = nn.Parameter(torch.zeros(rows, rank))
        self.right = nn.Parameter(torch.randn(rank, columns) / math.sqrt(columns))

    def forward(self) -> Tensor:
        return (self.left @ self.right).view(self.shape)


class Full(nn.Module):
    """A change of a whole weight; none at first."""

    def __init__(self, shape: torch.Size) -> None:
        super().__init__()
        self.change = nn.Parameter(torch.zeros(shape))

    def forward(self) -> Tensor:
        return self.change


class LastEstimate(NamedTuple):
    """What is remembered of the step before."""

    estimate: Tensor  # float [N, C, H, W], the changed network's
    known: Tensor  # float [N], 1 if there was a step, else 0


class Denoiser(nn.Module):
    """The mean action of N states of env=diffusion: how far the changed network's estimate moves the next noisy sample,
    in deviations of the step's noise. Where the environment's steps are of second order, so are those of the changed
    network, which remembers its last estimate for that.

    Args:
        observation, action: those of the environment. generator: its model.
        rank: of the change of each matrix (LoRA), or null for a change of every weight.
        log_prob: of an action, the sum over its numbers, or their mean (see distributions.UnitNormal).

    Raises:
        UserError: for another environment's actions, or a value out of range.
    """

    kind = "convolutions"

    def __init__(
        self,
        *,
        observation: ObservationSpec,
        action: Normal,
        generator: Denoises | None,
        rank: int | None,
        log_prob: Literal["sum", "mean"],
    ) -> None:
        super().__init__()
        self.log_prob = log_prob
        require(rank is None or rank >= 1, f"rank: must be at least 1, or null for all weights, got {rank}.")
        assert isinstance(generator, Denoises)
        # In a tuple, so that the model's weights are no part of this module's state.
        self.model: tuple[Any] = (generator,)
        network = generator.denoising_network()
        self.features = int(network.features)
        self.sees_label, self.shape = "label" in observation, tuple(generator.shape)
        self.remembers = "change" in observation
        weights = dict(network.named_parameters())
        self.names = list(weights)
        self.changes = nn.ModuleList(self._change(weight.shape, rank) for weight in weights.values())

    @staticmethod
    def _change(shape: torch.Size, rank: int | None) -> LowRank | Full:
        """One of few parameters for a matrix, where that has fewer than the matrix itself."""
        if rank is None or len(shape) < 2 or rank * (shape[0] + math.prod(shape[1:])) >= math.prod(shape):
            return Full(shape)
        return LowRank(shape, rank)

    @torch.no_grad()
    def tuned(self) -> nn.Module:
        """The model's network with what was learned in its weights: a network by itself."""
        network = copy.deepcopy(self.model[0].denoising_network())
        for weight, change in zip(network.parameters(), self.changes, strict=True):
            weight.add_(change())
        return cast(nn.Module, network)

    def initial_carry(self, n: int) -> LastEstimate | None:
        """The memory at the start of N episodes."""
        if not self.remembers:
            return None
        some = next(self.parameters())
        return LastEstimate(some.new_zeros(n, *self.shape), some.new_zeros(n))

    def forward(
        self, observation: Observation, carry: LastEstimate | None, start: Tensor
    ) -> tuple[Tensor, Tensor, LastEstimate | None]:
        """Features of the network's middle [T · N, features], mean actions [T · N, D], and the memory after the last of
        T steps of N environments; `carry` is that before the first, and start bool [T, N]."""
        features, estimate = self._estimate(observation)
        moved = estimate - observation["estimate"]
        if carry is not None:
            rows = estimate.unflatten(0, start.shape)  # [T, N, C, H, W]
            before = torch.cat([carry.estimate.unsqueeze(0), rows[:-1]]).flatten(0, 1)
            known = torch.cat([carry.known.unsqueeze(0), torch.ones_like(start[1:], dtype=estimate.dtype)])
            change = (known.flatten() * observation["change"].squeeze(1)).view(-1, 1, 1, 1)
            moved = moved + change * ((estimate - before) - (observation["estimate"] - observation["before"]))
            carry = LastEstimate(rows[-1], torch.ones_like(carry.known))
        return features, moved.flatten(1) * observation["log_gain"].exp(), carry

    def _estimate(self, observation: Observation) -> tuple[Tensor, Tensor]:
        """Features of the changed network's middle [N, features], and its estimates of the sample [N, C, H, W]."""
        (model,) = self.model
        network = model.denoising_network()
        own = dict(network.named_parameters())
        weights = {name: own[name] + change() for name, change in zip(self.names, self.changes, strict=True)}
        noisy, t = observation["noisy"], observation["time"]
        label = observation["label"] if self.sees_label else None
        seen = torch.cat([noisy, observation["hint"]], 1) if model.hints else noisy
        prediction, features = functional_call(network, weights, (seen, t.squeeze(1), label))
        return features, model.path.estimate(noisy, prediction, t[:, :, None, None])
