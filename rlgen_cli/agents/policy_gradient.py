"""Policy gradient: REINFORCE (Williams 1992) with a choice of baseline, and the pathwise gradient through environments
that are differentiable.

Deviations from the papers, numbered:
1. The discount of a step's own place in the episode (γ^t before each term) is left out, as is usual.
2. An update sees windows of `max_steps` steps. Where episodes may end early, steps of an episode that the window cuts
   off are not learned from.
3. The group baseline (GRPO, Shao et al. 2024, section 4.1) compares returns to go at the same step, which for a reward
   at the end is the comparison of finished samples.
4. Monte-Carlo rollouts (Yu et al. 2017, eq. 4) replace the return after each step by its mean over `rollouts`
   continuations by the same policy.
5. The pathwise gradient (Heess et al. 2015, with the environment itself as the model) unrolls whole episodes from
   the starts of those just played; the environment rounds with a straight-through gradient. Gradients pass through
   the sample, not through what the policy sees of it: that costs a third more and was not better.
"""

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

from rlgen_cli.policies.actor import Actor, Said
from rlgen_cli.core.errors import UserError, require
from rlgen_cli.memory.rollouts import Segment, SegmentMemory, flat
from rlgen_cli.policies.precision import Precision
from rlgen_cli.policies.anchor import Anchor
from rlgen_cli.core.returns import lambda_returns
from rlgen_cli.core.schedules import Linear
from rlgen_cli.core.tree import map_tensors, repeat
from rlgen_cli.core.types import Carry, Choice, Env, EnvSpec, Metrics, Reward, State, Transition


