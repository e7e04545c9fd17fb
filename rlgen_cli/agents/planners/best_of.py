"""The best of many tries: a baseline at a price, and a polish of what a policy says (`start.guide`).

When to use it: as the price of not learning, and after training: the best of many tries near a policy's move was
better than the move in label and coverage (docs/results/steer.md).
"""

import torch
from torch import Tensor

from rlgen_cli.agents.planners.tries import Start, action_of, better, check_tries, rewards_of, seeks, tries_around
from rlgen_cli.core.protocols import Env, Reward
from rlgen_cli.core.specs import EnvSpec, State
from rlgen_cli.core.tree import repeat


class BestOf:
    """Independent tries at each continuous action; the one with the highest reward.

    Args:
        start: where they are (tries.Start). samples: tries at once. rounds: of them; one action costs
            rounds · samples steps of the environment.
    """

    @staticmethod
    def accepts(spec: EnvSpec) -> bool:
        return seeks(spec)

    def __init__(
        self, *, env: Env, num_envs: int, device: torch.device, reward: Reward, start: Start, samples: int, rounds: int
    ) -> None:
        check_tries(env, num_envs, device, samples, rounds)
        self.reward, self.start, self.samples, self.rounds = reward, start, samples, rounds

    @torch.no_grad()
    def plan(self, env: Env, state: State, rng: torch.Generator) -> Tensor:
        mean, deviation = self.start(env, state)
        copies = repeat(state, self.samples)
        best, height = mean, torch.full((len(mean),), -torch.inf, device=mean.device)
        for _ in range(self.rounds):
            x = tries_around(mean, deviation, self.samples, rng)
            best, height = better(best, height, x, rewards_of(env, self.reward, copies, x))
        return action_of(env.spec, best)
