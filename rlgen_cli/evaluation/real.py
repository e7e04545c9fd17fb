"""Real data as finished samples, so that the same numbers can be given for them."""

from typing import Any

import torch
from torch import Tensor

from rlgen_cli.core.protocols import Env
from rlgen_cli.core.specs import View
from rlgen_cli.data.images import Images
from rlgen_cli.data.sequences import Sequences
from rlgen_cli.rewards.reward import WeightedSum


def some(available: int, n: int, rng: torch.Generator) -> Tensor:
    """Indices of n things, or of all, in no order."""
    return torch.randperm(available, generator=rng)[:n]


def real_view(env: Env, data: Any, n: int, seed: int) -> View | None:
    """N samples of a split (or all), as finished samples, each its own target; None where the environment takes no
    data."""
    rng = torch.Generator().manual_seed(seed)
    if isinstance(data, Sequences):
        tokens = data.tokens[some(len(data.tokens), n, rng)]
        return View(tokens, {}, {"num_tokens": torch.full((len(tokens),), tokens.shape[1], device=tokens.device)})
    if not isinstance(data, Images):
        return None
    index = some(len(data.images), n, rng)
    pictures = data.images[index].float() / 255
    known = {"target": pictures, "label": data.labels[index]}
    return View(pictures, {name: value for name, value in known.items() if name in env.spec.context}, {})


@torch.no_grad()
def mean_scores(reward: WeightedSum, view: View) -> dict[str, float]:
    """Each term's mean score, so far as the view has what it reads."""
    there = {*view.context, *view.info}
    able = {name: term.score for name, term in reward.terms.items() if set(getattr(term.score, "needs", ())) <= there}
    return {name: round(float(score(view).mean()), 6) for name, score in able.items()}
