"""How likely a sequence is to a model that was trained before."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from rlgen_cli.policies.actor import taught
from rlgen_cli.core.types import View


class Prior:
    """The sum over steps of log p(token | the ones before), in nats, at most 0.

    Args:
        env: says what the model saw before each token. source: of the model (build.saved_network).
    """

    judges, needs = "sequence", frozenset[str]()

    def __init__(self, *, env: Any, saved_network: Callable[[str], nn.Module], source: str) -> None:
        self.env, self.net = env, saved_network(source)

    def __call__(self, view: View) -> Tensor:
        return self.steps(view).sum(1)

    def gain(self, after: View) -> Tensor:
        return self.steps(after).gather(1, after.effort.unsqueeze(1) - 1).squeeze(1)

    @torch.no_grad()
    def steps(self, view: View) -> Tensor:
        """Log-probability of each token, [N, T]; 0 where none stands yet."""
        tokens = view.sample
        assert view.context.prime is not None
        policy, action = taught(self.env, self.net, tokens.clamp(min=0), view.context.prime)
        return torch.where(tokens[:, :, 0] >= 0, policy.judge(action)[0].view(-1, len(tokens)).T, 0.0)
