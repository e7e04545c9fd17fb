"""Uniform actions: what every learner must beat.

When to use it: as a row of a table, or to see what an environment of your own makes. A training says its scores
anyway.
"""

import torch
from torch import Tensor

from rlgen_cli.core.protocols import Env
from rlgen_cli.core.specs import EnvSpec, State


class Random:
    """Acts uniformly among the allowed actions of any space."""

    @staticmethod
    def accepts(spec: EnvSpec) -> bool:
        return True

    def plan(self, env: Env, state: State, rng: torch.Generator) -> Tensor:
        done, mask = env.done(state), env.action_mask(state)
        if mask is None:
            return env.spec.action.sample(len(done), rng, done.device)
        return torch.rand(mask.shape, generator=rng, device=mask.device).masked_fill(~mask, -1.0).argmax(1)
