"""Kills in the midst of a checkpoint's write: the run goes on and ends as if nothing had been. `make test-faults` does a
thousand more faults to more kinds of runs (tests/faults)."""

import re
import sys
from collections.abc import Iterator

import pytest

from tests.faults.forks import Forks
from tests.faults.inject import FILES, TORN, Fault
from tests.faults.kills import survive
from tests.faults.runs import RUN, named, outcome

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="paths of open files are read from /proc")
# Operations on files in `checkpoints`, by what they do there.
INSTANTS = {
    "half a file is written": ("os.fsync", r"\.\w*step_0+32\w*/training/state\.json", TORN),
    "nothing but the manifest is missing": ("open", r"\.\w*step_0+32\w*/manifest\.json", "SIGKILL"),
    "all is written and has not its name": ("os.rename", r"\.\w*step_0+32\w*", "SIGKILL"),
    "the folder is not synced": ("os.fsync", r"checkpoints", "SIGKILL"),
}


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    with Forks() as started:
        yield started


@pytest.mark.slow
def test_a_kill_while_a_checkpoint_is_written_changes_nothing(forks, tmp_path):
    trial = named("tiny_random")
    whole = forks.run(trial.line, tmp_path / "whole")
    assert whole.code == 0, whole.said
    for what, (event, path, do) in INSTANTS.items():
        trace = list(enumerate(whole.reported["trace"], 1))
        at = [at for at, found in trace if found[0] == event and re.fullmatch(f"run/(checkpoints/)?{path}", found[1])]
        chain = survive(forks, trial, tmp_path / what, [Fault(FILES, at[-1], do)], outcome(tmp_path / "whole" / RUN))
        assert (chain.kills, chain.failures) == (1, []), what
