"""The weighted sum of named terms, and the two ways in which a score becomes a reward."""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from rlgen_cli.core.tree import join
from rlgen_cli.core.types import Metrics, Scored, View


class Score(Protocol):
    """A number per sample, higher is better. `judges` says of what (types.EnvSpec.kinds, or any), `needs` names the
    context fields it reads."""

    judges: str
    needs: frozenset[str]

    def __call__(self, view: View) -> Tensor: ...  # [N]


@runtime_checkable
class Stepwise(Protocol):
    """A score that is a sum over steps, so that what the newest step added is cheaper to find than two scores."""

    def gain(self, after: View) -> Tensor:
        """Score after − score before the newest step, [N]."""
        ...


@runtime_checkable
class Trainable(Protocol):
    """A score with a trained part: stale in a replay memory as long as it `changes`, and so recomputed when a batch
    is drawn."""

    changes: bool

    def learn(self, after: View, done: Tensor, progress: float) -> Metrics:
        """Take in the samples that are `done` and train; {} when it is not time to."""
        ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class Term(NamedTuple):
    """A score, its weight, and its form: potential (score after − score before; sums to the final score) or
    terminal (the score, at the last step)."""

    score: Score
    weight: float
    form: Literal["potential", "terminal"]

    def __call__(self, before: View, after: View, done: Tensor) -> Tensor:
        """The term's unweighted reward for one step of N samples, [N]."""
        if self.form == "terminal":
            return torch.where(done, self.score(after), 0.0)
        if isinstance(self.score, Stepwise):
            return self.score.gain(after)
        scores = self.score(join(before, after))
        return scores[len(done) :] - scores[: len(done)]


class Reward:
    """The weighted sum of named terms."""

    def __init__(self, terms: Mapping[str, Term]) -> None:
        self.terms = dict(terms)
        self.trained = {
            name: term for name, term in self.terms.items() if isinstance(term.score, Trainable) and term.score.changes
        }

    def __call__(self, before: View, after: View, done: Tensor) -> Scored:
        values = {name: term(before, after, done) for name, term in self.terms.items()}
        settled = torch.zeros(len(done), device=done.device)
        total = torch.zeros_like(settled)
        for name, value in values.items():
            weighted = self.terms[name].weight * value
            total = total + weighted
            settled = settled if name in self.trained else settled + weighted
        return Scored(total, settled, values)

    def fresh(self, before: View, after: View, done: Tensor) -> Tensor | None:
        """What the trained terms give now, weighted, [N]; None when no term is trained."""
        if not self.trained:
            return None
        values = [term.weight * term(before, after, done) for term in self.trained.values()]
        return torch.stack(values).sum(0)

    def score(self, view: View) -> dict[str, Tensor]:
        """Each term's score of N samples, unweighted."""
        return {name: term.score(view) for name, term in self.terms.items()}

    def learn(self, after: View, done: Tensor, progress: float) -> Metrics:
        """Train what can be trained on the samples that are done; `progress` in [0, 1] is that of the training."""
        metrics: Metrics = {}
        for name, term in self.trained.items():
            assert isinstance(term.score, Trainable)
            metrics |= {f"{name}/{key}": value for key, value in term.score.learn(after, done, progress).items()}
        return metrics

    def state_dict(self) -> dict[str, Any]:
        return {name: _trainable(term).state_dict() for name, term in self.trained.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, term in self.trained.items():
            _trainable(term).load_state_dict(state[name])


def _trainable(term: Term) -> Trainable:
    assert isinstance(term.score, Trainable)
    return term.score
