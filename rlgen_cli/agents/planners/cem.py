"""The cross-entropy method (Rubinstein 1999) on each action, by the true reward.

When to use it: as a baseline that searches where there is no gradient; for its time on one picture a policy makes
thousands (docs/results/repair_inpaint.md).
"""

import torch
from torch import Tensor

from rlgen_cli.agents.planners.tries import (
    Start,
    action_of,
    better,
    check_tries,
    rewards_of,
    rows_of,
    seeks,
    tries_around,
)
from rlgen_cli.core.errors import require
from rlgen_cli.core.protocols import Env, Reward
from rlgen_cli.core.specs import EnvSpec, State
from rlgen_cli.core.tree import repeat

NARROWEST = 0.02  # deviation of a round's tries, in normal quantiles


class CEM:
    """Rounds of tries, each around the best of the one before.

    Args:
        start: where the first tries are (tries.Start). samples: tries at once. rounds: of them.
        elite: tries of a round that the next one goes by.
    """

    @staticmethod
    def accepts(spec: EnvSpec) -> bool:
        return seeks(spec)

    def __init__(
        self,
        *,
        env: Env,
        num_envs: int,
        device: torch.device,
        reward: Reward,
        start: Start,
        samples: int,
        rounds: int,
        elite: int,
    ) -> None:
        check_tries(env, num_envs, device, samples, rounds)
        require(2 <= elite <= samples, f"elite: must be from 2 to samples = {samples}, got {elite}.")
        self.reward, self.start, self.samples, self.rounds, self.elite = reward, start, samples, rounds, elite

    @torch.no_grad()
    def plan(self, env: Env, state: State, rng: torch.Generator) -> Tensor:
        mean, deviation = self.start(env, state)
        copies = repeat(state, self.samples)
        best, height = mean, torch.full((len(mean),), -torch.inf, device=mean.device)
        for _ in range(self.rounds):
            x = tries_around(mean, deviation, self.samples, rng)
            score = rewards_of(env, self.reward, copies, x)
            best, height = better(best, height, x, score)
            elite = rows_of(x, score.topk(self.elite, 1).indices)
            mean, deviation = elite.mean(1), elite.std(1).clamp(min=NARROWEST)
        return action_of(env.spec, best)
