"""One-step search: tries every action on a copy of the state and keeps the one whose reward is highest.

A scripted baseline, possible because environments are functions over a state. It learns nothing and sees the true
reward. Where no action improves the sample it goes where the environment says that one will (`wander`), if it can say.
"""

from typing import Any

import torch

from rlgen_cli.core.types import Carry, Choice, Discrete, Env, EnvSpec, Metrics, Reward, State, Transition


class Greedy:
    """The best next action by the reward alone; ties, told apart at `resolution`, are broken at random."""

    group = 1

    @staticmethod
    def accepts(spec: EnvSpec) -> bool:
        return isinstance(spec.action, Discrete)

    def __init__(self, *, reward: Reward, resolution: float) -> None:
        self.reward, self.resolution = reward, float(resolution)

    @torch.no_grad()
    def act(self, env: Env, state: State, carry: Carry, *, explore: bool, rng: torch.Generator) -> Choice:
        assert isinstance(env.spec.action, Discrete)
        before = env.view(state)
        n = len(before.effort)
        gains = []
        for action in range(env.spec.action.n):
            after = env.step(state, torch.full((n,), action, device=before.effort.device))
            view = env.view(after)
            gains.append(self.reward(before, view, env.done(after)).total)
        gain, mask = torch.stack(gains, 1), env.action_mask(state)  # [N, A]
        gain = gain if mask is None else gain.masked_fill(~mask, -torch.inf)
        noise = torch.rand(gain.shape, generator=rng, device=gain.device)
        best = (gain + self.resolution * noise).argmax(1)
        wander = getattr(env, "wander", None)
        elsewhere = wander(state) if wander else None
        return Choice(best if elsewhere is None else torch.where(gain.amax(1) > self.resolution, best, elsewhere))

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
