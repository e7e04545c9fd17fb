"""What planners share that try continuous actions on copies of the state, with the true reward.

Actions in [0, 1] are sought by their normal quantiles, where a uniform action is normal, as normal actions are already.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from rlgen_cli.core.capacity import footprint, require_memory
from rlgen_cli.core.errors import require
from rlgen_cli.core.protocols import Env, Reward
from rlgen_cli.core.specs import Continuous, EnvSpec, Normal, State
from rlgen_cli.policies.actor import no_start

EDGE = 1e-4  # how near to 0 and 1 a guide's actions are taken


class Start:
    """Where the first tries are.

    Args:
        guide: a run whose policy says where, or null: anywhere, as likely as uniform actions are.
        guide_std: deviation of the tries around what the guide says, in normal quantiles.
        saved_network: opens the policy network of a run.
    """

    def __init__(self, *, saved_network: Callable[[str], nn.Module], guide: str | None, guide_std: float) -> None:
        require(guide_std >= 0, f"guide_std: must be at least 0, got {guide_std}.")
        self.net: Any = saved_network(guide) if guide else None
        self.guide_std = float(guide_std)

    @torch.no_grad()
    def __call__(self, env: Env, state: State) -> tuple[Tensor, Tensor]:
        """Mean and deviation of the first tries, [N, D]."""
        assert isinstance(env.spec.action, Continuous | Normal)
        done = env.done(state)
        if self.net is None:
            zero = torch.zeros(len(done), env.spec.action.dim, device=done.device)
            return zero, torch.ones_like(zero)
        observation, carry = env.observe(state), self.net.initial_carry(len(done))
        out = self.net(observation, env.action_mask(state), carry, no_start(observation))
        mode = out.policy.mode()
        mean = mode if isinstance(env.spec.action, Normal) else torch.special.ndtri(mode.clamp(EDGE, 1 - EDGE))
        return mean, torch.full_like(mean, self.guide_std)


def seeks(spec: EnvSpec) -> bool:
    """Whether such planners can act where actions are like this."""
    return isinstance(spec.action, Continuous | Normal)


def action_of(spec: EnvSpec, x: Tensor) -> Tensor:
    """The actions [N, D] whose normal quantiles, or which themselves, are x."""
    return x if isinstance(spec.action, Normal) else torch.special.ndtr(x)


def check_tries(env: Env, num_envs: int, device: torch.device, samples: int, rounds: int) -> None:
    """Refuse numbers of tries (at once, and one after the other) for which no memory, or no time, would be enough.

    Raises:
        UserError: for `samples` or `rounds`.
    """
    require(samples >= 1, f"samples: must be at least 1, got {samples}.")
    require(1 <= rounds <= 1_000_000, f"rounds: must be from 1 to 1000000, got {rounds}.")
    tries = f"samples: {samples} tries in each of {num_envs} environments"
    require_memory(samples * num_envs * footprint(env, device), tries)


def tries_around(mean: Tensor, deviation: Tensor, samples: int, rng: torch.Generator) -> Tensor:
    """Normal quantiles of `samples` tries, [N, S, D]."""
    noise = torch.randn(len(mean), samples, mean.shape[1], generator=rng, device=mean.device)
    return mean.unsqueeze(1) + deviation.unsqueeze(1) * noise


def rewards_of(env: Env, reward: Reward, copies: State, x: Tensor) -> Tensor:
    """Rewards [N, S] of the actions whose quantiles are x [N, S, D], each in its copy of the state [N · S]."""
    after = env.step(copies, action_of(env.spec, x.flatten(0, 1)))
    return reward(env.view(copies), env.view(after), env.done(after)).total.view(x.shape[:2])


def rows_of(x: Tensor, index: Tensor) -> Tensor:
    """Of x [N, S, D] the rows index [N, K], [N, K, D]."""
    return x.gather(1, index.unsqueeze(2).expand(-1, -1, x.shape[2]))


def better(best: Tensor, height: Tensor, x: Tensor, score: Tensor) -> tuple[Tensor, Tensor]:
    """The best tries [N, D] and their rewards [N], after those of x [N, S, D] with `score` [N, S]."""
    top, where = score.max(1)
    newest = rows_of(x, where.unsqueeze(1)).squeeze(1)
    return torch.where((top > height).unsqueeze(1), newest, best), torch.maximum(height, top)
