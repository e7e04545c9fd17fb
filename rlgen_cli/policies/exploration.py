"""How a value-based agent explores."""

import torch
from torch import Tensor

from rlgen_cli.core.errors import require
from rlgen_cli.core.schedules import Linear


class EpsilonGreedy:
    """A uniform action with probability ε.

    Args:
        epsilon: ε, a schedule over the training.
        greedy_env_fraction: share of the environments that never explore, so that a discriminator sees what the policy
            itself makes.
        num_envs: batched environments. device: where they are.
    """

    def __init__(self, *, num_envs: int, device: torch.device, epsilon: Linear, greedy_env_fraction: float) -> None:
        fraction = greedy_env_fraction
        require(0.0 <= fraction <= 1.0, f"greedy_env_fraction: must be in [0, 1], got {fraction}.")
        for value in (epsilon.start, epsilon.end):
            require(0.0 <= value <= 1.0, f"epsilon: must be in [0, 1], got {value}.")
        self.epsilon = epsilon
        self.exploring = torch.arange(num_envs, device=device) >= round(fraction * num_envs)

    def choose(self, action: Tensor, uniform: Tensor, progress: float, rng: torch.Generator) -> Tensor:
        """`uniform` instead of `action` in some environments; both [N] or [N, F]."""
        explore = torch.rand(len(action), generator=rng, device=action.device) < self.epsilon(progress)
        explore = (explore & self.exploring).view(-1, *[1] * (action.dim() - 1))
        return torch.where(explore, uniform, action)
