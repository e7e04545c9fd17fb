"""Policy gradient: REINFORCE (Williams 1992) with a choice of baseline.

Deviations from the papers, numbered:

1. The discount of a step's own place in the episode (γ^t before each term) is left out, as is usual.
2. An update sees the newest `max_steps` steps. Where episodes may end early, it also sees as many steps before them,
   and learns from each episode once, when its end is there: leaving out those that an update's first or last step cuts
   off would leave out the long ones. The steps of such an episode that an earlier policy took are not reweighted.
3. Monte-Carlo rollouts (Yu et al. 2017, eq. 4) replace the return after each step by its mean over `rollouts`
   continuations by the same policy. With an anchor, a step then pays for its own action's distance from the prior; what
   its continuations would pay is left out.
4. With several minibatches (`num_minibatches`), the later ones learn from what an earlier policy did, which is not
   reweighted.

When to use it: for episodes of one or few steps (`steering=set_latent`, `env.max_steps=1`), for a reward without a
gradient at the end of an episode, and with `baseline=group` where many samples of one start can be compared.

What to expect: it steers a generator as well as anything here does (docs/results/steer.md) and repairs pictures
(docs/results/repair_inpaint.md). Over forty steps of drawing it learns with several updates of each window; with one it
ended as a blank canvas (docs/results/agents.md).
"""

import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from rlgen_cli.agents.baselines import Baseline, GroupMean, KeepsStatistics, Steps
from rlgen_cli.core import ranks
from rlgen_cli.core.errors import require
from rlgen_cli.core.optimizer import Adam
from rlgen_cli.core.protocols import Env, Reward
from rlgen_cli.core.returns import lambda_returns
from rlgen_cli.core.schedules import Linear
from rlgen_cli.core.specs import Carry, EnvSpec, Metrics, Transition
from rlgen_cli.core.tree import map_tensors, repeat
from rlgen_cli.memory.rollouts import RolloutBuffer, Segment, flat, minibatches
from rlgen_cli.policies.actor import NetworkPolicy, build_network, example_transition
from rlgen_cli.policies.anchor import Anchor


class Batch(NamedTuple):
    """T steps of N environments, or of some of them, [T, N, …] each."""

    observation: Any
    mask: Tensor | None
    carry: Carry
    start: Tensor
    action: Tensor
    returns: Tensor
    advantage: Tensor
    counted: Tensor  # bool, learned from


