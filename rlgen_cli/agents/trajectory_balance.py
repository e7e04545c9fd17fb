"""Relative trajectory balance (Venkatraman et al. 2024): a policy whose episodes have the prior's probabilities times
exp(R / β), by making log Z + log π − log prior − R / β of whole episodes 0.

Deviations from the paper, numbered:

1. log Z is the mean over a batch, which needs no learning (VarGrad, Richter et al. 2020), plus the value network's word
   on each start, for starts that differ in it.
2. Beside the policy's newest episodes, a batch holds earlier ones, drawn by exp(R / β), so that what the policy makes
   no more is not forgotten.

When to use it: in env=diffusion, for a reward with or without a gradient, where diversity is to stay.

What to expect: docs/diffusion.md.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from rlgen_cli.core import ranks
from rlgen_cli.core.capacity import footprint, require_memory
from rlgen_cli.core.errors import require
from rlgen_cli.core.optimizer import Adam
from rlgen_cli.core.protocols import Env, KnowsWays
from rlgen_cli.core.specs import EnvSpec, Metrics, Normal, State, Transition
from rlgen_cli.core.tree import join, map_tensors
from rlgen_cli.memory.rollouts import RolloutBuffer, flat
from rlgen_cli.memory.weighted_buffer import WeightedBuffer
from rlgen_cli.policies.actor import NetworkPolicy, build_network, example_transition
from rlgen_cli.policies.distributions import UnitNormal


class Episodes(NamedTuple):
    """B whole episodes of L steps."""

    states: State  # [B, L + 1, …]
    reward: Tensor  # [B], the sum of their rewards, in nats


class TrajectoryBalance:
    """A policy learned from whole episodes by their balance.

    Args:
        network: builds a policy network from observation and action specs.
        optimizer: builds the optimizer (core/optimizer.py) from parameters.
        kl_coef: β, the reward that a nat of KL divergence from the prior costs.
        buffer_size: finished episodes that are kept.
        batch_size: episodes of an update. replay_fraction: of them, those that are drawn by their weights; the others
            are the newest. updates: for each window of episodes. All are those of all ranks.
        evaluate: sample or mode, when it does not explore.

    Raises:
        UserError: for a value out of range, or an environment whose actions its states do not tell.
    """

    by_rank = frozenset(["rollout", "buffer"])

    @staticmethod
    def accepts(spec: EnvSpec) -> bool:
        """Actions are standard normal where nothing is learned, and episodes have one length."""
        return isinstance(spec.action, Normal) and spec.fixed_length

    def __init__(
        self,
        *,
        env: Env,
        rng: torch.Generator,
        num_envs: int,
        device: torch.device,
        network: Callable[..., nn.Module],
        optimizer: Callable[..., Adam],
        kl_coef: float,
        buffer_size: int,
        batch_size: int,
        replay_fraction: float,
        updates: int,
        evaluate: Literal["sample", "mode"],
    ) -> None:
        require(kl_coef > 0, f"kl_coef: must be above 0, got {kl_coef}.")
        require(updates >= 1, f"updates: must be at least 1, got {updates}.")
        require(0.0 <= replay_fraction <= 1.0, f"replay_fraction: must be in [0, 1], got {replay_fraction}.")
        require(batch_size >= 2, f"batch_size: must be at least 2, for a mean over it, got {batch_size}.")
        require(isinstance(env, KnowsWays), "_target_: this environment's states do not tell the actions between them.")
        self.batch_size, room = ranks.share(batch_size, "batch_size"), max(1, buffer_size // ranks.count())
        self.newest = self.batch_size - round(replay_fraction * self.batch_size)
        require(
            self.newest * updates <= num_envs <= room,
            f"batch_size: {updates} updates of {self.newest} newest episodes need as many environments, and these room "
            f"in buffer_size; num_envs is {num_envs} and buffer_size {room}.",
        )
        size = (room + num_envs) * (env.spec.max_steps + 1) * footprint(env, device)
        require_memory(size, f"buffer_size: {buffer_size} episodes of {env.spec.max_steps} steps")
        self.env, self.rng, self.kl_coef, self.updates = env, rng, float(kl_coef), updates
        net = build_network(network, env.spec, device)
        self.policy = NetworkPolicy(net=net, evaluate=evaluate)
        self.optimizer = optimizer(parameters=net.parameters())
        self.rollout = RolloutBuffer(env.spec.max_steps)
        state = env.reset(1, torch.Generator(device=rng.device).manual_seed(0))
        states = map_tensors(lambda field: field.unsqueeze(1).repeat_interleave(env.spec.max_steps + 1, 1), state)
        self.buffer = WeightedBuffer(room, Episodes(states, torch.zeros(1, device=device)))

    def observe(self, step: Transition) -> None:
        self.rollout.add(step._replace(observation=None))  # what is learned from is observed anew

    def update(self, progress: float) -> Metrics:
        """Updates at the end of each window of episodes."""
        if not self.rollout.full:
            return {}
        segment = self.rollout.take()
        reward = segment.reward.sum(0) / self.kl_coef
        states = map_tensors(
            lambda field, last: torch.cat([field, last.unsqueeze(0)]).transpose(0, 1), segment.state, segment.last
        )
        self.buffer.add(Episodes(states, reward), reward, segment.terminated[-1])
        metrics: Metrics = {}
        for i in range(self.updates):
            parts = [self.buffer.newest(self.newest, i * self.newest)] if self.newest else []
            if self.newest < self.batch_size:
                parts.append(self.buffer.draw(self.batch_size - self.newest, self.rng))
            loss, metrics = self._loss(join(*parts))
            self.optimizer.step(loss, progress)
        return metrics

    def _loss(self, batch: Episodes) -> tuple[Tensor, Metrics]:
        """Half the mean square of what is missing to the balance of each episode, and what to log."""
        assert isinstance(self.env, KnowsWays)
        states = map_tensors(lambda field: field.transpose(0, 1), batch.states)  # [L + 1, B, …]
        before, after = (
            flat(map_tensors(lambda field, at=at: field[at], states)) for at in (slice(-1), slice(1, None))
        )
        with torch.no_grad():
            action = self.env.action_between(before, after)
            observation, mask = self.policy.observe(self.env, before), self.env.action_mask(before)
        start = torch.zeros(self.env.spec.max_steps, self.batch_size, dtype=torch.bool, device=action.device)
        out = self.policy.forward(observation, mask, self.policy.initial_carry(self.batch_size), start)
        # Densities over all numbers of an action, whatever the network's own reduction is.
        log_prior, log_prob = (
            UnitNormal(m).evaluate_actions(action)[0] for m in (torch.zeros_like(action), out.policy.mode())
        )
        excess = (log_prob - log_prior).view_as(start).sum(0)  # [B]
        missing = excess - batch.reward + out.value.view_as(start)[0]
        log_z = -ranks.mean(missing.detach().mean())
        loss = 0.5 * (missing + log_z).square().mean()
        return loss, {"loss": loss.detach(), "log_z": log_z}

    def state_dict(self) -> dict[str, Any]:
        """What learning needs beyond the policy."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "rollout": self.rollout.state_dict(),
            "buffer": self.buffer.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state["optimizer"])
        self.rollout.load_state_dict(state["rollout"], example_transition(self.env, self.policy, self.rng))
        self.buffer.load_state_dict(state["buffer"])
