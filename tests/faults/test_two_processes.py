"""Two processes in one place: one run's folder belongs to one process, and one entry of the cache is written by one. The
first is stopped (SIGSTOP) at a chosen call while the second does what it does."""

import shutil
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.faults.forks import PATIENCE, Child, Forks
from tests.faults.inject import BACKWARD, FILES, STEP, Fault
from tests.faults.record import WHERE, Record
from tests.faults.runs import RUN, differences, named, outcome, sentence

pytestmark = pytest.mark.faults
TRIAL = named("tiny_dqn")
GAN = named("latent_gan_dqn")
WAITS = 4.0  # seconds after which a process that has not ended waits for another: four times what it takes alone
LOOK = 0.01  # seconds between looks whether a process has stopped


@pytest.fixture(scope="module")
def ends(forks, tmp_path_factory):
    """What both trials come to alone."""
    place = tmp_path_factory.mktemp("alone")
    for trial in (TRIAL, GAN):
        child = forks.run(trial.line, place / trial.name)
        assert child.code == 0, child.said
    return {trial.name: outcome(place / trial.name / RUN) for trial in (TRIAL, GAN)}


def stopped(forks: Forks, words: Sequence[str], place: Path, fault: Fault, privileged: bool = True) -> Child:
    """A process that has stopped at a call."""
    child = forks.start(words, place, [fault], privileged)
    until = time.monotonic() + PATIENCE
    while "State:\tT" not in Path(f"/proc/{child.number}/status").read_text():
        assert time.monotonic() < until, child.said
        time.sleep(LOOK)
    return child


def refused(child: Child, what: str) -> list[str]:
    """What is wrong with a process that must not go on in the folder of another."""
    if child.code == 0:
        return [f"{what} went on in the folder of a run that is being trained"]
    return (
        [] if sentence(child) else [f"{what} exited with {child.code}, without one sentence{WHERE}{child.said[-300:]}"]
    )


def report(kind: str, failures: list[str], record: Record) -> None:
    record.add(kind, TRIAL.title, 1, min(1, len(failures)), failures)
    assert not failures, "\n".join(failures)


@pytest.mark.parametrize("second", ["train", "resume"])
@pytest.mark.parametrize("first", ["train", "resume"])
def test_one_folder_belongs_to_one_process(first, second, forks, record, ends, tmp_path):
    """The second is refused in one sentence, and the first goes on as if nothing had been."""
    lines, fault = {"train": TRIAL.line, "resume": TRIAL.on}, Fault(STEP, 6, "SIGSTOP")
    if first == "resume":
        assert forks.run([*TRIAL.line, "stop_at=16"], tmp_path / "place").said
        fault = Fault(STEP, 5, "SIGSTOP")
    owner = stopped(forks, lines[first], tmp_path / "place", fault)
    failures = refused(forks.run(lines[second], tmp_path / "place"), f"a second process ({second})")
    owner.kill(signal.SIGCONT)
    if owner.wait() != 0:
        failures.append(f"the first process exited with {owner.code}{WHERE}{owner.said[-300:]}")
    failures += differences(ends[TRIAL.name], tmp_path / "place" / RUN)
    report(f"{first} and {second} in one folder", failures, record)


def test_the_lock_goes_with_its_owner(forks, record, ends, tmp_path):
    owner = stopped(forks, TRIAL.line, tmp_path / "place", Fault(STEP, 6, "SIGSTOP"))
    owner.kill()
    assert owner.wait() == -signal.SIGKILL
    again = forks.run(TRIAL.on, tmp_path / "place")
    failures = [f"refused{WHERE}{again.said[-300:]}"] if again.code else []
    report(
        "resume after a kill of the owner", failures + differences(ends[TRIAL.name], tmp_path / "place" / RUN), record
    )


@pytest.mark.parametrize("at", range(1, 10))
def test_two_trainings_that_begin_in_one_folder(at, forks, record, ends, tmp_path):
    """The first is stopped at each operation on files with which it begins: exactly one of both goes on."""
    place = tmp_path / "place"
    first = stopped(forks, TRIAL.line, place, Fault(FILES, at, "SIGSTOP"))
    second = forks.run(TRIAL.line, place)
    first.kill(signal.SIGCONT)
    first.wait()
    failures: list[str] = []
    if sorted([first.code, second.code]) != [0, 2]:
        failures.append(
            f"two trainings began in one folder, and exited with {first.code} and {second.code}{WHERE}operation {at}"
        )
    failures += differences(ends[TRIAL.name], place / RUN)
    report("two trainings that begin in one folder", failures, record)


@pytest.mark.parametrize("killed", [False, True], ids=["goes on", "is killed"])
def test_a_stage_that_another_run_fits_is_waited_for(killed, forks, record, ends, tmp_path):
    """Two runs that need the same GAN: the second takes it from the cache as soon as the first has fitted it, or fits it
    itself where the first is no more."""
    place, other = tmp_path / "place", [*GAN.words, "hydra.run.dir=other"]
    failures: list[str] = []
    first = stopped(forks, GAN.line, place, Fault(BACKWARD, 9, "SIGSTOP"))
    second = forks.start(["train", *other], place)
    if second.ended(WAITS):
        failures.append("a run fitted what another was fitting")
    first.kill(signal.SIGKILL if killed else signal.SIGCONT)
    first.wait()
    if second.wait() != 0:
        failures.append(f"the second exited with {second.code}{WHERE}{second.said[-300:]}")
    if not killed:
        failures += differences(ends[GAN.name], place / RUN)
    kept = {name: value for name, value in ends[GAN.name].items() if name != "metrics"}  # it has none of the stage
    failures += differences(kept, place / "other")
    report("two runs that fit one stage", failures, record)


def test_two_runs_write_one_entry_of_the_cache(forks, record, ends, tmp_path):
    """The first is stopped at each operation on files with which it writes the entry."""
    whole = forks.run(GAN.line, tmp_path / "whole")
    trace = [(at, event) for at, (event, path) in enumerate(whole.reported["trace"], 1) if path.startswith("cache/")]
    instants = sorted({at for at, event in trace if event == "os.rename"} | {at for at, _ in trace[::4]})
    failures: list[str] = []
    lost = 0
    kept = {name: value for name, value in ends[GAN.name].items() if name != "metrics"}
    for at in instants:
        place = tmp_path / str(at)
        first = stopped(forks, GAN.line, place, Fault(FILES, at, "SIGSTOP"))
        second = forks.start(["train", *GAN.words, "hydra.run.dir=other"], place)
        second.ended(WAITS)
        first.kill(signal.SIGCONT)
        codes = first.wait(), second.wait()
        found = [] if codes == (0, 0) else [f"two runs that write one entry exited with {codes}{WHERE}operation {at}"]
        shutil.rmtree(place / "third", ignore_errors=True)
        third = forks.run(["train", *GAN.words, "hydra.run.dir=third"], place)
        found += [f"the entry cannot be used{WHERE}operation {at}"] if third.code else []
        for name in (RUN, "other", "third"):
            if (place / name / "status.json").exists():
                found += differences(kept, place / name)
        failures, lost = failures + found, lost + bool(found)
    record.add("two runs that write one entry of the cache", GAN.title, len(instants), lost, failures)
    assert not failures, "\n".join(failures)
