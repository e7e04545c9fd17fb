"""The weighted sum of named terms, and the two ways in which a score becomes a reward."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from rlgen_cli.core.errors import UserError
from rlgen_cli.core.protocols import LearnedScore, Learner, Score, Stepwise
from rlgen_cli.core.specs import Scored, View
from rlgen_cli.core.tree import join


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

    def reward_and_score(self, before: View, after: View, done: Tensor) -> tuple[Tensor, Tensor | None]:
        """That reward, and the score of the samples after the step, [N]; None where an episode's rewards sum to it."""
        if self.form == "terminal":
            return torch.where(done, self.score(after), 0.0), None
        if self.stepwise and isinstance(self.score, Stepwise):
            return self.score.gain(after), None
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

    def __call__(self, before: View, after: View, done: Tensor) -> Scored:
        """The reward of one step of N samples; `done` bool [N] says which are finished by it."""
        both = {}
        for name, term in self.terms.items():
            with _named(name):
                both[name] = term.reward_and_score(before, after, done)
        values = {name: self._usable(value) for name, (value, _) in both.items()}
        scores = {name: score for name, (_, score) in both.items() if score is not None}
        static = torch.zeros(len(done), device=done.device)
        total = torch.zeros_like(static)
        for name, value in values.items():
            weighted = self.terms[name].weight * value
            total = total + weighted
            static = static if name in self.learned_terms else static + weighted
        return Scored(total, static, values, scores)

    def learned_reward(self, before: View, after: View, done: Tensor) -> Tensor:
        """What the learned terms give now, weighted, [N]; 0 when no term is learned."""
        total = torch.zeros(len(done), device=done.device)
        for term in self.learned_terms.values():
            total = total + term.weight * self._usable(term(before, after, done))
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
