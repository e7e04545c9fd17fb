"""A policy network at work in an environment: what agents that learn a policy share."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from rlgen_cli.policies.distributions import Distribution
from rlgen_cli.policies.policy_network import Output
from rlgen_cli.policies.precision import Precision
from rlgen_cli.core.types import Carry, Choice, Env, State, Transition


def taught(env: Any, net: nn.Module, tokens: Tensor, prime: Tensor) -> tuple[Distribution, Tensor]:
    """What a policy network says of each token of finished sequences [N, T, F] when it is shown the ones before, and
    these tokens as actions; both of T · N rows, step by step."""
    n, length = len(tokens), tokens.shape[1]
    lessons = env.lessons(tokens, prime)
    start = torch.zeros(length, n, dtype=torch.bool, device=tokens.device)
    out = net(env.observe(lessons), env.action_mask(lessons), net.carry(n), start)  # type: ignore[operator]
    action = tokens.transpose(0, 1).flatten(0, 1)  # [T · N, F]
    return out.policy, action.squeeze(1) if action.shape[1] == 1 else action


class Said(NamedTuple):
    """What the policy said when it acted."""

    log_prob: Tensor  # [N], of the action
    value: Tensor  # [N]


class Actor:
    """`evaluate` says how it acts when it does not explore: sample from the policy, or take its mode."""

    def __init__(
        self,
        *,
        env: Env,
        network: Callable[..., nn.Module],
        device: torch.device,
        precision: Precision,
        evaluate: Literal["sample", "mode"],
    ) -> None:
        self.device, self.precision, self.evaluate = device, precision, evaluate
        self.network, self.spec = network, env.spec
        self.net = self.build()

    def build(self) -> nn.Module:
        """A fresh network."""
        net = self.network(observation=self.spec.observation, action=self.spec.action).eval()  # no dropout
        return net.to(self.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def carry(self, n: int) -> Carry:
        return self.net.carry(n)  # type: ignore[operator]

    def say(self, env: Env, state: State, carry: Carry, start: Tensor) -> Output:
        """The network on T · N states, T steps of N environments; `start` bool [T, N]."""
        with self.precision():
            return self.net(env.observe(state), env.action_mask(state), carry, start)

    @torch.no_grad()
    def act(self, env: Env, state: State, carry: Carry, *, explore: bool, rng: torch.Generator) -> Choice:
        start = torch.zeros_like(env.done(state)).unsqueeze(0)
        out = self.say(env, state, carry, start)
        if explore:
            action, log_prob = out.policy.draw(rng)
            return Choice(action, out.carry, Said(log_prob, out.value))
        return Choice(out.policy.draw(rng)[0] if self.evaluate == "sample" else out.policy.mode(), out.carry)

    def example(self, env: Env) -> Transition:
        """A transition of one environment: it gives the types of the trees in a checkpoint."""
        rng = torch.Generator(device=self.device).manual_seed(0)
        state, carry = env.reset(1, rng), self.carry(1)
        choice = self.act(env, state, carry, explore=True, rng=rng)
        zero, done = torch.zeros(1, device=self.device), env.done(state)
        return Transition(state, choice.action, zero, zero, state, done, carry, choice.carry, choice.extras)
