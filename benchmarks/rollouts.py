"""Finished samples of a session's actor on test data."""

from collections.abc import Iterator

import torch
from torch import Tensor

from rlgen_cli.core.protocols import ChoosesData, Env
from rlgen_cli.core.seeding import stream
from rlgen_cli.core.specs import State, View
from rlgen_cli.core.tree import join
from rlgen_cli.evaluation.rollout import Rollout, rollout
from rlgen_cli.runs.assemble import Session


def samples(session: Session, count: int, name: str, at_once: int = 500) -> View:
    """`count` samples of random episodes.

    Args:
        name: of the random stream that they are drawn from. at_once: episodes in a batch.
    """
    env, rng = session.envs["test"], stream(0, name, session.device)
    return join(*(finished_view(session, env.reset(n, rng), rng) for n in chunks(count, at_once)))


def copies(session: Session, index: Tensor, name: str, at_once: int = 500) -> View:
    """Samples of the episodes that begin with the test pictures `index` [N]; arguments as those of `samples`."""
    env = session.envs["test"]
    return join(*(env.view(played.final) for played in episodes(session, index, name, at_once)))


def episodes(session: Session, index: Tensor, name: str, at_once: int, record: bool = False) -> Iterator[Rollout]:
    """The same, batch by batch, with all states and actions where `record`."""
    env, rng = session.envs["test"], stream(0, name, session.device)
    for part in index.to(session.device).split(at_once):
        yield rollout(env, session.actor, starts_from(env).start_from(part, rng), rng, record=record)


@torch.no_grad()
def finished_view(session: Session, state: State, rng: torch.Generator) -> View:
    """What rewards see of the samples that the actor makes of `state`."""
    env = session.envs["test"]
    return env.view(rollout(env, session.actor, state, rng).final)


def starts_from(env: Env) -> ChoosesData:
    """The environment, known to have `start_from`."""
    assert isinstance(env, ChoosesData)
    return env


def chunks(count: int, at_once: int) -> list[int]:
    """`count` in parts of at most `at_once`."""
    return [min(at_once, count - begun) for begun in range(0, count, at_once)]
