"""Whole episodes without learning, for evaluation, samples and baselines."""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from rlgen_cli.core.acting import Actor, decide, initial_carry
from rlgen_cli.core.protocols import Env
from rlgen_cli.core.specs import State

Said: TypeAlias = Callable[[str], None]


def unsaid(text: str) -> None:
    """Nobody listens."""


class Rollout(NamedTuple):
    """N finished episodes; `states` and `actions` are in order, one entry a step, when they were recorded."""

    final: State
    states: list[State]
    actions: list[Tensor]


@torch.no_grad()
def rollout(
    env: Env, actor: Actor, state: State, rng: torch.Generator, record: bool = False, said: Said = unsaid
) -> Rollout:
    """Act from `state`, without exploring, until every episode is over; `said` hears before each step how far it is."""
    states, actions, carry = [], [], initial_carry(actor, len(env.done(state)))
    for step in range(env.spec.max_steps):
        said(f"step {step} of {env.spec.max_steps}")
        decision = decide(actor, env, state, carry, explore=False, rng=rng)
        if record:
            states.append(state)
            actions.append(decision.action)
        state, carry = env.step(state, decision.action), decision.carry
    return Rollout(state, states, actions)
