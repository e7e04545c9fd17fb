"""Advantage actor-critic (A2C; Mnih et al. 2016) and, as its clipped form over several epochs, PPO (Schulman et al.
2017).

Deviations from the papers, numbered:
1. All environments step together, so A2C is the synchronous form; both use generalised advantages (Schulman et al.
   2016), and one shared body for policy and value.
2. The early stop by KL freezes the weights for the rest of the update instead of leaving the loop, since looking at
   the number would make the host wait for the device.
3. Minibatches are drawn from single steps; with a memory, from whole stretches of environments, whose first memory is
   the one that acting had.
4. The learning rate and the entropy bonus follow the training's progress.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from rlgen_cli.policies.actor import Actor, Said
from rlgen_cli.core.errors import require
from rlgen_cli.memory.rollouts import Segment, SegmentMemory, flat
from rlgen_cli.policies.precision import Precision
from rlgen_cli.policies.anchor import Anchor
from rlgen_cli.core.returns import lambda_returns
from rlgen_cli.core.schedules import Linear
from rlgen_cli.core.tree import map_tensors
from rlgen_cli.core.types import Carry, Choice, Env, EnvSpec, Metrics, Observation, State, Transition


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
    """A policy and its value, learned from the newest `rollout` steps of every environment.

    Args:
        network: builds a policy network from observation and action specs.
        rollout: steps per environment and update. epochs: passes over them. minibatches: updates per pass.
        gamma: discount per step. trace: λ of the advantages.
        clip: of the probability ratio (PPO), or null for none (A2C).
        value_clip: how far the value may move from what it was when acting, or null for any distance.
        normalise: advantages to mean 0 and deviation 1 in each minibatch.
        stop_kl: nats that the policy may move in one update, or null for any.
        entropy: weight of the entropy bonus, a schedule. value_weight: of the value's squared error.
        anchor: keeps the policy close to a prior (prior.py).
        evaluate: sample or mode, when it does not explore.

    Raises:
        UserError: for a value out of range.
    """

    group, wants = 1, "policy"

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
        precision: Precision,
        network: Callable[..., torch.nn.Module],
        rollout: int,
        epochs: int,
        minibatches: int,
        gamma: float,
        trace: float,
        clip: float | None,
        value_clip: float | None,
        normalise: bool,
        stop_kl: float | None,
        entropy: Linear,
        value_weight: float,
        anchor: Anchor,
        learning_rate: Linear,
        max_grad_norm: float,
        evaluate: Literal["sample", "mode"],
    ) -> None:
        require(rollout >= 1, f"rollout: must be at least 1, got {rollout}.")
        require(epochs >= 1, f"epochs: must be at least 1, got {epochs}.")
        require(minibatches >= 1, f"minibatches: must be at least 1, got {minibatches}.")
        require(0.0 <= gamma <= 1.0, f"gamma: must be in [0, 1], got {gamma}.")
        require(0.0 <= trace <= 1.0, f"trace: must be in [0, 1], got {trace}.")
        for name, value in (("clip", clip), ("value_clip", value_clip), ("stop_kl", stop_kl)):
            require(value is None or value > 0, f"{name}: must be above 0, or null for none, got {value}.")
        require(value_weight >= 0, f"value_weight: must be at least 0, got {value_weight}.")
        require(max_grad_norm > 0, f"max_grad_norm: must be above 0, got {max_grad_norm}.")
        self.env, self.rng, self.gamma, self.trace = env, rng, float(gamma), float(trace)
        self.epochs, self.minibatches, self.normalise = epochs, minibatches, normalise
        self.clip, self.value_clip, self.stop_kl = clip, value_clip, stop_kl
        self.entropy, self.value_weight, self.anchor = entropy, float(value_weight), anchor
        self.learning_rate, self.max_grad_norm = learning_rate, float(max_grad_norm)
        self.actor = Actor(env=env, network=network, device=device, precision=precision, evaluate=evaluate)
        remembers = self.actor.carry(1) is not None
        columns = num_envs if remembers else rollout * num_envs
        what = "environments" if remembers else "steps"
        require(columns % minibatches == 0, f"minibatches: must divide {columns} {what}, got {minibatches}.")
        self.anchor.attach(self.actor.net, self.actor.build, num_envs, env.spec)
        weights = [weight for weight in self.actor.net.parameters() if weight.requires_grad]
        self.weights, self.optimizer = weights, torch.optim.Adam(weights, learning_rate(0.0), eps=1e-5, foreach=True)
        self.memory = SegmentMemory(rollout)

    def carry(self, n: int) -> Carry:
        return self.actor.carry(n)

    def act(self, env: Env, state: State, carry: Carry, *, explore: bool, rng: torch.Generator) -> Choice:
        return self.actor.act(env, state, carry, explore=explore, rng=rng)

    def observe(self, transition: Transition) -> None:
        self.memory.add(transition)

    def update(self, progress: float) -> Metrics:
        if not self.memory.full:
            return {}
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate(progress)
        batch, metrics = self._prepare(self.memory.take())
        going = torch.ones((), dtype=torch.bool, device=batch.start.device)
        for _ in range(self.epochs):
            for part in self._parts(batch):
                loss, learned = self._loss(part, self.entropy(progress))
                if self.stop_kl is not None:
                    going = going & (learned["moved"] <= self.stop_kl)
                self._descend(loss, going)
                metrics |= learned
        return metrics

    @torch.no_grad()
    def _prepare(self, segment: Segment) -> tuple[Batch, Metrics]:
        """Returns and advantages, and everything in the shape that minibatches are cut from."""
        states, start = flat(segment.state), segment.starts()
        observation, mask = self.env.observe(states), self.env.action_mask(states)
        said: Said = segment.extras
        metrics = self.anchor.charge(segment, said.log_prob, observation, mask)
        reward = segment.reward - metrics.pop("price", 0.0)
        last = self.actor.say(self.env, segment.last, segment.last_carry, torch.zeros_like(start[:1])).value
        following = torch.cat([said.value[1:], last.unsqueeze(0)])
        returns = lambda_returns(reward.T, following.T, segment.terminated.T, self.gamma, self.trace).T
        advantage = returns - said.value  # the generalised advantage estimate
        rows = start.shape if segment.carry is not None else (1, start.numel())

        def shaped(field: Tensor, leading: int) -> Tensor:
            return field.reshape(*rows, *field.shape[leading:])

        observation, mask = (map_tensors(lambda field: shaped(field, 1), part) for part in (observation, mask))
        first = map_tensors(lambda field: field[:1], segment.carry)
        steps = (segment.action, said.log_prob, said.value, returns, advantage, start)
        action, log_prob, value, returns, advantage, start = (shaped(field, 2) for field in steps)
        return Batch(observation, mask, action, log_prob, value, returns, advantage, start, first), metrics

    def _parts(self, batch: Batch) -> list[Batch]:
        """The batch, cut into minibatches at random."""
        if self.minibatches == 1:
            return [batch]
        columns = batch.start.shape[1]
        order = torch.randperm(columns, generator=self.rng, device=batch.start.device)
        return [
            map_tensors(lambda field, chosen=chosen: field[:, chosen], batch)
            for chosen in order.chunk(self.minibatches)
        ]

    def _loss(self, batch: Batch, entropy_weight: float) -> tuple[Tensor, Metrics]:
        """PPO's eq. 9 (with clip null, the plain policy gradient), the value's squared error and the entropy."""
        observation, mask, action = (
            map_tensors(lambda field: field.flatten(0, 1), part)
            for part in (batch.observation, batch.mask, batch.action)
        )
        carry = map_tensors(lambda field: field[0], batch.carry)
        with self.actor.precision():
            out = self.actor.net(observation, mask, carry, batch.start)
        log_prob, entropy = out.policy.judge(action)
        log_ratio = log_prob - batch.log_prob.flatten()
        advantage = batch.advantage.flatten()
        if self.normalise:
            advantage = (advantage - advantage.mean()) / (advantage.std(correction=0) + 1e-6)
        policy_loss = clipped_loss(log_ratio, advantage, self.clip)
        value_loss = value_error(out.value, batch.value.flatten(), batch.returns.flatten(), self.value_clip)
        loss = policy_loss + self.value_weight * value_loss - entropy_weight * entropy.mean()
        metrics = {
            "policy_loss": policy_loss, "value_loss": value_loss, "entropy": entropy.mean(),
            "moved": (log_ratio.exp() - 1 - log_ratio).mean(),
        }  # fmt: skip
        return loss, {name: value.detach() for name, value in metrics.items()}

    def _descend(self, loss: Tensor, going: Tensor) -> None:
        """One gradient step, undone where the policy has moved too far already."""
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.weights, self.max_grad_norm)
        if self.stop_kl is None:
            self.optimizer.step()
            return
        before = [weight.detach().clone() for weight in self.weights]
        self.optimizer.step()
        with torch.no_grad():
            for weight, old in zip(self.weights, before, strict=True):
                weight.copy_(torch.where(going, weight, old))

    def state_dict(self) -> dict[str, Any]:
        return {
            "network": self.actor.net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "anchor": self.anchor.state_dict(),
            "memory": self.memory.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.actor.net.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.anchor.load_state_dict(state["anchor"])
        self.memory.load_state_dict(state["memory"], self.actor.example(self.env))


def clipped_loss(log_ratio: Tensor, advantage: Tensor, clip: float | None) -> Tensor:
    """− E[min(ρ A, clip(ρ, 1 ± ε) A)], ρ = exp(log_ratio); without a clip − E[ρ A]. All [B]."""
    ratio = log_ratio.exp()
    gain = ratio * advantage
    if clip is not None:
        gain = torch.minimum(gain, ratio.clamp(1 - clip, 1 + clip) * advantage)
    return -gain.mean()


def value_error(value: Tensor, old: Tensor, returns: Tensor, clip: float | None) -> Tensor:
    """½ E[(V − R)²]; with a clip, the larger of this and the error of V held within ± clip of the old one."""
    error = (value - returns).square()
    if clip is not None:
        error = torch.maximum(error, (old + (value - old).clamp(-clip, clip) - returns).square())
    return 0.5 * error.mean()
