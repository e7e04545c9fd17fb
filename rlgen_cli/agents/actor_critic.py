"""Advantage actor-critic (A2C; Mnih et al. 2016) and, as its clipped form over several epochs, PPO (Schulman et al.
2017).

Deviations from the papers, numbered:

1. All environments step together, so A2C is the synchronous form; both use generalised advantages (Schulman et al.
   2016), and one shared body for policy and value.
2. The early stop by KL keeps weights and optimizer as they are for the rest of the update instead of leaving the loop,
   since looking at the number would make the host wait for the device.
3. Minibatches are drawn from single steps; with a recurrent policy, from whole stretches of environments, whose first
   memory is the one that acting had.
4. The learning rate and the entropy bonus follow the training's progress.

When to use it: for every action space; with continuous or mixed actions where no gradient leads through the
environment, and for tuning a pretrained policy (`ppo_tune`). PPO takes several passes over each rollout, A2C one.

What to expect: on the task of the comparison PPO ended highest, after DQN had been ahead for most of the training;
A2C needs more steps and less time for each (docs/results/agents.md). Too little entropy bonus ends in a policy that
does nothing.
"""

import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from rlgen_cli.core import ranks
from rlgen_cli.core.capacity import footprint, require_memory
from rlgen_cli.core.errors import require
from rlgen_cli.core.optimizer import Adam
from rlgen_cli.core.protocols import Env
from rlgen_cli.core.returns import lambda_returns
from rlgen_cli.core.schedules import Linear
from rlgen_cli.core.specs import Carry, EnvSpec, Metrics, Observation, Transition
from rlgen_cli.core.tree import map_tensors
from rlgen_cli.memory.rollouts import RolloutBuffer, Segment, flat, minibatches
from rlgen_cli.policies.actor import NetworkPolicy, PolicyOutput, build_network, example_transition
from rlgen_cli.policies.anchor import Anchor


class Batch(NamedTuple):
    """S steps of M environments to learn from; one step of S · M of them where nothing is remembered."""

    observation: Observation  # fields [S, M, …]
    mask: Tensor | None
    action: Tensor
    log_prob: Tensor  # [S, M], as are the following: under the policy that acted
    value: Tensor
    returns: Tensor
    advantage: Tensor
    start: Tensor
    carry: Carry  # fields [1, M, …], before the first step


