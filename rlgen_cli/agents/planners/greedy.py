"""One-step search: tries every action on a copy of the state and keeps the one whose reward is highest.

A scripted baseline, possible because environments are functions over a state. It sees the true reward. Where no action
improves the sample it follows the environment's expert, if there is one (`core.protocols.HasExpert`).

When to use it: as what a learner should beat: in copying digits by pen it is better than the published agent
(docs/results/resketch.md). It needs as many steps of the environment as there are actions, for each step.
"""

import torch
from torch import Tensor

from rlgen_cli.core.protocols import Env, HasExpert, Reward
from rlgen_cli.core.specs import Discrete, EnvSpec, State


class Greedy:
    """The best next action by the reward alone; ties, told apart at `resolution`, are broken at random."""

    @staticmethod
    def accepts(spec: EnvSpec) -> bool:
        return isinstance(spec.action, Discrete)

    def __init__(self, *, reward: Reward, resolution: float) -> None:
        self.reward, self.resolution = reward, float(resolution)

    @torch.no_grad()
    def plan(self, env: Env, state: State, rng: torch.Generator) -> Tensor:
        assert isinstance(env.spec.action, Discrete)
        before = env.view(state)
        n, device = len(before.sample), before.sample.device
        gains = []
        for action in range(env.spec.action.n):
            after = env.step(state, torch.full((n,), action, device=device))
            gains.append(self.reward(before, env.view(after), env.done(after)).total)
        gain, mask = torch.stack(gains, 1), env.action_mask(state)  # [N, A]
        gain = gain if mask is None else gain.masked_fill(~mask, -torch.inf)
        noise = torch.rand(gain.shape, generator=rng, device=device)
        best = (gain + self.resolution * noise).argmax(1)
        expert = env.expert_action(state) if isinstance(env, HasExpert) else None
        return best if expert is None else torch.where(gain.amax(1) > self.resolution, best, expert)
