"""Scores of an actor that does not explore; never touches the training streams."""

from typing import NamedTuple

import torch
from torch import Tensor

from rlgen_cli.core.acting import Actor
from rlgen_cli.core.protocols import Env
from rlgen_cli.core.seeding import stream
from rlgen_cli.core.specs import View
from rlgen_cli.evaluation.media.registry import medium
from rlgen_cli.evaluation.rollout import Said, rollout, unsaid
from rlgen_cli.rewards.reward import WeightedSum


class Evaluation(NamedTuple):
    """Mean final score of each term, their weighted sum, how different the samples are, and what was made."""

    scores: dict[str, float]
    total: float
    static_total: float | None  # of the terms that do not learn; None where all learn
    diversity: float
    unique: float  # share of different samples
    view: View


@torch.no_grad()
def evaluate(
    env: Env, actor: Actor, reward: WeightedSum, *, episodes: int, seed: int, device: torch.device,
    said: Said = unsaid,
) -> Evaluation:  # fmt: skip
    """`episodes` samples; the same seed gives the same episodes. `said` hears how far they are."""
    rng = stream(seed, "eval", device)
    view = env.view(rollout(env, actor, env.reset(episodes, rng), rng, said=said).final)
    scores = {name: float(score.mean()) for name, score in reward.score(view).items()}
    total = sum(reward.terms[name].weight * score for name, score in scores.items())
    static = reward.static_score(view)
    static_total = None if static is None else float(static.mean())
    made_as = medium(env)
    return Evaluation(scores, total, static_total, made_as.diversity(view.sample), unique(view.sample), view)


def unique(samples: Tensor) -> float:
    """Share of different samples in the batch."""
    return len(samples.flatten(1).unique(dim=0)) / len(samples)
