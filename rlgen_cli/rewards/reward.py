"""The weighted sum of named terms, and the two ways in which a score becomes a reward."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from rlgen_cli.core.errors import UserError
from rlgen_cli.core.protocols import LearnedScore, Learner, Score, Stepwise
from rlgen_cli.core.specs import Scored, View
from rlgen_cli.core.tree import join, map_tensors


class Term(NamedTuple):
    """A score, its weight, and its form: potential (score after − score before; sums to the final score) or
    terminal (the score, at the last step). `stepwise`: the environment adds one token a step, so that a potential may
    be what the newest step added (`core.protocols.Stepwise`)."""

    score: Score
    weight: float
    form: Literal["potential", "terminal"]
    stepwise: bool = True

    @property
    def learned(self) -> bool:
        """Whether the score changes as training goes on."""
        return isinstance(self.score, LearnedScore) and self.score.learned

    def __call__(self, before: View, after: View, done: Tensor) -> Tensor:
        """The term's unweighted reward for one step of N samples, [N]."""
        return self.reward_and_score(before, after, done)[0]

    def along(self, frames: View, done: Tensor) -> Tensor:
        """The unweighted rewards of L successive steps of N samples, [L · N]; `frames` are L + 1 times N rows, of which
        each is scored once."""
        n = len(frames.sample) - len(done)
        if self.form == "potential" and not (self.stepwise and isinstance(self.score, Stepwise)):
            scores = self.score(frames)
            return scores[n:] - scores[:-n]
        after = map_tensors(lambda field: field[n:], frames)
        return self.reward_and_score(after, after, done)[0]

    def reward_and_score(
        self, before: View, after: View, done: Tensor, known: Tensor | None = None, ending: bool = True
    ) -> tuple[Tensor, Tensor | None]:
        """That reward, and the score of the samples after the step, [N]; None where an episode's rewards sum to it.

        Args:
            known: the score before the step, [N], if it was found before. ending: some of `done` may be true.
        """
        if self.form == "terminal":
            none = torch.zeros(len(done), device=done.device)
            return torch.where(done, self.score(after), 0.0) if ending else none, None
        if self.stepwise and isinstance(self.score, Stepwise):
            return self.score.gain(after), None
        if known is not None:
            score = self.score(after)
            return score - known, score
        scores = self.score(join(before, after))  # [2 N], in one pass
        return scores[len(done) :] - scores[: len(done)], scores[len(done) :]


@contextlib.contextmanager
def _named(term: str) -> Iterator[None]:
    """Puts a term's config path before what it says is wrong."""
    try:
        yield
    except UserError as error:
        raise UserError(f"reward.terms.{term}.{error}") from error.__cause__


class WeightedSum:
    """The weighted sum of named terms, a `core.protocols.Reward`.

    Args:
        terms: by name.
        skip_nonfinite: a term's reward that is nan or infinite counts as 0, instead of ending the training.
    """

    def __init__(self, terms: Mapping[str, Term], skip_nonfinite: bool = False) -> None:
        self.terms, self.skip_nonfinite = dict(terms), skip_nonfinite
        self.static_terms = {name: term for name, term in self.terms.items() if not term.learned}
        self.learned_terms = {name: term for name, term in self.terms.items() if term.learned}

    @property
    def has_learned_terms(self) -> bool:
        """Some of the reward goes stale in a replay memory."""
        return bool(self.learned_terms)

    def __call__(
        self, before: View, after: View, done: Tensor, *, known: Mapping[str, Tensor] | None = None, ending: bool = True
    ) -> Scored:
        """The reward of one step of N samples.

        Args:
            done: bool [N], which are finished by it. ending: some of them may be.
            known: the scores of `before`, as far as the step before gave them (`Scored.scores`): a term that learns is
                then compared with what it said at that step.
        """
        both, known = {}, known or {}
        for name, term in self.terms.items():
            with _named(name):
                both[name] = term.reward_and_score(before, after, done, known.get(name), ending)
        values = {name: self._usable(value) for name, (value, _) in both.items()}
        scores = {name: score for name, (_, score) in both.items() if score is not None}
        static = torch.zeros(len(done), device=done.device)
        total = torch.zeros_like(static)
        for name, value in values.items():
            weighted = self.terms[name].weight * value
            total = total + weighted
            static = static if name in self.learned_terms else static + weighted
        return Scored(total, static, values, scores)

    def learned_reward(self, frames: View, done: Tensor) -> Tensor:
        """What the learned terms give now for L successive steps of N samples, weighted, [L · N]; 0 without such terms.

        Args:
            frames: what was seen before the first step and after each, L + 1 times N rows. done: bool [L · N].
        """
        total = torch.zeros(len(done), device=done.device)
        for term in self.learned_terms.values():
            total = total + term.weight * self._usable(term.along(frames, done))
        return total

    def _usable(self, reward: Tensor) -> Tensor:
        """A term's reward, [N], as it counts."""
        return torch.where(reward.isfinite(), reward, 0.0) if self.skip_nonfinite else reward

    def score(self, view: View) -> dict[str, Tensor]:
        """Each term's score of N samples, unweighted."""
        scores = {}
        for name, term in self.terms.items():
            with _named(name):
                scores[name] = term.score(view)
        return scores

    def static_score(self, view: View) -> Tensor | None:
        """The weighted sum of the scores that do not change with training, [N], so that it can be compared over time;
        None when every term is learned."""
        if not self.static_terms:
            return None
        return torch.stack([term.weight * term.score(view) for term in self.static_terms.values()]).sum(0)

    def learners(self) -> dict[str, Learner]:
        """The scores that learn from the episodes, by the names of their terms."""
        return {name: term.score for name, term in self.terms.items() if isinstance(term.score, Learner)}
