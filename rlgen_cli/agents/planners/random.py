"""Uniform actions: what every learner must beat."""

from typing import Any

import torch

from rlgen_cli.core.types import Carry, Choice, Env, EnvSpec, Metrics, State, Transition


class Random:
    """Acts uniformly among the allowed actions of any space and learns nothing."""

    group = 1

    @staticmethod
    def accepts(spec: EnvSpec) -> bool:
        return True

    def act(self, env: Env, state: State, carry: Carry, *, explore: bool, rng: torch.Generator) -> Choice:
        action, mask = env.spec.action.sample(len(env.done(state)), rng), env.action_mask(state)
        if mask is not None:
            action = torch.rand(mask.shape, generator=rng, device=mask.device).masked_fill(~mask, -1.0).argmax(1)
        return Choice(action)

    def carry(self, n: int) -> Carry:
        return None

    def observe(self, transition: Transition) -> None:
        pass

    def update(self, progress: float) -> Metrics:
        return {}

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass
