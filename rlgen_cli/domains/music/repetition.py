"""Scores of how a melody repeats itself, over the raw codes that RL Tuner's rules read (theory.py)."""

import torch
from torch import Tensor

from rlgen_cli.core.errors import require
from rlgen_cli.core.specs import View
from rlgen_cli.domains.music.encodings import HOLD
from rlgen_cli.domains.music.theory import BAR, correlations


class Correlation:
    """The autocorrelation of the codes so far at a lag of 1, 2 or 3 steps, in [−1, 1]."""

    judges, needs = "melody", frozenset(["num_tokens"])

    def __init__(self, *, lag: int) -> None:
        require(1 <= lag <= 3, f"lag: must be 1, 2 or 3, got {lag}.")
        self.lag = lag

    def __call__(self, view: View) -> Tensor:
        return correlations(view.sample.squeeze(2), view.info["num_tokens"])[:, self.lag - 1]


class RepeatedFraction:
    """Fraction of a melody's steps whose last 8 steps are a motif (three different notes) that stood before."""

    judges, needs = "melody", frozenset[str]()

    def __call__(self, view: View) -> Tensor:
        return ((matches(view).amax(2) == BAR) & motifs(view)).float().mean(1)


class LongestRepetition:
    """How long a stretch, ending in a motif, repeats an earlier one: the largest (steps / 8)² so far, in [0, 1]. It
    leads to repeated motifs, which by chance hardly ever happen."""

    judges, needs = "melody", frozenset[str]()

    def __call__(self, view: View) -> Tensor:
        longest = matches(view).amax(2) * motifs(view)  # [N, T]
        return (longest.amax(1) / BAR).square()


def matches(view: View) -> Tensor:
    """How many steps up to t, at most 8, equal those up to an earlier s, int8 [N, T (t), T (s)]; 0 unless s lies 8
    steps or more before t, so that stretches of 8 do not overlap."""
    last = _last_bars(view)  # [N, T, 8], newest first
    going = (last[:, :, 0] >= 0).unsqueeze(2) & torch.ones_like(last[0, :, 0], dtype=torch.bool)
    length = torch.zeros_like(going, dtype=torch.int8)
    for back in last.unbind(2):
        going = going & (back.unsqueeze(2) == back.unsqueeze(1))
        length += going
    return length.tril(-BAR)


def motifs(view: View) -> Tensor:
    """Bool [N, T]: the last 8 steps hold three different notes."""
    last = _last_bars(view).sort(2).values
    changed = torch.cat([torch.ones_like(last[:, :, :1], dtype=torch.bool), last[:, :, 1:] != last[:, :, :-1]], 2)
    whole = last[:, :, 0] >= 0  # none lies before the beginning, and none is missing yet
    return (((last > HOLD) & changed).sum(2) >= 3) & whole


def _last_bars(view: View) -> Tensor:
    """The last 8 codes at each step, the newest first, int8 [N, T, 8]; −1 before the beginning."""
    codes = view.sample.squeeze(2).to(torch.int8)
    return torch.nn.functional.pad(codes, [BAR - 1, 0], value=-1).unfold(1, BAR, 1).flip(2)
