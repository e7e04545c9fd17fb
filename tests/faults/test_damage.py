"""Damaged files in a run's folder and in the cache: the damage is named, the newest intact checkpoint is taken, nothing is
deleted, and the run ends as if nothing had been."""

import hashlib
import json
import logging
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rlgen_cli.core import checkpoint
from tests.faults.damage import FOLDERS, KINDS
from tests.faults.forks import Child, Forks
from tests.faults.record import WHERE, Record
from tests.faults.runs import RUN, differences, failed, named, outcome, sentence

pytestmark = pytest.mark.faults
TRIAL = named("pixel_reinforce_classifier")  # which has a stage, whose result is in the cache, too
SAMPLE = ["sample", f"run={RUN}", "n=2", "out=made"]
NEWEST, OLDER = "step_000000040", "step_000000032"
# What a run writes to be read by people: of no weight for what goes on.
LOST = {"metrics.jsonl": "metrics", "samples": "made"}  # what of an outcome is lost with a file
RECORDS = ("metrics.jsonl", "status.json", "environment.json", "train.log")


@dataclass
class Runs:
    """Runs of one config that each test takes copies of."""

    half: Path  # stopped at step 40, with checkpoints at 32 and 40
    finished: Path
    expected: dict[str, Any]  # the outcome of all


