"""Gradient ascent on each action: a baseline that searches, and a polish (`start.guide=RUN`, `samples=1`).

When to use it: as a baseline where environment and reward have gradients. As a polish of a repair it fits what is
known, and lowers the figure for what is hidden (docs/results/repair_inpaint.md).
"""

import torch
from torch import Tensor

from rlgen_cli.agents.planners.tries import Start, action_of, check_tries, rewards_of, rows_of, seeks, tries_around
from rlgen_cli.core.adam import PlainAdam
from rlgen_cli.core.errors import require
from rlgen_cli.core.protocols import Differentiable, Env, Reward
from rlgen_cli.core.specs import EnvSpec, State
from rlgen_cli.core.tree import repeat


class Gradient:
    """Adam up the reward from several starts, where environment and reward are differentiable.

    Args:
        start: where it begins (tries.Start). samples: starts. rounds: steps of Adam. learning_rate: Adam's.

    Raises:
        UserError: for a value out of range, or a reward without a gradient.
    """

    @staticmethod
    def accepts(spec: EnvSpec) -> bool:
        return seeks(spec) and spec.differentiable

    def __init__(
        self,
        *,
        env: Env,
        rng: torch.Generator,
        num_envs: int,
        device: torch.device,
        reward: Reward,
        start: Start,
        samples: int,
        rounds: int,
        learning_rate: float,
    ) -> None:
        check_tries(env, num_envs, device, samples, rounds)
        require(learning_rate > 0, f"learning_rate: must be above 0, got {learning_rate}.")
        self.reward, self.start, self.samples, self.rounds = reward, start, samples, rounds
        self.learning_rate = float(learning_rate)
        self._check_reward(env, torch.Generator(device=rng.device).manual_seed(0))

    @torch.enable_grad()
    def _check_reward(self, env: Env, rng: torch.Generator) -> None:
        """Refuse a reward that gradients cannot pass."""
        assert isinstance(env, Differentiable)
        state = env.reset(1, rng)
        x = self.start(env, state)[0].unsqueeze(1).detach().requires_grad_()
        found = rewards_of(env, self.reward, env.differentiable_state(state), x).requires_grad
        require(found, "_target_: gradient needs a reward that is differentiable; use agent=cem.")

    @torch.enable_grad()
    def plan(self, env: Env, state: State, rng: torch.Generator) -> Tensor:
        assert isinstance(env, Differentiable)
        mean, deviation = self.start(env, state)
        copies = repeat(state, self.samples)
        floats = env.differentiable_state(copies)
        x = tries_around(mean, deviation, self.samples, rng).detach().requires_grad_()
        optimizer = PlainAdam([x], self.learning_rate)
        for _ in range(self.rounds):
            (x.grad,) = torch.autograd.grad(-rewards_of(env, self.reward, floats, x).sum(), x)
            optimizer.step()
        with torch.no_grad():
            best = rewards_of(env, self.reward, copies, x).argmax(1, keepdim=True)
            return action_of(env.spec, rows_of(x, best).squeeze(1))
