"""Search: the next continuous action by trying many on copies of the state, with the true reward.

What a policy amortises, done anew for each sample: a baseline at a price, and a polish of what a policy says (`guide`).
It learns nothing and sees the whole reward, so that the reward should hold nothing that a user would not know.
"""

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from rlgen_cli.core.errors import UserError, require
from rlgen_cli.core.tree import repeat
from rlgen_cli.core.types import Carry, Choice, Continuous, Env, EnvSpec, Metrics, Reward, State, Transition

EDGE = 1e-4  # how near to 0 and 1 a guide's actions are taken


class Search:
    """The best action that was tried. Actions are sought by their normal quantiles, where a uniform action is normal.

    Args:
        method: best_of (independent tries), cem (the cross-entropy method, Rubinstein 1999: each round around the last
            one's best) or gradient (Adam up the reward, from `samples` starts; where environment and reward are
            differentiable).
        samples: tries at once. rounds: of them; one action costs rounds · samples steps of the environment.
        elite: tries of a round that the next one of cem goes by. rate: Adam's.
        guide: a run whose policy says where to begin, or null: with normal quantiles. spread: deviation around it.

    Raises:
        UserError: for a value out of range, or gradients where there are none.
    """

    group = 1

    @staticmethod
    def accepts(spec: EnvSpec) -> bool:
        return isinstance(spec.action, Continuous)

    def __init__(
        self,
        *,
        env: Env,
        reward: Reward,
        saved_network: Callable[[str], nn.Module],
        method: Literal["best_of", "cem", "gradient"],
        samples: int,
        rounds: int,
        elite: int,
        rate: float,
        guide: str | None,
        spread: float,
    ) -> None:
        require(min(samples, rounds) >= 1, f"samples: must be at least 1, as rounds, got {samples} and {rounds}.")
        require(method != "cem" or 2 <= elite <= samples, f"elite: must be from 2 to samples = {samples}, got {elite}.")
        require(rate > 0, f"rate: must be above 0, got {rate}.")
        require(spread >= 0, f"spread: must be at least 0, got {spread}.")
        if method == "gradient" and not env.spec.differentiable:
            raise UserError(
                f"method: gradient needs an environment that is differentiable in the action, and this one takes "
                f"{env.spec.action}; use env.action=stroke, move or place, or method=cem."
            )
        self.reward, self.method, self.samples, self.rounds = reward, method, samples, rounds
        self.elite, self.rate, self.spread = elite, float(rate), float(spread)
        self.guide: Any = saved_network(guide) if guide else None

    def act(self, env: Env, state: State, carry: Carry, *, explore: bool, rng: torch.Generator) -> Choice:
        mean, deviation = self._begin(env, state)
        copies = repeat(state, self.samples)
        if self.method == "gradient":
            found = self._climb(env, copies, self._around(mean, deviation, rng))
        else:
            found = self._try(env, copies, mean, deviation, rng)
        return Choice(torch.special.ndtr(found))

    @torch.no_grad()
    def _begin(self, env: Env, state: State) -> tuple[Tensor, Tensor]:
        """Mean and deviation of the first tries, [N, D]."""
        assert isinstance(env.spec.action, Continuous)
        done = env.done(state)
        if self.guide is None:
            zero = torch.zeros(len(done), env.spec.action.dim, device=done.device)
            return zero, torch.ones_like(zero)
        start = torch.zeros_like(done).unsqueeze(0)
        said = self.guide(env.observe(state), env.action_mask(state), self.guide.carry(len(done)), start)
        mean = torch.special.ndtri(said.policy.mode().clamp(EDGE, 1 - EDGE))
        return mean, torch.full_like(mean, self.spread)

    def _around(self, mean: Tensor, deviation: Tensor, rng: torch.Generator) -> Tensor:
        """Tries at once, [N, S, D]."""
        noise = torch.randn(len(mean), self.samples, mean.shape[1], generator=rng, device=mean.device)
        return mean.unsqueeze(1) + deviation.unsqueeze(1) * noise

    def _score(self, env: Env, copies: State, x: Tensor) -> Tensor:
        """Rewards [N, S] of the actions whose quantiles are x [N, S, D], each in its copy of the state."""
        after = env.step(copies, torch.special.ndtr(x.flatten(0, 1)))
        return self.reward(env.view(copies), env.view(after), env.done(after)).total.view(x.shape[:2])

    @torch.no_grad()
    def _try(self, env: Env, copies: State, mean: Tensor, deviation: Tensor, rng: torch.Generator) -> Tensor:
        """Rounds of tries; the best of all, [N, D]."""
        best, height = mean, torch.full((len(mean),), -torch.inf, device=mean.device)
        for _ in range(self.rounds):
            x = self._around(mean, deviation, rng)
            score = self._score(env, copies, x)
            top, where = score.max(1)
            best = torch.where((top > height).unsqueeze(1), _rows(x, where.unsqueeze(1)).squeeze(1), best)
            height = torch.maximum(height, top)
            if self.method == "cem":
                elite = _rows(x, score.topk(self.elite, 1).indices)
                mean, deviation = elite.mean(1), elite.std(1).clamp(min=0.02)
        return best

    @torch.enable_grad()
    def _climb(self, env: Env, copies: State, start: Tensor) -> Tensor:
        """Up the reward from each start [N, S, D]; the highest, [N, D]."""
        soft = env.soften(copies)  # type: ignore[attr-defined]
        x = start.detach().requires_grad_()
        optimizer = torch.optim.Adam([x], self.rate)
        for _ in range(self.rounds):
            (x.grad,) = torch.autograd.grad(-self._score(env, soft, x).sum(), x)
            optimizer.step()
        with torch.no_grad():
            return _rows(x, self._score(env, copies, x).argmax(1, keepdim=True)).squeeze(1)

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


def _rows(x: Tensor, index: Tensor) -> Tensor:
    """Of x [N, S, D] the rows index [N, K], [N, K, D]."""
    return x.gather(1, index.unsqueeze(2).expand(-1, -1, x.shape[2]))
