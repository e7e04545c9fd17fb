"""What a state is worth, given the Q-values of its actions: what DQN bootstraps from."""

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from rlgen_cli.core.returns import soft_value


class NextValues(NamedTuple):
    """What is known of the state that each of M steps led to."""

    q: Tensor  # [M, A], of the target network
    online_q: Tensor | None  # [M, A], of the online network, where the backup asks for it
    log_prior: Tensor | None  # [M, A], where the backup asks for a prior
    sizes: list[int]  # how A splits into branches
    temperature: float


class Backup(Protocol):
    """Turns Q-values into values."""

    needs_online: bool  # it looks at the online network's choice
    needs_prior: bool  # it weighs actions by a prior
    entropy_regularised: bool  # the value counts the policy's entropy, and the temperature must be above 0

    def value(self, values: NextValues) -> Tensor:
        """V, [M]; of several branches the mean (Tavakoli et al. 2018, eq. 6)."""
        ...


class MaxBackup:
    """The best action's value (Mnih et al. 2015).

    Args:
        double: the action is the online network's best, its value the target network's (van Hasselt et al. 2016).
    """

    needs_prior, entropy_regularised = False, False

    def __init__(self, *, double: bool) -> None:
        self.needs_online = double

    def value(self, values: NextValues) -> Tensor:
        chooser = values.q if values.online_q is None else values.online_q
        parts = zip(chooser.split(values.sizes, 1), values.q.split(values.sizes, 1), strict=True)
        best = [q.gather(1, choice.argmax(1, keepdim=True)) for choice, q in parts]
        return torch.cat(best, 1).mean(1)


class SoftBackup:
    """τ log Σ exp(Q / τ) (Haarnoja et al. 2017, eq. 9), or the log of the mean.

    Args:
        mean: log-mean-exp, which differs by a constant per step for a fixed number of actions, and keeps values near
            those of the maximum. Without it, this is RL Tuner's Ψ (Jaques et al. 2017, section 4.1).
    """

    needs_online, needs_prior, entropy_regularised = False, False, True

    def __init__(self, *, mean: bool) -> None:
        self.mean = mean

    def value(self, values: NextValues) -> Tensor:
        parts = values.q.split(values.sizes, 1)
        return torch.stack([soft_value(part, values.temperature, self.mean) for part in parts]).mean(0)


class PriorBackup:
    """τ log Σ prior · exp(G / τ): RL Tuner's G (Jaques et al. 2017, section 4.2), whose policy is the prior times
    exp(G / τ)."""

    needs_online, needs_prior, entropy_regularised = False, True, True

    def value(self, values: NextValues) -> Tensor:
        assert values.log_prior is not None
        return values.temperature * torch.logsumexp(values.q / values.temperature + values.log_prior, 1)
