"""Particles: all episodes of a batch step at random, and those whose reward falls give way to copies of those whose
reward rises (sequential Monte Carlo; for diffusion models Wu et al. 2023, Singhal et al. 2025).

With many episodes at once (`num_envs`, and the batch of samples) what is made comes to the exact answer, the model's
own samples times exp(reward / temperature), whatever the reward says on the way; with few, samples repeat each other.

Deviation from the papers, numbered:

1. A particle keeps its place with probability w / max w, and is else replaced by one drawn by weight (Del Moral 2004,
   section 5.2.1), so that equal weights lose nothing, and no weight is carried from step to step.

When to use it: as a row of a table beside agents that learn (`python -m benchmarks.diffusion`).
"""

import torch
from torch import Tensor

from rlgen_cli.core.errors import require
from rlgen_cli.core.protocols import Env, KnowsWays, Reward
from rlgen_cli.core.specs import EnvSpec, Normal, State
from rlgen_cli.core.tree import map_tensors


class Particles:
    """Selection among the episodes of a batch that ask for the same: the same label, picture, or nothing.

    Args:
        temperature: reward that is worth a factor of e.

    Raises:
        UserError: for a temperature that is not above 0, or an environment that does not know the action between two of
            its states.
    """

    @staticmethod
    def accepts(spec: EnvSpec) -> bool:
        """Actions are standard normal where nothing is chosen, and episodes have one length."""
        return isinstance(spec.action, Normal) and spec.fixed_length

    def __init__(self, *, env: Env, reward: Reward, temperature: float) -> None:
        require(temperature > 0, f"temperature: must be above 0, got {temperature}.")
        require(isinstance(env, KnowsWays), "_target_: this environment's states do not tell the actions between them.")
        self.reward, self.temperature = reward, float(temperature)

    @torch.no_grad()
    def plan(self, env: Env, state: State, rng: torch.Generator) -> Tensor:
        assert isinstance(env, KnowsWays)
        assert isinstance(env.spec.action, Normal)
        before, done = env.view(state), env.done(state)
        after = env.step(state, env.spec.action.sample(len(done), rng, done.device))
        log_weight = self.reward(before, env.view(after), env.done(after)).total / self.temperature
        asked = torch.cat([field.reshape(len(done), -1).float() for field in [done, *before.context.values()]], 1)
        alike = torch.cdist(asked, asked, p=torch.inf) == 0  # [N, N]
        chosen = selected(log_weight, alike, rng)
        return env.action_between(state, map_tensors(lambda field: field[chosen], after))


def selected(log_weight: Tensor, alike: Tensor, rng: torch.Generator) -> Tensor:
    """The particle that each of N goes on as, int64 [N].

    Args:
        log_weight: [N]. alike: bool [N, N], which may take whose place; each at least its own.
    """
    within = log_weight.expand(alike.shape).masked_fill(~alike, -torch.inf)  # [N, N]
    stays = (log_weight - within.amax(1)).exp()
    kept = torch.rand(log_weight.shape, generator=rng, device=log_weight.device) < stays
    drawn = torch.multinomial(within.softmax(1), 1, generator=rng).squeeze(1)
    place = torch.arange(len(log_weight), device=log_weight.device)
    return torch.where(kept, place, drawn)
