"""Disks that are full and folders that cannot be written: a command ends with one sentence and an exit code that is not 0,
what was saved before is there, and the run goes on once there is room again."""

import contextlib
import os
import shutil
import signal
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rlgen_cli.core import checkpoint
from tests.faults.forks import Child, Forks
from tests.faults.inject import FILES, STEP, Fault
from tests.faults.kills import refusal
from tests.faults.record import WHERE, Record
from tests.faults.runs import PARTS, RUN, Trial, contents, differences, failed, named, next_line, outcome, status_of
from tests.faults.test_two_processes import stopped

pytestmark = pytest.mark.faults
TRIAL = named("tiny_random")
HELPED = named("pixel_reinforce_classifier")  # with a stage, whose result goes to the cache
SHARES = (0.1, 0.3, 0.5, 0.7, 0.9)  # of the room that a run needs
ENOUGH = 1 << 16  # bytes in which status.json can be written
READ_ONLY, NOTHING = 0o555, 0o000


@pytest.fixture(scope="module")
def whole(forks, tmp_path_factory):
    """Both trials, with nothing done to them: the process, and the folder."""
    place = tmp_path_factory.mktemp("whole")
    found = {trial.name: (forks.run(trial.line, place / trial.name), place / trial.name) for trial in (TRIAL, HELPED)}
    assert all(child.code == 0 for child, _ in found.values())
    return found


def told(child: Child, place: Path, writable: bool = True) -> list[str]:
    """What is wrong with how a process told that it could not write."""
    lines = [line for line in child.said.splitlines() if line.startswith("rlgen: ")]
    problems = []
    if child.code == 0:
        problems.append(f"rlgen {child.words[0]} exited with 0")
    if "Traceback" in child.said or len(lines) != 1:
        problems.append(f"no sentence: {failed(child)}")
    if writable and status_of(place / RUN).get("status") == "running":
        problems.append("status.json says running")
    return problems


def intact(place: Path, before: list[str]) -> list[str]:
    """Which of the checkpoints that were there are no more."""
    damaged = [name for name in before if isinstance(contents(place / RUN / "checkpoints" / name, PARTS), str)]
    return [f"lost {name}" for name in damaged]


def goes_on(forks: Forks, trial: Trial, place: Path, expected: dict[str, Any]) -> list[str]:
    """What is wrong with how the run goes on when there is room again."""
    child = forks.run(next_line(trial, place), place)
    return [refusal(child, place / RUN)] if child.code else differences(expected, place / RUN)


def report(kind: str, trial: Trial, found: dict[str, list[str]], record: Record) -> None:
    """Count what was done, by where, and fail with all that failed."""
    failures = [
        f"{problem.replace(WHERE, ' ')}{WHERE}{where}" for where, problems in found.items() for problem in problems
    ]
    record.add(kind, trial.title, len(found), sum(map(bool, found.values())), failures)
    assert not failures, "\n".join(failures)