class PolicyGradient:
    """A policy learned from whole episodes by the score function.

    Args:
        network: builds a policy network from observation and action specs.
        anchor: keeps the policy close to a prior (policies/anchor.py).
        optimizer: builds the optimizer (core/optimizer.py) from parameters.
        baseline: what a return is compared with (baselines.py).
        rollouts: continuations from each step, 0 for the return that came.
        num_minibatches: updates for each window of episodes; each takes its own part of the environments.
        gamma: discount per step. normalize_advantage: to deviation 1.
        entropy_coef: weight of the entropy bonus, a schedule.
        evaluate: sample or mode, when it does not explore.

    Raises:
        UserError: for a value out of range.
    """

    by_rank = frozenset(["rollout", "age", "penalty"])

    @staticmethod
    def accepts(spec: EnvSpec) -> bool:
        """There is a policy for every action space."""
        return True

    def __init__(
        self,
        *,
        env: Env,
        reward: Reward,
        rng: torch.Generator,
        num_envs: int,
        device: torch.device,
        network: Callable[..., nn.Module],
        anchor: Anchor,
        optimizer: Callable[..., Adam],
        baseline: Baseline,
        rollouts: int,
        num_minibatches: int,
        gamma: float,
        normalize_advantage: bool,
        entropy_coef: Linear,
        evaluate: Literal["sample", "mode"],
    ) -> None:
        require(rollouts >= 0, f"rollouts: must be at least 0, got {rollouts}.")
        require(0.0 <= gamma <= 1.0, f"gamma: must be in [0, 1], got {gamma}.")
        fits = num_minibatches >= 1 and num_envs % num_minibatches == 0
        require(fits, f"num_minibatches: must divide num_envs = {num_envs}, got {num_minibatches}.")
        self.num_minibatches = num_minibatches
        self.env, self.reward, self.rng, self.gamma = env, reward, rng, float(gamma)
        self.baseline, self.rollouts, self.normalize_advantage = baseline, rollouts, normalize_advantage
        self.group_size = baseline.group_size if isinstance(baseline, GroupMean) else 1
        self.entropy_coef, self.anchor = entropy_coef, anchor
        net = build_network(network, env.spec, device)
        self.policy = NetworkPolicy(net=net, evaluate=evaluate)
        anchor.attach(net, lambda: build_network(network, env.spec, device), num_envs)
        self.optimizer = optimizer(parameters=net.parameters())
        steps = env.spec.max_steps
        self.rollout = RolloutBuffer(steps, overlap=0 if env.spec.fixed_length else steps)
        self.age = torch.zeros(num_envs, dtype=torch.long, device=device)  # steps into the episode, as a segment begins
        self.penalty: Tensor | float = 0.0  # the anchor's, of the steps that the next segment will see again

    def observe(self, step: Transition) -> None:
        self.rollout.add(step)

    def update(self, progress: float) -> Metrics:
        """One step along E[Σ ∇ log π(a|s) · advantage], once enough steps are there."""
        if not self.rollout.full:
            return {}
        old = self.rollout.old
        segment = self.rollout.take()
        start = segment.starts()
        mask = map_tensors(lambda field: field.view(*start.shape, -1), self.env.action_mask(flat(segment.state)))
        with torch.no_grad():
            reward = segment.reward - self._penalty(old)
            returns = self._returns(segment, reward)
            counted = whole_episodes(segment.terminated, old)
            steps = Steps(returns, segment.policy_output.value, self._ages(start, segment.terminated), counted)
            advantage = returns - self.baseline(steps)
            if self.normalize_advantage:
                advantage = advantage / (ranks.mean(mean_of(advantage.square(), counted)).sqrt() + 1e-6)
        metrics: Metrics = {}
        whole = Batch(segment.observation, mask, segment.carry, start, segment.action, returns, advantage, counted)
        for batch in minibatches(whole, self.num_minibatches, start, self.rng):
            loss, metrics = self._loss(batch, progress)
            self.optimizer.step(loss, progress)
        return metrics

    def _loss(self, batch: Batch, progress: float) -> tuple[Tensor, Metrics]:
        """− E[log π(a|s) · advantage] and what else is minimised, and what to log."""
        first = map_tensors(lambda field: field[0], batch.carry)
        out = self.policy.forward(flat(batch.observation), flat(batch.mask), first, batch.start)
        log_prob, entropies = (
            part.view_as(batch.returns) for part in out.policy.evaluate_actions(batch.action.flatten(0, 1))
        )
        policy_loss, entropy = -mean_of(log_prob * batch.advantage, batch.counted), mean_of(entropies, batch.counted)
        loss = policy_loss - self.entropy_coef(progress) * entropy
        metrics = {"policy_loss": policy_loss.detach(), "entropy": entropy.detach()}
        if self.baseline.value_coef:
            error = out.value.view_as(batch.returns) - batch.returns
            value_loss = 0.5 * mean_of(error.square(), batch.counted)
            loss = loss + self.baseline.value_coef * value_loss
            metrics["value_loss"] = value_loss.detach()
        return loss, metrics

    def _penalty(self, old: int) -> Tensor | float:
        """The anchor's price of every step of the segment, [T, N], whose first `old` steps had theirs before."""
        new = self.anchor.take_penalty()
        if not isinstance(new, Tensor):
            return new
        whole = torch.cat([self.penalty, new]) if old and isinstance(self.penalty, Tensor) else new
        self.penalty = whole[len(whole) - self.rollout.overlap :] if self.rollout.overlap else 0.0
        return whole

    def _returns(self, segment: Segment, reward: Tensor) -> Tensor:
        """Returns to go, [T, N]; with rollouts, the step's reward and the mean of what continuations brought."""
        if self.rollouts:
            return reward + self.gamma * self._continue(segment)
        zero = torch.zeros_like(reward)
        return lambda_returns(reward.T, zero.T, segment.terminated.T, self.gamma, 1.0).T

    def _continue(self, segment: Segment) -> Tensor:
        """Mean return of `rollouts` continuations from the state after each step, [T, N]; 0 where the episode ended."""
        state, carry = (repeat(flat(tree), self.rollouts) for tree in segment.following())
        ended = segment.terminated.flatten().repeat_interleave(self.rollouts)
        total, discount, view = torch.zeros(len(ended), device=ended.device), 1.0, self.env.view(state)
        known: dict[str, Tensor] = {}
        for _ in range(self.env.spec.max_steps - 1):
            observation, mask = self.env.observe(state), self.env.action_mask(state)
            decision = self.policy.act(observation, mask, carry, explore=True, rng=self.rng)
            state, carry = self.env.step(state, decision.action), decision.carry
            before, view, done = view, self.env.view(state), self.env.done(state)
            scored = self.reward(before, view, done, known=known)
            total, discount = total + discount * scored.total * ~ended, discount * self.gamma
            known = scored.scores
            ended = ended | done
        return total.view(*segment.reward.shape, self.rollouts).mean(2)

    def _ages(self, start: Tensor, terminated: Tensor) -> Tensor:
        """Steps into the episode at each step of the segment, [T, N]; keeps the age at the next segment's start."""
        age, ages = self.age, []
        for begins in start:
            age = torch.where(begins, 0, age)
            ages.append(age)
            age = age + 1
        ages.append(torch.where(terminated[-1], 0, age))
        self.age = ages[len(start) - self.rollout.overlap]
        return torch.stack(ages[:-1])

    def state_dict(self) -> dict[str, Any]:
        """What learning needs beyond the policy."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "rollout": self.rollout.state_dict(),
            "age": self.age,
            "penalty": self.penalty,
            "baseline": self.baseline.state_dict() if isinstance(self.baseline, KeepsStatistics) else {},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state["optimizer"])
        observed = functools.partial(self.policy.observe, self.env)
        self.rollout.load_state_dict(state["rollout"], example_transition(self.env, self.policy, self.rng), observed)
        self.age, self.penalty = state["age"], state["penalty"]
        if isinstance(self.baseline, KeepsStatistics):
            self.baseline.load_state_dict(state["baseline"])


def whole_episodes(terminated: Tensor, old: int) -> Tensor:
    """Bool [T, N]: the step's episode ends within the segment, and not already among its first `old` steps, which an
    earlier segment has learned from."""
    ends = terminated.flip(0).cummax(0).values.flip(0)
    if old == 0:
        return ends
    ended_before = terminated[:old].flip(0).cummax(0).values.flip(0)
    return torch.cat([ends[:old] & ~ended_before, ends[old:]])


def mean_of(x: Tensor, counted: Tensor) -> Tensor:
    """Mean of x [T, N] where `counted`: a rank's part of it, of which the mean over all ranks is the mean of all."""
    return (x * counted).sum() / ranks.mean(counted.sum()).clamp(min=1)
