"""Uniform actions: what every learner must beat."""

from typing import Any

import torch
from torch import Tensor

from rlgen_cli.types import Env, EnvSpec, Metrics, State, Transition


class Random:
    """Acts uniformly in any action space and learns nothing."""

    @staticmethod
    def accepts(spec: EnvSpec) -> bool:
        return True

    def act(self, env: Env, state: State, *, explore: bool, rng: torch.Generator) -> Tensor:
        return env.spec.action.sample(len(env.done(state)), rng)

    def observe(self, transition: Transition) -> None:
        pass

    def update(self, progress: float) -> Metrics:
        return {}

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass
