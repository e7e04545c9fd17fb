"""One way to act, whether a policy decides from observations or a planner by trying things out."""

from typing import TypeAlias

import torch

from rlgen_cli.core.protocols import Env, Planner, Policy, ReadsStates
from rlgen_cli.core.specs import Carry, Decision, State

Actor: TypeAlias = Policy | Planner


def initial_carry(actor: Actor, n: int) -> Carry:
    """The actor's memory at the start of N episodes."""
    return None if isinstance(actor, Planner) else actor.initial_carry(n)


def decide(actor: Actor, env: Env, state: State, carry: Carry, *, explore: bool, rng: torch.Generator) -> Decision:
    """What the actor does in N states of `env` (on training or held-out data)."""
    if isinstance(actor, Planner):
        return Decision(actor.plan(env, state, rng))
    observation = actor.observe(env, state) if isinstance(actor, ReadsStates) else env.observe(state)
    return actor.act(observation, env.action_mask(state), carry, explore=explore, rng=rng)
