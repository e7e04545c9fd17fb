"""Scores of an agent that does not explore; never touches the training streams."""

from typing import NamedTuple

import torch
from torch import Tensor

from rlgen_cli.runs.assemble import Session
from rlgen_cli.evaluation.media.registry import medium
from rlgen_cli.evaluation.rollout import rollout
from rlgen_cli.core.seeding import stream
from rlgen_cli.core.types import View


class Evaluation(NamedTuple):
    """Mean final score of each term, their weighted sum, spread within the batch, and what was made."""

    scores: dict[str, float]
    total: float
    diversity: float
    unique: float  # share of different samples
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
    return Evaluation(scores, total, medium(env).diversity(view.sample), unique(view.sample), view)


def unique(samples: Tensor) -> float:
    """Share of different samples in the batch."""
    return len(samples.flatten(1).unique(dim=0)) / len(samples)