class ActorCritic:
    """A policy and its value, learned from the newest `num_steps` steps of every environment.

    Args:
        network: builds a policy network from observation and action specs.
        anchor: keeps the policy close to a prior (policies/anchor.py).
        optimizer: builds the optimizer (core/optimizer.py) from parameters.
        objective: what is minimised (`Objective`).
        num_steps: steps per environment and update. update_epochs: passes over them.
        num_minibatches: updates per pass.
        gamma: discount per step. gae_lambda: λ of the advantages.
        target_kl: nats that the policy may move in one update, or null for any.
        evaluate: sample or mode, when it does not explore.

    Raises:
        UserError: for a value out of range.
    """

    by_rank = frozenset(["rollout"])

    @staticmethod
    def accepts(spec: EnvSpec) -> bool:
        """There is a policy for every action space."""
        return True

    def __init__(
        self,
        *,
        env: Env,
        rng: torch.Generator,
        num_envs: int,
        device: torch.device,
        network: Callable[..., nn.Module],
        anchor: Anchor,
        optimizer: Callable[..., Adam],
        objective: "Objective",
        num_steps: int,
        update_epochs: int,
        num_minibatches: int,
        gamma: float,
        gae_lambda: float,
        target_kl: float | None,
        evaluate: Literal["sample", "mode"],
    ) -> None:
        require(num_steps >= 1, f"num_steps: must be at least 1, got {num_steps}.")
        require(update_epochs >= 1, f"update_epochs: must be at least 1, got {update_epochs}.")
        require(num_minibatches >= 1, f"num_minibatches: must be at least 1, got {num_minibatches}.")
        require(0.0 <= gamma <= 1.0, f"gamma: must be in [0, 1], got {gamma}.")
        require(0.0 <= gae_lambda <= 1.0, f"gae_lambda: must be in [0, 1], got {gae_lambda}.")
        require(target_kl is None or target_kl > 0, f"target_kl: must be above 0, or null for none, got {target_kl}.")
        self.env, self.rng, self.gamma, self.gae_lambda = env, rng, float(gamma), float(gae_lambda)
        self.update_epochs, self.num_minibatches, self.target_kl = update_epochs, num_minibatches, target_kl
        self.objective, self.anchor = objective, anchor
        require_memory(
            num_steps * num_envs * footprint(env, device), f"num_steps: {num_steps} of {num_envs} environments"
        )
        net = build_network(network, env.spec, device)
        self.policy = NetworkPolicy(net=net, evaluate=evaluate)
        remembers = self.policy.initial_carry(1) is not None
        columns, what = (num_envs, "environments") if remembers else (num_steps * num_envs, "steps")
        fits = columns % num_minibatches == 0
        require(fits, f"num_minibatches: must divide {columns} {what}, got {num_minibatches}.")
        anchor.attach(net, lambda: build_network(network, env.spec, device), num_envs)
        self.optimizer = optimizer(parameters=net.parameters())
        self.rollout = RolloutBuffer(num_steps)

    def observe(self, step: Transition) -> None:
        self.rollout.add(step)

    def update(self, progress: float) -> Metrics:
        if not self.rollout.full:
            return {}
        batch = self._prepare(self.rollout.take())
        metrics: Metrics = {}
        going = torch.ones((), dtype=torch.bool, device=batch.start.device)
        for _ in range(self.update_epochs):
            for part in minibatches(batch, self.num_minibatches, batch.start, self.rng):
                loss, metrics = self._loss(part, progress)
                if self.target_kl is None:
                    self.optimizer.step(loss, progress)
                else:
                    going = going & (ranks.mean(metrics["approx_kl"]) <= self.target_kl)
                    self.optimizer.step(loss, progress, keep=going)
        return metrics

    @torch.no_grad()
    def _prepare(self, segment: Segment) -> Batch:
        """Returns and advantages, and everything in the shape that minibatches are cut from."""
        start, mask = segment.starts(), self.env.action_mask(flat(segment.state))
        observation = flat(segment.observation)
        acted: PolicyOutput = segment.policy_output
        reward = segment.reward - self.anchor.take_penalty()
        last_mask, no_start = self.env.action_mask(segment.last), torch.zeros_like(start[:1])
        seen = self.policy.observe(self.env, segment.last)
        last = self.policy.forward(seen, last_mask, segment.last_carry, no_start).value
        following = torch.cat([acted.value[1:], last.unsqueeze(0)])
        returns = lambda_returns(reward.T, following.T, segment.terminated.T, self.gamma, self.gae_lambda).T
        advantage = returns - acted.value  # the generalised advantage estimate
        rows = start.shape if segment.carry is not None else (1, start.numel())

        def shaped(field: Tensor, leading: int) -> Tensor:
            return field.reshape(*rows, *field.shape[leading:])

        observation, mask = (map_tensors(lambda field: shaped(field, 1), part) for part in (observation, mask))
        first = map_tensors(lambda field: field[:1], segment.carry)
        steps = (segment.action, acted.log_prob, acted.value, returns, advantage, start)
        action, log_prob, value, returns, advantage, start = (shaped(field, 2) for field in steps)
        return Batch(observation, mask, action, log_prob, value, returns, advantage, start, first)

    def _loss(self, batch: Batch, progress: float) -> tuple[Tensor, Metrics]:
        """The objective of a minibatch, and what to log."""
        observation, mask, action = (
            map_tensors(lambda field: field.flatten(0, 1), part)
            for part in (batch.observation, batch.mask, batch.action)
        )
        carry = map_tensors(lambda field: field[0], batch.carry)
        out = self.policy.forward(observation, mask, carry, batch.start)
        log_prob, entropy = out.policy.evaluate_actions(action)
        flat_batch = [part.flatten() for part in (batch.log_prob, batch.value, batch.returns, batch.advantage)]
        return self.objective(log_prob, entropy, out.value, *flat_batch, progress=progress)

    def state_dict(self) -> dict[str, Any]:
        """What learning needs beyond the policy."""
        return {"optimizer": self.optimizer.state_dict(), "rollout": self.rollout.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state["optimizer"])
        observed = functools.partial(self.policy.observe, self.env)
        self.rollout.load_state_dict(state["rollout"], example_transition(self.env, self.policy, self.rng), observed)


