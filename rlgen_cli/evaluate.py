"""Scores and pictures of an agent that does not explore; never touches the training streams."""

from typing import NamedTuple

import torch
from torch import Tensor

from rlgen_cli.build import Session
from rlgen_cli.export.raster import beside, grid
from rlgen_cli.rollout import rollout
from rlgen_cli.seeding import stream
from rlgen_cli.types import View


class Evaluation(NamedTuple):
    """Mean final score of each term, their weighted sum, spread within the batch, and what was made."""

    scores: dict[str, float]
    total: float
    diversity: float
    view: View


@torch.no_grad()
def evaluate(session: Session, split: str, episodes: int, seed: int) -> Evaluation:
    """`episodes` samples on the data of `split`; the same seed gives the same episodes."""
    env = session.envs[split]
    rng = stream(seed, "eval", session.device)
    final = rollout(env, session.agent, env.reset(episodes, rng), rng).final
    view = env.view(final)
    scores = {name: float(score.mean()) for name, score in session.reward.score(view).items()}
    total = sum(session.reward.terms[name].weight * score for name, score in scores.items())
    return Evaluation(scores, total, diversity(view.sample), view)


def diversity(samples: Tensor) -> float:
    """Mean distance (root mean squared pixel difference) between neighbours in the batch: 0 is collapse."""
    return float((samples - samples.roll(1, 0)).square().flatten(1).mean(1).sqrt().mean())


def sheet(view: View, limit: int = 64) -> Tensor:
    """The samples as a grid, uint8 [3, H, W]; beside it the targets, where there are any."""
    made = grid(view.sample[:limit])
    if view.context.target is None:
        return made
    return beside(made, grid(view.context.target[:limit]))
