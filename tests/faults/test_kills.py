"""Runs that are killed, at random and at every instant of a write, go on and end as if nothing had been."""

import random
import re
from dataclasses import replace
from pathlib import Path

import pytest

from tests.faults.forks import Child
from tests.faults.inject import FILES, TORN, Fault
from tests.faults.kills import KILLED, Chain, drawn, killed, refusal, survive
from tests.faults.record import WHERE, Record
from tests.faults.runs import RUN, TRIALS, Trial, differences, leftovers, named, outcome, status_of

pytestmark = pytest.mark.faults
SEED = 1
KILLS = 8  # of each run, at least; 200 of all
RESUMED = ["train", "sweep.resume=sweep"]
CHAINS = (1, 2, 3)  # kills until the run may go on to its end


@pytest.mark.parametrize("trial", TRIALS, ids=lambda trial: trial.name)
def test_kills_at_random_instants(trial, forks, record, tmp_path):
    whole = forks.run(trial.line, tmp_path / "whole")
    assert whole.code == 0, whole.said
    expected, rng = outcome(tmp_path / "whole" / RUN), random.Random(f"{SEED} {trial.name}")
    chains: list[Chain] = []
    while sum(chain.kills for chain in chains) < KILLS:
        kills = CHAINS[len(chains) % len(CHAINS)]
        instants = drawn(rng, kills, whole.reported["counts"], whole.seconds)
        chains.append(survive(forks, trial, tmp_path / str(len(chains)), instants, expected))
        assert len(chains) < KILLS * 3, "hardly any kill comes before the end"
    report("kill at a random instant", trial, chains, record)


TINY, GAN, MODEL = (
    named(name) for name in ("tiny_random", "latent_gan_pretrain_GAN", "music_pretrain_maximum_likelihood")
)
# What is written, by a pattern that the paths of its operations match, and how many of these are tried; None: all.
WRITES = {
    "the beginning of a run": (TINY, r"run(/\.\w+\.\w+\.\d+|/metrics\.jsonl|/train\.log)?$", None),
    "a checkpoint": (TINY, r"run/checkpoints", None),
    "samples": (TINY, r"run/samples/", 15),
    "a stage": (MODEL, r"run/stages", 40),
    "the cache": (GAN, r"cache", None),
}


@pytest.mark.parametrize("what", WRITES)
def test_kills_before_every_operation_of_a_write(what, forks, record, tmp_path):
    """And with half of a file on the disk, where a file is being written."""
    trial, pattern, most = WRITES[what]
    whole = forks.run(trial.line, tmp_path / "whole")
    assert whole.code == 0, whole.said
    ends, faults = outcome(tmp_path / "whole" / RUN), operations(whole, pattern)
    if most is not None and len(faults) > most:
        faults = random.Random(SEED).sample(faults, most)
    chains = [survive(forks, trial, tmp_path / f"{fault.at}{fault.do}", [fault], ends) for fault in faults]
    report(f"kill in a write of {what}", trial, chains, record)
    assert sum(chain.kills for chain in chains) == len(faults) > 0


def test_the_only_checkpoint_is_not_written_again(forks, tmp_path):
    """As it would be where a run is stopped at a step whose checkpoint was just written: there is nothing to kill."""
    stopped = replace(TINY, family="random, stopped", words=(*TINY.words, "stop_at=16"))
    whole = forks.run(stopped.line, tmp_path / "whole")
    assert status_of(tmp_path / "whole" / RUN)["status"] == "stopped"
    saved = 1 + whole.reported["trace"].index(["os.fsync", "run/checkpoints"])
    assert not [fault for fault in operations(whole, "run/checkpoints") if fault.at > saved]


def test_what_a_kill_leaves_is_cleared_away(forks, record, tmp_path):
    """Half-written checkpoints, which may be large, and half-deleted ones."""
    whole = forks.run(TINY.line, tmp_path / "whole")
    faults, failures = random.Random(SEED).sample(operations(whole, "run/checkpoints"), 12), []
    for fault in faults:
        place = tmp_path / f"{fault.at}{fault.do}"
        survive(forks, TINY, place, [fault], None)
        if left := leftovers(place / RUN):
            failures.append(f"a finished run still has what a killed process left{WHERE}{' and '.join(left)}")
    record.add("leftovers of a kill", TINY.title, len(faults), len(failures), failures)
    assert not failures, "\n".join(failures)


def test_kills_of_a_sweep(forks, record, tmp_path):
    """The sweep itself is killed; the job at work is told, and saves. `sweep.resume` does the rest."""
    line = ["train", "-m", *TINY.words, "seed=1,2,3", "hydra.sweep.dir=sweep"]
    whole, rng, chains = forks.run(line, tmp_path / "whole"), random.Random(SEED), []
    assert whole.code == 0, whole.said
    expected = {job: outcome(tmp_path / "whole" / "sweep" / job) for job in "012"}
    for number in range(KILLS):
        place, chain, instant = tmp_path / str(number), Chain(), rng.uniform(0, whole.seconds)
        chains.append(chain)
        chain.kills += killed(forks, line, place, instant).code == KILLED
        again = forks.run(line if not (place / "sweep" / "sweep.json").exists() else RESUMED, place)
        while "another process is at work" in again.said:  # the job that was told to stop
            again = forks.run(RESUMED, place)
        chain.failures += [] if again.code == 0 else [refusal(again, place)]
        for job in "012":
            found = differences(expected[job], place / "sweep" / job)
            chain.failures += [f"{difference}{WHERE}job {job}, {instant}" for difference in found]
    report("kill of a sweep", TINY, chains, record)
    assert sum(chain.kills for chain in chains) > KILLS // 2


def operations(whole: Child, pattern: str) -> list[Fault]:
    """A kill before each operation on files whose path begins as the pattern says, and at each that syncs a file, which
    is cut in half."""
    trace = list(enumerate(whole.reported["trace"], 1))
    found = [(at, event, path) for at, (event, path) in trace if re.match(pattern, path)]
    faults = [Fault(FILES, at) for at, _, _ in found]
    faults += [Fault(FILES, at, TORN) for at, event, path in found if event == "os.fsync" and Path(path).suffix]
    return faults


def report(kind: str, trial: Trial, chains: list[Chain], record: Record) -> None:
    """Count the chains, and fail with all that failed."""
    failures = [failure for chain in chains for failure in chain.failures]
    for chain in chains:
        record.places.update(chain.places)
    kills, lost = (sum(chain.kills for chain in part) for part in (chains, [c for c in chains if c.failures]))
    record.add(kind, trial.title, kills, lost, failures)
    assert not failures, "\n".join(failures)
