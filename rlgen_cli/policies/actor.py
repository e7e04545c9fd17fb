"""A policy network at work: what agents that learn a policy share."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from rlgen_cli.core.protocols import Env, TeachesSequences
from rlgen_cli.core.specs import Carry, Decision, EnvSpec, Observation, State, Transition
from rlgen_cli.core.tree import map_tensors
from rlgen_cli.policies.distributions import Distribution
from rlgen_cli.policies.encoders import prepared
from rlgen_cli.policies.policy_network import Output


class PolicyOutput(NamedTuple):
    """What the policy said when it acted."""

    log_prob: Tensor  # [N], of the action
    value: Tensor  # [N]


class NetworkPolicy:
    """Acts by a policy network; `evaluate` says how, when it does not explore: it samples, or takes the mode."""

    def __init__(self, *, net: nn.Module, evaluate: Literal["sample", "mode"]) -> None:
        self.net: Any = net
        self.evaluate = evaluate

    def initial_carry(self, n: int) -> Carry:
        return self.net.initial_carry(n)

    def observe(self, env: Env, state: State) -> Observation:
        """What the network reads of states, prepared for several passes."""
        return prepared(self.net, env.observe(state))

    def forward(self, observation: Observation, mask: Tensor | None, carry: Carry, start: Tensor) -> Output:
        """The network on T · N observations, T steps of N environments; `start` bool [T, N]."""
        return self.net(observation, mask, carry, start)

    def mode_at(self, env: Env, state: State) -> Tensor:
        """Its mode in N states that stand by themselves, with gradients."""
        observation = self.observe(env, state)
        start, carry = no_start(observation), self.initial_carry(len(env.done(state)))
        return self.forward(observation, env.action_mask(state), carry, start).policy.mode()

    @torch.no_grad()
    def act(
        self, observation: Observation, mask: Tensor | None, carry: Carry, *, explore: bool, rng: torch.Generator
    ) -> Decision:
        observation = prepared(self.net, observation)
        out = self.forward(observation, mask, carry, no_start(observation))
        if explore:
            action, log_prob = out.policy.draw(rng)
            return Decision(action, out.carry, PolicyOutput(log_prob, out.value), observation)
        return Decision(out.policy.draw(rng)[0] if self.evaluate == "sample" else out.policy.mode(), out.carry)

    def state_dict(self) -> dict[str, Any]:
        return {"network": self.net.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.net.load_state_dict(state["network"])


def build_network(network: Callable[..., nn.Module], spec: EnvSpec, device: torch.device, **more: Any) -> nn.Module:
    """A fresh network for an environment, on the device, without dropout, in the memory layout that suits it."""
    net = network(observation=spec.observation, action=spec.action, **more).eval().to(device)
    # The meta device cannot restride parameters.
    return net if device.type == "meta" else net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def build_average(network: Callable[..., nn.Module], net: nn.Module, spec: EnvSpec, device: torch.device) -> nn.Module:
    """A network that follows `net`, as build_network made it, by a moving average, and begins as it. It is built anew,
    since a deep copy of a denoiser would copy its model, too, which may be still to be trained."""
    average = build_network(network, spec, device).requires_grad_(False)
    average.load_state_dict(net.state_dict())
    return average


def no_start(observation: Observation) -> Tensor:
    """Bool [1, N]: a step that begins no episode (its memory has been reset already)."""
    some = next(iter(observation.values()))  # its shape, since torch.export takes a len for a constant
    return torch.zeros(1, some.shape[0], dtype=torch.bool, device=some.device)


def teacher_forced(
    env: Env, net: nn.Module, tokens: Tensor, prime: Tensor, steps: int | None = None
) -> tuple[Distribution, Tensor]:
    """What a policy network says of each token of finished sequences [N, T, F] when it is shown the ones before, and
    these tokens as actions; both of T · N rows, step by step, or of the first `steps` only."""
    assert isinstance(env, TeachesSequences)
    n, length = len(tokens), tokens.shape[1] if steps is None else steps
    states = map_tensors(lambda field: field[: length * n], env.teacher_states(tokens, prime))
    start = torch.zeros(length, n, dtype=torch.bool, device=tokens.device)
    out = net(env.observe(states), env.action_mask(states), net.initial_carry(n), start)  # type: ignore[operator]
    action = tokens[:, :length].transpose(0, 1).flatten(0, 1)  # [T · N, F]
    return out.policy, action.squeeze(1) if action.shape[1] == 1 else action


def example_transition(env: Env, policy: NetworkPolicy, rng: torch.Generator) -> Transition:
    """A transition of one environment: it gives the types of the trees in a checkpoint."""
    rng = torch.Generator(device=rng.device).manual_seed(0)
    state, carry = env.reset(1, rng), policy.initial_carry(1)
    decision = policy.act(env.observe(state), env.action_mask(state), carry, explore=True, rng=rng)
    done = env.done(state)
    zero = torch.zeros(1, device=done.device)
    return Transition(state, decision.action, zero, zero, state, done, carry, decision.carry, decision.policy_output)
