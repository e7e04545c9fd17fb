"""The pathwise gradient: through environments and rewards that are differentiable (Heess et al. 2015, with the
environment itself as the model).

Deviations from the paper, numbered:

1. Whole episodes are unrolled from the starts of those just played; the environment rounds with a straight-through
   gradient.
2. Gradients pass through the sample, not through what the policy sees of it: that costs a third more and was not
   better.

When to use it: wherever it can be: continuous actions, and an environment and a reward with gradients
(`brush=stroke`, a generator that is steered by `continuous_step` or `set_latent`).

What to expect: the least error of the agents that were compared, in painting (docs/results/learning_to_paint.md) and
in repairs (docs/results/repair_inpaint.md); with a discriminator as reward, digits from nothing in eight minutes
(docs/results/digits.md).
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from rlgen_cli.core import ranks
from rlgen_cli.core.errors import UserError, require
from rlgen_cli.core.optimizer import Adam
from rlgen_cli.core.protocols import Differentiable, Env, Reward
from rlgen_cli.core.schedules import Linear
from rlgen_cli.core.specs import EnvSpec, Metrics, State, Transition
from rlgen_cli.core.tree import map_tensors
from rlgen_cli.memory.rollouts import RolloutBuffer
from rlgen_cli.policies.actor import NetworkPolicy, build_network, example_transition
from rlgen_cli.policies.anchor import Anchor, divergence


class Unrolled(NamedTuple):
    """N episodes with gradients to the weights, each summed over its steps."""

    returns: Tensor  # [N], discounted
    entropy: Tensor  # [N]
    excess: Tensor  # [N], whose mean is the KL from the prior; 0 without one


class Pathwise:
    """A policy learned by the gradient of the return itself.

    Args:
        network: builds a policy network from observation and action specs.
        anchor: keeps the policy close to a prior (policies/anchor.py).
        optimizer: builds the optimizer (core/optimizer.py) from parameters.
        gradient_steps: updates for each window of episodes; each unrolls its own part of the starts.
        gamma: discount per step.
        entropy_coef: weight of the entropy bonus, a schedule.
        evaluate: sample or mode, when it does not explore.

    Raises:
        UserError: for a value out of range, or an environment or reward without a gradient.
    """

    by_rank = frozenset(["rollout"])

    @staticmethod
    def accepts(spec: EnvSpec) -> bool:
        """Gradients must reach the action."""
        return spec.differentiable

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
        gradient_steps: int,
        gamma: float,
        entropy_coef: Linear,
        evaluate: Literal["sample", "mode"],
    ) -> None:
        fits = 1 <= gradient_steps <= num_envs
        require(fits, f"gradient_steps: must be from 1 to num_envs = {num_envs}, got {gradient_steps}.")
        require(0.0 <= gamma <= 1.0, f"gamma: must be in [0, 1], got {gamma}.")
        self.env, self.reward, self.rng, self.gamma = env, reward, rng, float(gamma)
        self.gradient_steps, self.entropy_coef, self.anchor = gradient_steps, entropy_coef, anchor
        net = build_network(network, env.spec, device)
        self.policy = NetworkPolicy(net=net, evaluate=evaluate)
        anchor.attach(net, lambda: build_network(network, env.spec, device), num_envs)
        self.optimizer = optimizer(parameters=net.parameters())
        self.rollout = RolloutBuffer(env.spec.max_steps)
        self._check_reward()

    def _check_reward(self) -> None:
        """Refuse a reward that gradients cannot pass."""
        rng = torch.Generator(device=self.rng.device).manual_seed(0)
        if not self._unroll(self.env.reset(2, rng), rng).returns.requires_grad:
            raise UserError("_target_: pathwise needs a reward that is differentiable; use agent=policy_gradient.")

    def observe(self, step: Transition) -> None:
        self.rollout.add(step._replace(observation=None))  # what is unrolled is observed anew

    def update(self, progress: float) -> Metrics:
        if not self.rollout.full:
            return {}
        starts, metrics = map_tensors(lambda field: field[0], self.rollout.take().state), Metrics()
        self.anchor.take_penalty()  # of the steps played; what counts is that of the steps unrolled
        for i in range(self.gradient_steps):
            start = map_tensors(lambda field, i=i: field[i :: self.gradient_steps], starts)
            unrolled, steps = self._unroll(start, self.rng), self.env.spec.max_steps
            objective = unrolled.returns + self.entropy_coef(progress) * unrolled.entropy
            if self.anchor.active:
                objective = objective - self.anchor.beta * unrolled.excess
                self.anchor.kl = ranks.mean(unrolled.excess.detach().mean()) / steps
            self.optimizer.step(-objective.mean(), progress)
            entropy = unrolled.entropy.detach().mean() / steps
            metrics = {"return": unrolled.returns.detach().mean(), "entropy": entropy}
        return metrics

    def _unroll(self, start: State, rng: torch.Generator) -> Unrolled:
        """Play from `start` with gradients from the rewards to the weights."""
        assert isinstance(self.env, Differentiable)
        env: Env = self.env
        state = self.env.differentiable_state(start)
        none = torch.zeros_like(env.done(start)).unsqueeze(0)
        n, zero = none.shape[1], torch.zeros(none.shape[1], device=none.device)
        view, carry, prior_carry = env.view(state), self.policy.initial_carry(n), self.anchor.initial_carry(n)
        returns, entropy, excess, known = zero, zero, zero, dict[str, Tensor]()
        for t in range(env.spec.max_steps):
            observation, mask = env.observe(state), env.action_mask(state)
            observation = map_tensors(Tensor.detach, observation)
            out = self.policy.forward(observation, mask, carry, none)
            action, log_prob = out.policy.draw(rng)
            state, carry = env.step(state, action), out.carry
            before, view = view, env.view(state)
            ending = t + 1 == env.spec.max_steps or not env.spec.fixed_length
            scored = self.reward(before, view, env.done(state), known=known, ending=ending)
            returns, known = returns + self.gamma**t * scored.total, scored.scores
            entropy = entropy + out.policy.evaluate_actions(action)[1]
            if self.anchor.active:
                prior, prior_carry = self.anchor.policy(observation, mask, prior_carry, none)
                excess = excess + divergence(out.policy, prior, action, log_prob)
        return Unrolled(returns, entropy, excess)

    def state_dict(self) -> dict[str, Any]:
        """What learning needs beyond the policy."""
        return {"optimizer": self.optimizer.state_dict(), "rollout": self.rollout.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state["optimizer"])
        self.rollout.load_state_dict(state["rollout"], example_transition(self.env, self.policy, self.rng))
