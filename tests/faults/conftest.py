"""The server of all trials, and the counts, which `--counts FILE` writes at the end."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.forks import Forks
from tests.faults.record import Record

RECORD = pytest.StashKey[Record]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--counts", help="where the counts of faults go: a .json, and a .md beside it")


def pytest_sessionfinish(session: pytest.Session) -> None:
    path = session.config.getoption("--counts", None)
    if path and RECORD in session.stash:
        session.stash[RECORD].write(Path(path))


@pytest.fixture(scope="session")
def record(request: pytest.FixtureRequest) -> Record:
    """The counts of this session."""
    return request.session.stash.setdefault(RECORD, Record())


@pytest.fixture(scope="session")
def forks() -> Iterator[Forks]:
    with Forks() as started:
        yield started
