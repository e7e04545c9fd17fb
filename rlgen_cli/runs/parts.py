"""What several ranks leave in one checkpoint, and take from it again.

The part `training` is the first rank's. What differs on another rank, as its environments, its replay and its random
streams, is in a part of its own, `rank_1` and so on, with the keys that the learners name as `by_rank`.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rlgen_cli.core import checkpoint, ranks
from rlgen_cli.core.errors import UserError
from rlgen_cli.core.protocols import PartlyByRank
from rlgen_cli.core.tree import moved
from rlgen_cli.runs.assemble import Session

log = logging.getLogger("rlgen_cli")
STREAMS = "streams"


class SavedTraining(NamedTuple):
    """A checkpoint as one rank sees it; tensors are on the CPU."""

    policy: dict[str, Any]
    shared: dict[str, Any]  # the part `training` without what is a rank's own
    own: dict[str, Any] | None  # that of this rank, with its streams; None: it was saved by another number of ranks

    @staticmethod
    def read(session: Session, folder: Path, own_components: Sequence[str]) -> "SavedTraining":
        """The newest intact checkpoint of a run; the first rank reads it for all.

        Args:
            own_components: those, beside parts of the learners, that are a rank's own.
        """
        parts: list[Any] = []
        count = ranks.count()

        def read() -> tuple[dict[str, Any], dict[str, Any]]:
            newest = checkpoint.newest(folder)
            policy = checkpoint.load(newest, "policy", "cpu")
            training = checkpoint.load(newest, "training", "cpu")
            streams = checkpoint.load(newest, STREAMS, "cpu")
            shared, own = parted(session, training, own_components)
            saved_by = shared["loop"].get("ranks", 1)
            if saved_by == count:
                others = [checkpoint.load(newest, part_of(rank), "cpu") for rank in range(1, saved_by)]
                parts.extend([own | streams, *others])
            else:
                parts.extend([None] * count)
                log.warning(
                    "the run was saved by %d processes and goes on in %d: weights, optimizers and counters go on; "
                    "episodes under way, what was kept of earlier ones (replay, rollouts, samples) and random streams "
                    "begin anew", saved_by, count,
                )  # fmt: skip
            return policy, shared

        policy, shared = ranks.from_first(read)
        return SavedTraining(policy, shared, ranks.scattered(parts))


def part_of(rank: int) -> str:
    """The part of a checkpoint that is a rank's own."""
    return f"rank_{rank}"


def own_parts(
    session: Session, training: dict[str, Any], own_components: Sequence[str], streams: dict[str, Any]
) -> dict[str, dict[str, Any]]:
    """The parts of all ranks but the first, on the first; {} on the others."""
    own = None if ranks.first() else moved(parted(session, training, own_components)[1], "cpu") | streams
    return {part_of(rank): part for rank, part in enumerate(ranks.gathered(own)) if part is not None}


def parted(
    session: Session, training: dict[str, Any], own_components: Sequence[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """A part `training` as what all ranks have alike, and what is this rank's own."""
    shared, own = {}, {}
    for name, state in training.items():
        keys = by_rank(session, name, state) if name in session.learners else set(state)
        if name in session.learners or name in own_components:
            own[name] = {key: value for key, value in state.items() if key in keys}
            shared[name] = {key: value for key, value in state.items() if key not in keys}
        else:
            shared[name] = state
    return shared, own


def merged(session: Session, shared: dict[str, Any], own: dict[str, Any] | None) -> dict[str, Any]:
    """The learners' states; where nothing is known of a rank's own, that is as it is in a new run.

    Raises:
        UserError: for a learner that does not say which part that is.
    """
    if own is not None:
        return {name: shared.get(name, {}) | own.get(name, {}) for name in session.learners}
    states = {}
    for name, learner in session.learners.items():
        if not isinstance(learner, PartlyByRank):
            raise UserError(
                f"{name}: has no attribute by_rank that says which part of its state is a rank's own, so that this run "
                "goes on with as many devices as it was saved by."
            )
        fresh = learner.state_dict()
        states[name] = shared.get(name, {}) | {key: fresh[key] for key in learner.by_rank if key in fresh}
    return states


def by_rank(session: Session, name: str, state: dict[str, Any]) -> frozenset[str]:
    """The keys of a learner's state that are a rank's own."""
    learner = session.learners[name]
    return learner.by_rank if isinstance(learner, PartlyByRank) else frozenset(state)


def share_weights(session: Session) -> None:
    """Let all ranks begin with the first one's weights, whatever each has drawn on its machine."""
    if ranks.count() == 1:
        return

    shared, own = parted(session, session.training_state(), ())
    policy, shared = ranks.from_first(lambda: moved([session.policy_state(), shared], "cpu"))
    session.load_policy(moved(policy, session.device))
    session.load_training(merged(session, moved(shared, session.device), own))
