"""One trial: a training, watched while it runs, and the number that it came to."""

import math
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rlgen_cli.core.files import read_json
from rlgen_cli.runs.process import reason, run_process
from rlgen_cli.runs.records import curves_of
from rlgen_cli.runs.states import PREEMPTED, write_failure

SAMPLES = 500  # that `rlgen eval` judges for a trial


class Stopped(Exception):
    """A signal stopped the trial, and the search with it."""


class Pruned(Exception):
    """The trial was worse than most at its step."""


class Failed(Exception):
    """The trial came to no number; says why."""


class Trial:
    """A training in its folder, for an Optuna trial.

    Args:
        trial: Optuna's. folder: of the run. metric: what is sought. warmup: values of it before the trial may be
            stopped.
    """

    def __init__(self, trial: Any, folder: Path, metric: str, warmup: int) -> None:
        self.trial, self.folder, self.metric, self.warmup = trial, folder, metric, warmup
        self.seen, self.pruned = 0, False

    def run(self, flags: Sequence[str], words: Sequence[str]) -> float:
        """Train; returns the metric.

        Raises:
            Stopped, Pruned, Failed: as they say.
        """
        line = [*flags, *words, f"hydra.run.dir={self.folder}"]
        if (self.folder / "config.yaml").exists():
            line = [*flags, f"resume={self.folder}"]
        code, said = run_process([sys.executable, "-m", "rlgen_cli", "train", *line], stop=self.is_hopeless)
        if self.pruned:
            raise Pruned
        if code == PREEMPTED:
            raise Stopped
        if code:
            why = reason(code, said)
            write_failure(self.folder, why)
            raise Failed(why)
        self.is_hopeless()  # the last values
        return self.number()

    def is_hopeless(self) -> bool:
        """Report what the run has recorded since the last time; whether it is worse than most at that step."""
        curve = curves_of(self.folder).get(self.metric)
        if curve is None or self.pruned:
            return self.pruned
        for step, value in list(zip(curve.steps, curve.values, strict=True))[self.seen :]:
            self.trial.report(value, int(step))
            self.seen += 1
            if self.seen > self.warmup and self.trial.should_prune():
                self.pruned = True
                break
        return self.pruned

    def number(self) -> float:
        """What the metric came to.

        Raises:
            Failed: where it came to nothing.
        """
        curve = curves_of(self.folder).get(self.metric)
        if curve is not None:
            return curve.values[-1]
        value = evaluated(self.folder).get(self.metric)
        if value is None or not math.isfinite(value):
            raise Failed(f"neither its records nor rlgen eval have {self.metric}")
        return value


def evaluated(folder: Path) -> dict[str, float]:
    """The numbers of `rlgen eval`, by name.

    Raises:
        Failed: where that fails.
    """
    line = ["eval", f"run={folder}", f"n={SAMPLES}", "baselines=[]", f"out={folder / 'eval.json'}"]
    done = subprocess.run([sys.executable, "-m", "rlgen_cli", *line], capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failed(reason(done.returncode, done.stderr.splitlines()))
    return numbers_of(read_json(folder / "eval.json", "eval"))


def numbers_of(record: dict[str, Any]) -> dict[str, float]:
    """The samples' column of an evaluation."""
    return {name: row["samples"] for name, row in record["numbers"].items() if row.get("samples") is not None}
