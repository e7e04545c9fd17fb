"""rlgen's own perceptron with linear heads, as the other libraries train it."""

import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from benchmarks.peers.task import NETWORK
from rlgen_cli.core.schedules import Linear
from rlgen_cli.core.specs import Discrete, EnvSpec, Observation
from rlgen_cli.policies.distributions import small
from rlgen_cli.policies.encoders import MLP


class QNetwork(nn.Module):
    """Q-values of N observations, [N, A]: the head's, and what each action gains at once."""

    def __init__(self, spec: EnvSpec) -> None:
        super().__init__()
        self.body = MLP(observation=spec.observation, **NETWORK)
        self.head = zeroed(nn.Linear(NETWORK["width"], num_actions(spec)))

    def forward(self, observation: Observation) -> Tensor:
        out: Tensor = self.head(self.body(observation)) + observation["action_gain"]
        return out


class ActorCritic(nn.Module):
    """Logits [N, A], to which the gains are added, and values [N] from shared features."""

    def __init__(self, spec: EnvSpec, init_scale: float) -> None:
        super().__init__()
        width = NETWORK["width"]
        self.body = MLP(observation=spec.observation, **NETWORK)
        self.actor, self.critic = small(nn.Linear(width, num_actions(spec)), init_scale), zeroed(nn.Linear(width, 1))

    def forward(self, observation: Observation) -> tuple[Tensor, Tensor]:
        features = self.body(observation)
        return self.actor(features) + observation["action_gain"], self.critic(features).squeeze(1)


def num_actions(spec: EnvSpec) -> int:
    """A."""
    assert isinstance(spec.action, Discrete)
    return spec.action.n


def zeroed(linear: nn.Linear) -> nn.Linear:
    """Zeros at first, as in rlgen."""
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear


class Descent:
    """torch's Adam with clipped gradients and a falling learning rate, as the config has them.

    Args:
        parameters: what is trained. optimizer: its part of the config.
    """

    def __init__(self, parameters: list[nn.Parameter], optimizer: DictConfig) -> None:
        self.parameters, self.max_grad_norm = parameters, optimizer.max_grad_norm
        self.learning_rate = schedule(optimizer.learning_rate)
        self.adam = torch.optim.Adam(parameters, lr=self.learning_rate(0.0), eps=optimizer.eps)

    def step(self, loss: Tensor, progress: float) -> None:
        """One step down the gradient, at a time of the training from 0 to 1."""
        self.adam.param_groups[0]["lr"] = self.learning_rate(progress)
        self.adam.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, self.max_grad_norm)
        self.adam.step()


def schedule(values: DictConfig) -> Linear:
    """A schedule of the config."""
    return Linear(values.start, values.end, values.share)
