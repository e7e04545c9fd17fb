"""Whole episodes without learning, for evaluation, samples and baselines."""

from typing import NamedTuple

import torch
from torch import Tensor

from rlgen_cli.core.acting import Actor, decide, initial_carry
from rlgen_cli.core.protocols import Env
from rlgen_cli.core.specs import State


class Rollout(NamedTuple):
    """N finished episodes; `states` and `actions` are in order, one entry a step, when they were recorded."""

    final: State
    states: list[State]
    actions: list[Tensor]


@torch.no_grad()
def rollout(env: Env, actor: Actor, state: State, rng: torch.Generator, record: bool = False) -> Rollout:
    """Act from `state`, without exploring, until every episode is over."""
    states, actions, carry = [], [], initial_carry(actor, len(env.done(state)))
    for _ in range(env.spec.max_steps):
        decision = decide(actor, env, state, carry, explore=False, rng=rng)
        if record:
            states.append(state)
            actions.append(decision.action)
        state, carry = env.step(state, decision.action), decision.carry
    return Rollout(state, states, actions)