class Objective:
    """PPO's eq. 9 (without a clip, the plain policy gradient), the value's squared error and the entropy.

    Args:
        clip_range: of the probability ratio (PPO), or null for none (A2C).
        clip_range_vf: how far the value may move from what it was when acting, or null for any distance.
        normalize_advantage: to mean 0 and deviation 1 in each minibatch, of all ranks.
        entropy_coef: weight of the entropy bonus, a schedule. value_coef: of the value's squared error.
    """

    def __init__(
        self,
        *,
        clip_range: float | None,
        clip_range_vf: float | None,
        normalize_advantage: bool,
        entropy_coef: Linear,
        value_coef: float,
    ) -> None:
        for name, value in (("clip_range", clip_range), ("clip_range_vf", clip_range_vf)):
            require(value is None or value > 0, f"{name}: must be above 0, or null for none, got {value}.")
        require(value_coef >= 0, f"value_coef: must be at least 0, got {value_coef}.")
        self.clip_range, self.clip_range_vf, self.normalize_advantage = clip_range, clip_range_vf, normalize_advantage
        self.entropy_coef, self.value_coef = entropy_coef, float(value_coef)

    def __call__(
        self, log_prob: Tensor, entropy: Tensor, value: Tensor, old_log_prob: Tensor, old_value: Tensor,
        returns: Tensor, advantage: Tensor, *, progress: float,
    ) -> tuple[Tensor, Metrics]:  # fmt: skip
        """The loss of B steps (all arguments [B]) at a time of the training, and what to log."""
        log_ratio = log_prob - old_log_prob
        if self.normalize_advantage:
            mean, deviation = ranks.moments(advantage)
            advantage = (advantage - mean) / (deviation + 1e-6)
        policy_loss = clipped_loss(log_ratio, advantage, self.clip_range)
        value_loss = value_error(value, old_value, returns, self.clip_range_vf)
        loss = policy_loss + self.value_coef * value_loss - self.entropy_coef(progress) * entropy.mean()
        metrics = {
            "policy_loss": policy_loss, "value_loss": value_loss, "entropy": entropy.mean(),
            "approx_kl": (log_ratio.exp() - 1 - log_ratio).mean(),
        }  # fmt: skip
        return loss, {name: value.detach() for name, value in metrics.items()}


def clipped_loss(log_ratio: Tensor, advantage: Tensor, clip_range: float | None) -> Tensor:
    """− E[min(ρ A, clip(ρ, 1 ± ε) A)], ρ = exp(log_ratio); without a clip − E[ρ A]. All [B]."""
    ratio = log_ratio.exp()
    gain = ratio * advantage
    if clip_range is not None:
        gain = torch.minimum(gain, ratio.clamp(1 - clip_range, 1 + clip_range) * advantage)
    return -gain.mean()


def value_error(value: Tensor, old: Tensor, returns: Tensor, clip_range: float | None) -> Tensor:
    """½ E[(V − R)²]; with a clip, the larger of this and the error of V held within ± clip of the old one."""
    error = (value - returns).square()
    if clip_range is not None:
        error = torch.maximum(error, (old + (value - old).clamp(-clip_range, clip_range) - returns).square())
    return 0.5 * error.mean()
