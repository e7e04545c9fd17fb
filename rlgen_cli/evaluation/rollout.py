"""Whole episodes without learning, for evaluation, samples and baselines."""

from typing import NamedTuple

import torch
from torch import Tensor

from rlgen_cli.core.types import Agent, Env, State


class Rollout(NamedTuple):
    """N finished episodes; `states` and `actions` are in order, one entry a step, when they were recorded."""

    final: State
    states: list[State]
    actions: list[Tensor]


@torch.no_grad()
def rollout(env: Env, agent: Agent, state: State, rng: torch.Generator, record: bool = False) -> Rollout:
    """Act from `state` until every episode is over."""
    states, actions, carry = [], [], agent.carry(len(env.done(state)))
    for _ in range(env.spec.max_steps):
        action, carry, _ = agent.act(env, state, carry, explore=False, rng=rng)
        if record:
            states.append(state)
            actions.append(action)
        state = env.step(state, action)
    return Rollout(state, states, actions)