@pytest.fixture(scope="module")
def runs(forks: Forks, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    place = tmp_path_factory.mktemp("runs")
    half, finished = place / "half", place / "finished"
    for folder, more in ((half, ["stop_at=40"]), (finished, [])):
        child = forks.run([*TRIAL.line, *more], folder)
        assert child.code == 0, child.said
    assert [path.name for path in checkpoint.steps(half / RUN)] == [OLDER, NEWEST]
    return Runs(half, finished, outcome(finished / RUN))


class Trials:
    """Does damage to copies of runs, one after another, and collects what goes wrong."""

    def __init__(self, forks: Forks, folder: Path) -> None:
        self.forks, self.folder = forks, folder
        self.done = self.lost = 0
        self.failures: list[str] = []

    def copy(self, base: Path) -> Path:
        """The folder of the next trial."""
        self.done += 1
        place = self.folder / str(self.done)
        shutil.copytree(base, place, symlinks=True)
        return place

    def check(self, what: str, problems: list[str]) -> None:
        """Note what went wrong with a damaged copy."""
        self.lost += bool(problems)
        self.failures += [f"{problem}{WHERE}{what}" for problem in problems]

    def report(self, kind: str, record: Record) -> None:
        """Count all, and fail with all that failed."""
        record.add(kind, TRIAL.title, self.done, self.lost, self.failures)
        assert not self.failures, "\n".join(self.failures)


@pytest.fixture
def trials(forks: Forks, tmp_path: Path) -> Trials:
    return Trials(forks, tmp_path / "trials")


def goes_on(trials: Trials, place: Path, expected: dict[str, Any], named: str | None) -> list[str]:
    """What is wrong with how a damaged run goes on; `named` must be in what it says."""
    child = trials.forks.run(TRIAL.on, place)
    if child.code != 0:
        return [failed(child)]
    unnamed = [] if named is None or named in child.said else ["resume does not name the damaged file"]
    return unnamed + differences(expected, place / RUN)


def samples(trials: Trials, place: Path, named: str | None) -> list[str]:
    """What is wrong with what `rlgen sample` does with a damaged run."""
    before = digests(place)
    child = trials.forks.run(SAMPLE, place)
    if child.code != 0:
        return [failed(child)]
    unnamed = [] if named is None or named in child.said else ["sample does not name the damaged file"]
    changed = [] if before.items() <= digests(place).items() else ["sample changed or deleted files"]
    return unnamed + changed


def refuses(child: Child, place: Path, before: dict[str, str]) -> list[str]:
    """What is wrong with a command that must refuse: one sentence, exit code 2, nothing touched."""
    problems = [] if sentence(child) else [failed(child)]
    return problems + (
        [] if before.items() <= digests(place).items() else [f"{child.words[0]} changed or deleted files"]
    )


def digests(place: Path) -> dict[str, str]:
    """Of every file that a training leaves, by its path."""
    files = [path for name in (RUN, "cache") for path in (place / name).rglob("*") if path.is_file()]
    return {str(path.relative_to(place)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def files(folder: Path) -> Iterator[str]:
    """The files below a folder, relative to it."""
    return (str(path.relative_to(folder)) for path in sorted(folder.rglob("*")) if path.is_file())


def test_damage_to_the_newest_checkpoint_of_a_stopped_run(runs, trials, record):
    newest = runs.half / RUN / "checkpoints" / NEWEST
    for name in files(newest):
        for kind, damage in KINDS.items():
            place = trials.copy(runs.half)
            damage(place / RUN / "checkpoints" / NEWEST / name)
            named = NEWEST if name == "manifest.json" else f"{NEWEST}/{name}"  # or a file whose digest is another one
            problems = samples(trials, place, named) if name.startswith("policy/") else []
            problems += goes_on(trials, place, runs.expected, named)
            trials.check(f"{name} {kind}", problems)
    trials.report("damage to a file of the newest checkpoint, stopped run", record)


def test_sampling_needs_no_more_than_the_policy(runs, trials, record):
    newest = runs.half / RUN / "checkpoints" / NEWEST
    for name in (name for name in files(newest) if name.partition("/")[0] in ("training", "streams")):
        place = trials.copy(runs.half)
        KINDS["truncated"](place / RUN / "checkpoints" / NEWEST / name)
        child = trials.forks.run(SAMPLE, place)
        trials.check(
            name, [failed(child)] if child.code else ["damage that is not read is named"] * (name in child.said)
        )
    trials.report("samples of a checkpoint whose other parts are damaged", record)


def test_damage_to_the_newest_checkpoint_of_a_finished_run(runs, trials, record):
    newest, rng = checkpoint.steps(runs.finished / RUN)[-1], random.Random(1)
    for name in files(newest):
        for kind in rng.sample(sorted(KINDS), 2):
            place = trials.copy(runs.finished)
            KINDS[kind](place / RUN / "checkpoints" / newest.name / name)
            named = newest.name if name == "manifest.json" else f"{newest.name}/{name}"
            problems = goes_on(trials, place, runs.expected, named)
            trials.check(f"{name} {kind}", problems)
    trials.report("damage to a file of the newest checkpoint, finished run", record)


def test_a_file_of_another_checkpoint(runs, trials, record):
    checkpoints = runs.half / RUN / "checkpoints"
    for name in files(checkpoints / NEWEST):
        other = (checkpoints / OLDER / name).read_bytes()
        if other != (checkpoints / NEWEST / name).read_bytes():
            place = trials.copy(runs.half)
            (place / RUN / "checkpoints" / NEWEST / name).write_bytes(other)
            named = None if name == "manifest.json" else f"{NEWEST}/{name}"
            trials.check(f"{name} of {OLDER}", goes_on(trials, place, runs.expected, named))
    trials.report("a file of another checkpoint", record)


def test_damaged_checkpoint_folders(runs, trials, record):
    for kind, damage in FOLDERS.items():
        place = trials.copy(runs.half)
        damage(place / RUN / "checkpoints" / NEWEST)
        problems = samples(trials, place, NEWEST) + goes_on(trials, place, runs.expected, NEWEST)
        trials.check(kind, problems)
    trials.report("damage to a checkpoint's folder", record)


def test_what_does_not_belong_among_checkpoints(runs, trials, record):
    """Half-written folders of killed processes, and what a user may have put there."""
    for name in (
        ".partial_step_000000048_1",
        ".old_step_000000040_1",
        "step_000000999",
        "step_last",
        "step_000000040.bak",
        "notes",
    ):
        for half in (True, False):
            place = trials.copy(runs.half)
            there = place / RUN / "checkpoints" / name
            if half:
                shutil.copytree(runs.half / RUN / "checkpoints" / NEWEST / "policy", there / "policy")
            else:
                there.mkdir()
            problems = samples(trials, place, None) + goes_on(trials, place, runs.expected, None)
            trials.check(f"{'a half-written' if half else 'an empty'} {name}", problems)
    trials.report("other folders among the checkpoints", record)


def test_no_intact_checkpoint(runs, trials, record):
    """Both commands refuse in one sentence; a part that is not read may be damaged."""
    names = list(files(runs.half / RUN / "checkpoints" / NEWEST))
    for name in names:
        for kind in ("bit flipped at a third", "removed"):
            place = trials.copy(runs.half)
            for path in checkpoint.steps(place / RUN):
                KINDS[kind](path / name)
            before = digests(place)
            problems = refuses(trials.forks.run(TRIAL.on, place), place, before)
            if name.startswith("policy/"):
                problems += refuses(trials.forks.run(SAMPLE, place), place, before)
            elif name != "manifest.json":
                problems += samples(trials, place, None)
            trials.check(f"{name} {kind} in all checkpoints", problems)
    trials.report("damage to all checkpoints", record)


def test_what_is_saved_beside_damaged_newer_checkpoints_stays(runs, trials, record):
    """Only the best checkpoint is intact, two newer ones are not: the run goes on from it, and what it saves is kept."""
    place = trials.copy(runs.half)
    shutil.rmtree(place / RUN)
    words = [*TRIAL.words, "eval_interval=24", "checkpoint_interval=8", "stop_at=40", f"hydra.run.dir={RUN}"]
    assert trials.forks.run(["train", *words], place).code == 0
    best, *newer = checkpoint.steps(place / RUN)
    assert (best.name, [path.name for path in newer]) == ("step_000000024", [OLDER, NEWEST])
    for path in newer:
        KINDS["truncated"](path / "training" / "agent.safetensors")
    stopped = trials.forks.run([*TRIAL.on, "stop_at=28"], place)
    problems = [] if stopped.code == 0 else [failed(stopped)]
    if checkpoint.newest(place / RUN).name != "step_000000028":
        problems.append("a run that says that its checkpoint is saved has deleted it")
    trials.check("stop after a resume from the best checkpoint", problems)
    trials.report("two damaged checkpoints that are newer", record)


def test_damage_to_records(runs, trials, record):
    """Neither a resume nor sampling depends on what was written for people."""
    run = runs.half / RUN
    events = [name for name in files(run) if name.startswith("tensorboard/")]
    pictures = [name for name in files(run) if name.startswith("samples/")][:1]
    for name in (*RECORDS, *events, *pictures):
        for kind, damage in KINDS.items():
            place = trials.copy(runs.half)
            damage(place / RUN / name)
            kept = {key: value for key, value in runs.expected.items() if key != LOST.get(name.partition("/")[0])}
            problems = samples(trials, place, None) + goes_on(trials, place, kept, None)
            trials.check(f"{name} {kind}", problems)
    trials.report("damage to records", record)


@pytest.mark.parametrize("kind", KINDS)
def test_damage_to_the_config(kind, runs, trials, record):
    """Without it nothing can go on, and there is no digest of it: one sentence, or the run goes on."""
    place = trials.copy(runs.half)
    KINDS[kind](place / RUN / "config.yaml")
    before, problems = digests(place), []
    for line in (SAMPLE, TRIAL.on):
        child = trials.forks.run(line, place)
        if child.code != 0:
            problems += refuses(child, place, before)
    trials.check(f"config.yaml {kind}", problems)
    trials.report("damage to config.yaml", record)


@pytest.mark.parametrize("cached", [True, False], ids=["cached", "not cached"])
def test_damage_to_the_result_of_a_stage(cached, runs, trials, record):
    """It is named, and taken from the cache or fitted anew."""
    stage = runs.half / RUN / "stages" / "classifier" / "result"
    for name in files(stage):
        for kind, damage in KINDS.items():
            place = trials.copy(runs.half)
            damage(place / RUN / "stages" / "classifier" / "result" / name)
            if not cached:
                shutil.rmtree(place / "cache")
            problems = goes_on(trials, place, runs.expected, f"result/{name}")
            trials.check(f"stages/classifier/result/{name} {kind}", problems)
    trials.report(f"damage to a stage's result, {'in the cache' if cached else 'not in the cache'}", record)


def test_damage_to_the_cache(runs, trials, record):
    """A run that begins names it, and fits anew."""
    (cached,) = (runs.half / "cache" / "classifier").glob("[0-9a-f]*")
    where = cached.relative_to(runs.half)
    for name in files(cached):
        for kind, damage in KINDS.items():
            place = trials.copy(runs.half)
            shutil.rmtree(place / RUN)
            damage(place / where / name)
            child = trials.forks.run(TRIAL.line, place)
            problems = [failed(child)] if child.code else differences(runs.expected, place / RUN)
            problems += [] if child.code or name in child.said else ["train does not name the damaged file"]
            trials.check(f"cache: {name} {kind}", problems)
    trials.report("damage to a file of the cache", record)


MANIFESTS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "a list": lambda manifest: [manifest],
    "a number": lambda manifest: 2,
    "null": lambda manifest: None,
    "no digests": lambda manifest: {"format": manifest["format"]},
    "digests that are a list": lambda manifest: manifest | {"sha256": list(manifest["sha256"])},
    "digests that are null": lambda manifest: manifest | {"sha256": None},
    "digests that are numbers": lambda manifest: manifest | {"sha256": dict.fromkeys(manifest["sha256"], 0)},
    "a format that is a word": lambda manifest: manifest | {"format": "new"},
}


@pytest.mark.parametrize("part", ["policy", None])
def test_a_manifest_with_any_bit_flipped(part, runs, trials, record, caplog):
    """The older checkpoint is taken, or the newest is right all the same; nothing else comes of it."""
    caplog.set_level(logging.ERROR)
    place = trials.copy(runs.half)
    path = place / RUN / "checkpoints" / NEWEST / "manifest.json"
    intact, wanted = path.read_bytes(), part or "training"
    right = {
        name: checkpoint.load(place / RUN / "checkpoints" / name, wanted, "cpu").keys() for name in (OLDER, NEWEST)
    }
    contents = {f"bit {bit} of byte {i} flipped": flip(intact, i, bit) for i in range(len(intact)) for bit in (0, 5)}
    contents |= {name: json.dumps(change(json.loads(intact))).encode() for name, change in MANIFESTS.items()}
    for what, content in contents.items():
        path.write_bytes(content)
        try:
            taken = checkpoint.newest(place / RUN, part)
            same = checkpoint.load(taken, wanted, "cpu").keys() == right[taken.name]
            trials.check(f"{what}", [] if same else [f"{taken.name} is taken, without some of its components"])
        except Exception as error:
            trials.check(f"{what}", [f"{type(error).__name__}: {error}".replace(str(place), "…")])
    trials.done = len(contents)
    trials.report(f"damage to a manifest, read for {part or 'all parts'}", record)


def flip(content: bytes, i: int, bit: int) -> bytes:
    changed = bytearray(content)
    changed[i] ^= 1 << bit
    return bytes(changed)
