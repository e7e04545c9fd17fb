"""A diffusion model's own network as policy: what is learned is added to its weights.

The model's weights stay where they are, so that a policy begins as the model (its mean action is 0) whenever that was
trained, and holds only what it has changed.
"""

import math
from typing import Any

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


class Denoiser(nn.Module):
    """The mean action of N states of env=diffusion: how far the changed network's estimate moves the next noisy sample,
    in deviations of the step's noise.

    Args:
        observation, action: those of the environment. generator: its model.
        rank: of the change of each matrix (LoRA), or null for a change of every weight.

    Raises:
        UserError: for another environment's actions, or a value out of range.
    """

    kind = "convolutions"

    def __init__(
        self, *, observation: ObservationSpec, action: Normal, generator: Denoises | None, rank: int | None
    ) -> None:
        super().__init__()
        require(rank is None or rank >= 1, f"rank: must be at least 1, or null for all weights, got {rank}.")
        assert isinstance(generator, Denoises)
        # In a tuple, so that the model's weights are no part of this module's state.
        self.model: tuple[Any] = (generator,)
        self.features = int(generator.network.features)
        self.sees_label = "label" in observation
        weights = dict(generator.network.named_parameters())
        self.names = list(weights)
        self.changes = nn.ModuleList(self._change(weight.shape, rank) for weight in weights.values())

    @staticmethod
    def _change(shape: torch.Size, rank: int | None) -> LowRank | Full:
        """One of few parameters for a matrix, where that has fewer than the matrix itself."""
        if rank is None or len(shape) < 2 or rank * (shape[0] + math.prod(shape[1:])) >= math.prod(shape):
            return Full(shape)
        return LowRank(shape, rank)

    def forward(self, observation: Observation) -> tuple[Tensor, Tensor]:
        """Features of the network's middle [N, features], and mean actions [N, D]."""
        (model,) = self.model
        own = dict(model.network.named_parameters())
        weights = {name: own[name] + change() for name, change in zip(self.names, self.changes, strict=True)}
        noisy, t = observation["noisy"], observation["time"]
        label = observation["label"] if self.sees_label else None
        prediction, features = functional_call(model.network, weights, (noisy, t.squeeze(1), label))
        estimate = model.path.estimate(noisy, prediction, t[:, :, None, None])
        moved = (estimate - observation["estimate"]).flatten(1)
        return features, moved * observation["log_gain"].exp()