class PolicyGradient:
    """A policy learned from whole episodes.

    Args:
        network: builds a policy network from observation and action specs.
        estimator: score (REINFORCE, for any environment and reward) or pathwise (where both are differentiable).
        baseline: none; mean (a running mean for each step of the episode); learned (the network's value); or group
            (the mean over `group` episodes from one start).
        group: episodes from one start. rollouts: continuations from each step, 0 for the return that came.
        updates: of the pathwise estimator, for each window; each unrolls its own part of the starts.
        gamma: discount per step. normalise: advantages to deviation 1.
        entropy: weight of the entropy bonus, a schedule. value_weight: of the learned baseline's squared error.
        anchor: keeps the policy close to a prior (prior.py).
        evaluate: sample or mode, when it does not explore.

    Raises:
        UserError: for a value out of range, or an estimator or baseline that the environment or the reward rules out.
    """

    wants = "policy"

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
        precision: Precision,
        network: Callable[..., torch.nn.Module],
        estimator: Literal["score", "pathwise"],
        baseline: Literal["none", "mean", "learned", "group"],
        group: int,
        rollouts: int,
        updates: int,
        gamma: float,
        normalise: bool,
        entropy: Linear,
        value_weight: float,
        anchor: Anchor,
        learning_rate: Linear,
        max_grad_norm: float,
        evaluate: Literal["sample", "mode"],
    ) -> None:
        require(rollouts >= 0, f"rollouts: must be at least 0, got {rollouts}.")
        require(1 <= updates <= num_envs, f"updates: must be from 1 to num_envs = {num_envs}, got {updates}.")
        require(0.0 <= gamma <= 1.0, f"gamma: must be in [0, 1], got {gamma}.")
        require(value_weight >= 0, f"value_weight: must be at least 0, got {value_weight}.")
        require(max_grad_norm > 0, f"max_grad_norm: must be above 0, got {max_grad_norm}.")
        if baseline == "group":
            require(group >= 2, f"group: must be at least 2 with baseline=group, got {group}.")
            require(num_envs % group == 0, f"group: must divide num_envs = {num_envs}, got {group}.")
            require(env.spec.fixed_length, "baseline: group needs episodes of one length; use env.stop=false.")
        self.env, self.reward, self.rng, self.gamma = env, reward, rng, float(gamma)
        self.estimator, self.baseline, self.group = estimator, baseline, group if baseline == "group" else 1
        self.rollouts, self.updates, self.normalise = rollouts, updates, normalise
        self.entropy, self.value_weight, self.anchor = entropy, float(value_weight), anchor
        self.learning_rate, self.max_grad_norm = learning_rate, float(max_grad_norm)
        self.actor = Actor(env=env, network=network, device=device, precision=precision, evaluate=evaluate)
        self.anchor.attach(self.actor.net, self.actor.build, num_envs, env.spec)
        weights = [weight for weight in self.actor.net.parameters() if weight.requires_grad]
        self.weights, self.optimizer = weights, torch.optim.Adam(weights, learning_rate(0.0), eps=1e-5, foreach=True)
        self.memory = SegmentMemory(env.spec.max_steps)
        self.mean = torch.zeros(env.spec.max_steps, device=device)  # running mean of the return to go, by step
        self.seen = torch.zeros(env.spec.max_steps, device=device)  # how much of it has been filled in
        self.age = torch.zeros(num_envs, dtype=torch.long, device=device)  # steps into the episode at a window's start
        if estimator == "pathwise":
            self._check_paths(device)

    def _check_paths(self, device: torch.device) -> None:
        """Refuse what gradients cannot pass."""
        if not self.env.spec.differentiable:
            raise UserError(
                f"estimator: pathwise needs an environment that is differentiable in the action, and this one takes "
                f"{self.env.spec.action}; use env.action=stroke, or estimator=score."
            )
        rng = torch.Generator(device=device).manual_seed(0)
        total, _ = self._unroll(self.env.reset(2, rng), rng, 0.0)
        slopes = torch.autograd.grad(total.sum(), self.weights, allow_unused=True) if total.requires_grad else ()
        if not any(slope is not None and bool(slope.any()) for slope in slopes):
            raise UserError("estimator: pathwise needs a reward that is differentiable; use estimator=score.")

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
        segment, metrics = self.memory.take(), Metrics()
        if self.estimator == "score":
            return self._score_update(segment, self.entropy(progress))
        starts = map_tensors(lambda field: field[0], segment.state)
        for i in range(self.updates):
            start = map_tensors(lambda field, i=i: field[i :: self.updates], starts)
            total, metrics = self._unroll(start, self.rng, self.entropy(progress))
            self._descend(-total.mean())
            if "kl" in metrics:
                self.anchor.adapt(metrics["kl"])
        return metrics

    def _score_update(self, segment: Segment, entropy_weight: float) -> Metrics:
        """One step along E[Σ ∇ log π(a|s) · advantage]."""
        states, start, said = flat(segment.state), segment.starts(), segment.extras
        action = segment.action.flatten(0, 1)
        first = map_tensors(lambda field: field[0], segment.carry)
        out = self.actor.say(self.env, states, first, start)
        with torch.no_grad():
            metrics = self._charge(segment, states, said)
            returns = self._returns(segment, segment.reward - metrics.pop("price", 0.0))
            complete = segment.terminated.flip(0).cummax(0).values.flip(0)  # the episode ends within the window
            age, self.age = self._ages(start, segment.terminated)
            advantage = returns - self._baseline(returns, out.value.view_as(returns), age, complete)
            if self.normalise:
                advantage = advantage / (_mean(advantage.square(), complete).sqrt() + 1e-6)
        log_prob, entropies = (part.view_as(returns) for part in out.policy.judge(action))
        policy_loss, entropy = -_mean(log_prob * advantage, complete), _mean(entropies, complete)
        loss = policy_loss - entropy_weight * entropy
        if self.baseline == "learned":
            value_loss = 0.5 * _mean((out.value.view_as(returns) - returns).square(), complete)
            loss = loss + self.value_weight * value_loss
            metrics["value_loss"] = value_loss.detach()
        self._descend(loss)
        return metrics | {"policy_loss": policy_loss.detach(), "entropy": entropy.detach()}

    def _charge(self, segment: Segment, states: State, said: Said) -> Metrics:
        if self.anchor.net is None:
            return {}
        return self.anchor.charge(segment, said.log_prob, self.env.observe(states), self.env.action_mask(states))

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
        for _ in range(self.env.spec.max_steps - 1):
            choice = self.actor.act(self.env, state, carry, explore=True, rng=self.rng)
            state, carry = self.env.step(state, choice.action), choice.carry
            before, view, done = view, self.env.view(state), self.env.done(state)
            gained = self.reward(before, view, done).total
            total, discount = total + discount * gained * ~ended, discount * self.gamma
            ended = ended | done
        return total.view(*segment.reward.shape, self.rollouts).mean(2)

    def _baseline(self, returns: Tensor, value: Tensor, age: Tensor, complete: Tensor) -> Tensor:
        """What to expect, [T, N] or a shape that spreads to it."""
        if self.baseline == "learned":
            return value.detach()
        if self.baseline == "group":
            return returns.unflatten(1, (-1, self.group)).mean(2).repeat_interleave(self.group, 1)
        if self.baseline == "none":
            return torch.zeros_like(returns)
        expected = self.mean[age]
        self._fill(returns, age, complete)
        return expected

    def _fill(self, returns: Tensor, age: Tensor, complete: Tensor) -> None:
        """Move the running means a twentieth towards the returns of this window; the first ones are taken whole."""
        zero = torch.zeros_like(self.mean)
        count = zero.index_add(0, age.flatten(), complete.flatten().float())
        total = zero.index_add(0, age.flatten(), (returns * complete).flatten())
        rate = torch.where(self.seen > 0, 0.05, 1.0) * (count > 0)
        self.mean = self.mean + rate * (total / count.clamp(min=1) - self.mean)
        self.seen = self.seen + count

    def _ages(self, start: Tensor, terminated: Tensor) -> tuple[Tensor, Tensor]:
        """Steps into the episode at each step [T, N], and at the next window's start [N]."""
        age, ages = self.age, []
        for begins in start:
            age = torch.where(begins, 0, age)
            ages.append(age)
            age = age + 1
        return torch.stack(ages), torch.where(terminated[-1], 0, age)

    def _unroll(self, start: State, rng: torch.Generator, entropy_weight: float) -> tuple[Tensor, Metrics]:
        """Play from `start` with gradients from the rewards to the weights: discounted returns [N]."""
        state, carry = self.env.soften(start), self.carry(len(self.env.done(start)))  # type: ignore[attr-defined]
        view, prior_carry = self.env.view(state), carry
        none = torch.zeros_like(self.env.done(start)).unsqueeze(0)
        steps = self.env.spec.max_steps
        total, bonus, excess = torch.zeros(none.shape[1], device=none.device), 0.0, 0.0
        for t in range(steps):
            observation, mask = self.env.observe(state), self.env.action_mask(state)
            observation = map_tensors(Tensor.detach, observation)
            with self.actor.precision():
                out = self.actor.net(observation, mask, carry, none)
            action, log_prob = out.policy.draw(rng)
            state, carry = self.env.step(state, action), out.carry
            before, view = view, self.env.view(state)
            total = total + self.gamma**t * self.reward(before, view, self.env.done(state)).total
            bonus = bonus + out.policy.judge(action)[1]
            if self.anchor.net is not None:
                prior, prior_carry = self.anchor.log_prob(observation, mask, prior_carry, none, action)
                excess = excess + log_prob - prior
        metrics: Metrics = {
            "unrolled": total.detach().mean(),
            "entropy": torch.as_tensor(bonus).detach().mean() / steps,
        }
        if self.anchor.net is not None:
            metrics |= {"kl": torch.as_tensor(excess).detach().mean() / steps, "beta": self.anchor.beta}
            total = total - self.anchor.beta * excess
        return total + entropy_weight * bonus, metrics

    def _descend(self, loss: Tensor) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        for weight, slope in zip(self.weights, torch.autograd.grad(loss, self.weights, allow_unused=True), strict=True):
            weight.grad = slope
        torch.nn.utils.clip_grad_norm_(self.weights, self.max_grad_norm)
        self.optimizer.step()

    def state_dict(self) -> dict[str, Any]:
        return {
            "network": self.actor.net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "anchor": self.anchor.state_dict(),
            "memory": self.memory.state_dict(),
            "mean": self.mean,
            "seen": self.seen,
            "age": self.age,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.actor.net.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.anchor.load_state_dict(state["anchor"])
        self.memory.load_state_dict(state["memory"], self.actor.example(self.env))
        self.mean, self.seen, self.age = state["mean"], state["seen"], state["age"]


def _mean(x: Tensor, counted: Tensor) -> Tensor:
    """Mean of x [T, N] where `counted`."""
    return (x * counted).sum() / counted.sum().clamp(min=1)
