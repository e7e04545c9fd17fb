"""Kills and resumes: one chain of them, and where a kill hit."""

import random
import signal
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.faults.forks import Child, Forks
from tests.faults.inject import BACKWARD, FILES, STEP, Fault
from tests.faults.record import WHERE
from tests.faults.runs import RUN, Trial, differences, next_line, status_of

KILLED = -signal.SIGKILL
# Where a kill hit, by a function that was running; the first that fits.
PLACES = {
    "rlgen_cli.core.checkpoint:prune": "deletion of old checkpoints",
    "rlgen_cli.core.checkpoint:save": "write of a checkpoint",
    "rlgen_cli.rewards.adversarial:update": "update of a discriminator",
    "rlgen_cli.generators.joint:update": "joint update of generator and discriminator",
    "rlgen_cli.runs.stages:fit": "stage",
    "rlgen_cli.runs.pretrain:finish": "last samples",
    "rlgen_cli.runs.trainer:show": "evaluation",
    "rlgen_cli.runs.sample:write_samples": "last samples",
    "rlgen_cli.runs.compare:compare_results": "last samples",
    "rlgen_cli.runs.folder:claim": "start-up",
    "rlgen_cli.runs.stepper:step": "step of training",
}


@dataclass
class Chain:
    """What became of a run that was killed and went on."""

    kills: int = 0
    places: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)


def survive(
    forks: Forks, trial: Trial, folder: Path, instants: Iterable[Fault | float], expected: dict[str, Any] | None
) -> Chain:
    """Begin a run and go on with it, killed at each instant (a counted call, or seconds after the start), then go on to
    the end, and compare it with what is expected, if anything is."""
    chain = Chain()
    for instant in instants:
        child = killed(forks, next_line(trial, folder), folder, instant)
        if child.code == KILLED:
            chain.kills += 1
            chain.places[place(child, folder)] += 1
        elif child.code != 0:
            chain.failures.append(refusal(child, folder / RUN))
            return chain
    child = forks.run(next_line(trial, folder), folder)
    if child.code != 0:
        chain.failures.append(refusal(child, folder / RUN))
    elif expected is not None:
        chain.failures += [f"{found}{WHERE}{instants}" for found in differences(expected, folder / RUN)]
    return chain


def killed(forks: Forks, words: Sequence[str], folder: Path, instant: Fault | float) -> Child:
    """A command that is killed at an instant, if it comes so far."""
    if isinstance(instant, Fault):
        return forks.run(words, folder, [instant])
    child = forks.start(words, folder)
    if not child.ended(instant):
        child.kill()
        child.wait()
    return child


def refusal(child: Child, run: Path) -> str:
    """What a command said that should have gone on, and what there was to go on from."""
    left = sorted(str(path.relative_to(run)) for path in [*run.glob("*"), *run.glob("checkpoints/*")])
    return f"{child.command} exited with {child.code}: {' '.join(child.said[-400:].split())}{WHERE}{', '.join(left)}"


def place(child: Child, folder: Path) -> str:
    """Where a kill hit: by what was running, where the process told, else by what it left."""
    where = child.reported["where"]
    if where:
        return next((said for name, said in PLACES.items() if name in where), "start-up and records")
    run = folder / RUN
    if not (run / "config.yaml").exists():
        return "start-up"
    if list(run.rglob(".partial_*")) or list(run.rglob(".old_*")):
        return "write of a checkpoint"
    if (run / "samples" / "final").is_dir():
        return "last samples"
    return "stage" if "stage" in status_of(run) else "training"


def drawn(rng: random.Random, kills: int, counts: dict[str, int], seconds: float) -> list[Fault | float]:
    """Instants for kills: seconds of the clock, or any call of those that a whole run makes."""
    instants: list[Fault | float] = []
    for _ in range(kills):
        what = rng.choice(["clock", FILES, *(name for name in (BACKWARD, STEP) if counts.get(name))])
        if what == "clock":
            instants.append(rng.uniform(0, seconds))
        else:
            instants.append(Fault(what, rng.randint(1, counts[what])))
    return instants
