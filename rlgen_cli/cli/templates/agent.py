"""The cross-entropy method on a policy: imitate the best episodes of each batch."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from rlgen_cli.core.errors import require
from rlgen_cli.core.optimizer import Adam
from rlgen_cli.core.protocols import Env
from rlgen_cli.core.specs import EnvSpec, Metrics, Transition
from rlgen_cli.core.tree import map_tensors
from rlgen_cli.memory.rollouts import RolloutBuffer, flat
from rlgen_cli.policies.actor import NetworkPolicy, build_network, example_transition


class NewAgent:
    """A learner (core.protocols.Learner) with a policy: that makes it an agent.

    Args:
        env, rng, device: the training environment, a random stream, and where tensors lie; the program gives them.
        network, optimizer: from the YAML, each called with what it lacks.
        elite_fraction: of the episodes, which are imitated.

    Raises:
        UserError: for a fraction out of range.
    """

    by_rank = frozenset(["rollout"])  # what is not the same in every process, where a training has several

    @staticmethod
    def accepts(spec: EnvSpec) -> bool:
        """Which environments it can act in; without this method, all."""
        return spec.fixed_length  # so that all environments begin and end together

    def __init__(
        self,
        *,
        env: Env,
        rng: torch.Generator,
        device: torch.device,
        network: Callable[..., nn.Module],
        optimizer: Callable[..., Adam],
        elite_fraction: float,
    ) -> None:
        require(0 < elite_fraction < 1, f"elite_fraction: must be in (0, 1), got {elite_fraction}.")
        net = build_network(network, env.spec, device)
        self.env, self.rng, self.elite_fraction = env, rng, elite_fraction
        self.policy = NetworkPolicy(net=net, evaluate="sample")
        self.optimizer = optimizer(parameters=net.parameters())
        self.rollout = RolloutBuffer(env.spec.max_steps)

    def observe(self, step: Transition) -> None:
        """Take in one step of N environments."""
        self.rollout.add(step)

    def update(self, progress: float) -> Metrics:
        """Learn if it is time; `progress` goes from 0 to 1. What is returned is logged as `agent/<name>`."""
        if not self.rollout.full:
            return {}
        segment = self.rollout.take()  # T steps of N environments: whole episodes
        returns = segment.reward.sum(0)  # [N]
        elite = returns >= torch.quantile(returns, 1 - self.elite_fraction)  # bool [N]
        states, carry = flat(segment.state), map_tensors(lambda field: field[0], segment.carry)
        out = self.policy.forward(self.env.observe(states), self.env.action_mask(states), carry, segment.starts())
        log_prob, _ = out.policy.evaluate_actions(segment.action.flatten(0, 1))  # [T · N]
        loss = -(log_prob.view_as(segment.reward) * elite).mean()
        self.optimizer.step(loss, progress)
        return {"loss": loss.detach(), "elite_return": (returns * elite).sum() / elite.sum()}

    def state_dict(self) -> dict[str, Any]:
        """All that going on needs beyond the policy."""
        return {"optimizer": self.optimizer.state_dict(), "rollout": self.rollout.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """As `state_dict` left it."""
        self.optimizer.load_state_dict(state["optimizer"])
        self.rollout.load_state_dict(state["rollout"], example_transition(self.env, self.policy, self.rng))