@pytest.mark.parametrize("lasting", [False, True], ids=["for a moment", "for good"])
@pytest.mark.parametrize("error", ["ENOSPC", "EIO", "EROFS"])
def test_a_write_fails_at_every_operation_of_a_checkpoint(error, lasting, forks, record, whole, tmp_path):
    child, folder = whole[TRIAL.name]
    expected, trace = outcome(folder / RUN), list(enumerate(child.reported["trace"], 1))
    instants = [at for at, (_, path) in trace if path.startswith("run/checkpoints/.partial_step_000000032")]
    instants = instants if error == "ENOSPC" else instants[::5]
    found = {}
    for at in instants:
        place = tmp_path / str(at)
        failing = forks.run(TRIAL.line, place, [Fault(FILES, at, error, lasting)])
        if failing.code == 0 and error == "ENOSPC" and not lasting:
            found[f"operation {at}"] = differences(expected, place / RUN)  # one that needs no room
            continue
        problems = told(failing, place, writable=not lasting) + intact(place, ["step_000000016"])
        found[f"operation {at}"] = problems + goes_on(forks, TRIAL, place, expected)
    report(f"{error} {'for good' if lasting else 'once'} in a write of a checkpoint", TRIAL, found, record)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Mounts file systems of some bytes in memory."""
    mounted: list[Path] = []

    def mount(size: int) -> Path:
        place = tmp_path / f"disk{len(mounted)}"
        place.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
        if subprocess.run(command, capture_output=True).returncode != 0:
            pytest.skip("needs the right to mount; errors of the same kind are injected above")
        mounted.append(place)
        return place

    yield mount
    for place in mounted:
        subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize("trial", [TRIAL, named("tiny_dqn"), HELPED], ids=lambda trial: trial.name)
def test_a_full_disk(trial, forks, record, small_disk, tmp_path):
    """What else lies on the disk leaves a share of the room that the run needs."""
    disk = small_disk(1 << 26)
    child = forks.run(trial.line, disk / "whole")
    assert child.code == 0, child.said
    expected, needed = outcome(disk / "whole" / RUN), used(disk)
    shutil.rmtree(disk / "whole")
    found = {}
    for share in SHARES:
        place, ballast = disk / str(share), disk / "ballast"
        ballast.write_bytes(bytes(free(disk) - int(share * needed)))
        failing = forks.run(trial.line, place)
        before = [path.name for path in checkpoint.steps(place / RUN)]
        problems = told(failing, place, writable=free(disk) > ENOUGH) + intact(place, before)
        ballast.unlink()
        found[f"{share:.0%} of the room"] = problems + goes_on(forks, trial, place, expected)
        shutil.rmtree(place)
    report("a full disk", trial, found, record)


def free(disk: Path) -> int:
    """Bytes, in whole blocks but the last ones."""
    there = os.statvfs(disk)
    return there.f_bavail * there.f_frsize


def used(disk: Path) -> int:
    there = os.statvfs(disk)
    return (there.f_blocks - there.f_bfree) * there.f_frsize


@contextlib.contextmanager
def mode(paths: list[Path], bits: int) -> Iterator[None]:
    """Other rights for a while."""
    before = {path: stat.S_IMODE(path.stat().st_mode) for path in paths}
    for path in before:
        path.chmod(bits)
    try:
        yield
    finally:
        for path, old in before.items():
            path.chmod(old)


def folders(place: Path) -> list[Path]:
    return [place, *(path for path in place.rglob("*") if path.is_dir())]


def test_a_folder_in_which_nothing_can_be_written(forks, record, whole, tmp_path):
    place, found = tmp_path / "place", {}
    place.mkdir()
    with mode([place], READ_ONLY):
        child = forks.run(TRIAL.line, place, privileged=False)
    found["a training that begins"] = told(child, place)
    shutil.copytree(whole[TRIAL.name][1], place, dirs_exist_ok=True)
    with mode(folders(place / RUN), READ_ONLY):
        child = forks.run([*TRIAL.on, "total_steps=64"], place, privileged=False)
        found["a resume"] = told(child, place)
        child = forks.run(["sample", f"run={RUN}", "n=2"], place, privileged=False)
        found["samples into the run's folder"] = told(child, place)
        child = forks.run(["sample", f"run={RUN}", "n=2", "out=made"], place, privileged=False)
        found["samples elsewhere"] = [] if child.code == 0 else [failed(child)]
    report("a read-only folder", TRIAL, found, record)


@pytest.mark.parametrize("where", ["run", "run/checkpoints"])
def test_rights_that_are_lost_meanwhile(where, forks, record, whole, tmp_path):
    place = tmp_path / "place"
    running = stopped(forks, TRIAL.line, place, Fault(STEP, 6, "SIGSTOP"), privileged=False)
    with mode(folders(place / where), READ_ONLY):
        running.kill(signal.SIGCONT)
        running.wait()
        problems = told(running, place, writable=where != "run") + intact(place, ["step_000000016"])
    problems += goes_on(forks, TRIAL, place, outcome(whole[TRIAL.name][1] / RUN))
    report("rights that are lost during a training", TRIAL, {where: problems}, record)


def test_files_that_cannot_be_read(forks, record, whole, tmp_path):
    """A checkpoint without rights is a damaged one; a run without its config is none."""
    found = {}
    for name in ("policy/state.json", "training/state.json", "manifest.json", "policy", ""):
        place = tmp_path / f"place_{name.replace('/', '_')}"
        shutil.copytree(whole[TRIAL.name][1], place)
        newest = checkpoint.steps(place / RUN)[-1]
        with mode([newest / name], NOTHING):
            child = forks.run(["sample", f"run={RUN}", "n=2", "out=made"], place, privileged=False)
            read = not name.startswith("training")
            problems = [] if child.code == 0 else [failed(child)]
            problems += ["rlgen sample does not name it"] if read and newest.name not in child.said else []
        found[f"checkpoint/{name}"] = problems
    place = tmp_path / "config"
    shutil.copytree(whole[TRIAL.name][1], place)
    with mode([place / RUN / "config.yaml"], NOTHING):
        for line in (["sample", f"run={RUN}", "n=2", "out=made"], TRIAL.on):
            found[f"config.yaml, {line[0]}"] = told(forks.run(line, place, privileged=False), place)
    report("files that cannot be read", TRIAL, found, record)


@pytest.mark.parametrize("where", ["run", "run/checkpoints"])
def test_a_folder_that_is_deleted_meanwhile(where, forks, record, whole, tmp_path):
    """A run without its folder ends with one sentence; where its checkpoints alone have gone, it may make new ones."""
    place = tmp_path / "place"
    running = stopped(forks, TRIAL.line, place, Fault(STEP, 6, "SIGSTOP"))
    shutil.rmtree(place / where)
    running.kill(signal.SIGCONT)
    running.wait()
    if where == "run/checkpoints" and running.code == 0:
        problems = differences(outcome(whole[TRIAL.name][1] / RUN), place / RUN)
    else:
        problems = told(running, place)
    report("a folder that is deleted during a training", TRIAL, {where: problems}, record)


@pytest.mark.parametrize("bits", [READ_ONLY, NOTHING], ids=["read-only", "not to be opened"])
def test_a_cache_that_cannot_be_written(bits, forks, record, whole, tmp_path):
    """One sentence; or the run goes on without it, and says so."""
    expected, found = outcome(whole[HELPED.name][1] / RUN), {}
    for name, there in (("an empty cache", []), ("a cache with other entries", ["classifier"])):
        place = tmp_path / name
        for folder in ("", *there):
            (place / "cache" / folder).mkdir(parents=True, exist_ok=True)
        with mode(folders(place / "cache")[::-1], bits):
            child = forks.run(HELPED.line, place, privileged=False)
        if child.code == 0:
            problems = differences(expected, place / RUN)
            problems += [] if "cache" in child.said else ["a run went on without a cache and did not say so"]
        else:
            problems = told(child, place) + goes_on(forks, HELPED, place, expected)
        found[name] = problems
    report("a cache that cannot be written", HELPED, found, record)
