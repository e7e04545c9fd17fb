"""Learning curves: one line a group of runs that differ in their seeds alone, with a band from the lowest to the
highest seed."""

from typing import Any, NamedTuple

import numpy as np

from rlgen_cli.report.read import Run
from rlgen_cli.runs.records import Curve

POINTS = 500  # of a line, at most
FIRST = ("return", "eval/total", "eval/diversity")  # collapse is a reward that rises while diversity falls
SPEED = ("seconds", "steps_per_second")


class Band(NamedTuple):
    """A metric of a group over steps: the mean of its runs, and the lowest and highest of them."""

    steps: list[float]
    mean: list[float]
    low: list[float]
    high: list[float]
    runs: int


def metric_names(runs: list[Run]) -> list[str]:
    """All metrics: the most telling first, then scores, evaluations, learners and stages, and speed at last."""
    names = dict.fromkeys(name for run in runs for name in run.curves)
    kinds = ("score/", "eval/", "agent/")

    def rank(name: str) -> tuple[int, int]:
        if name in FIRST:
            return 0, FIRST.index(name)
        if name in SPEED:
            return 3, 0
        kind = next((i for i, kind in enumerate(kinds) if name.startswith(kind)), len(kinds))
        return 1 if kind < 2 else 2, kind

    return sorted(names, key=rank)


def band(runs: list[Run], name: str) -> Band | None:
    """A group's metric; over the steps that all of its runs have come to, where those were not recorded at the same
    ones; None where no run has it."""
    curves = [run.curves[name] for run in runs if name in run.curves]
    if not curves:
        return None
    steps = np.unique(np.concatenate([np.asarray(curve.steps) for curve in curves]))
    begin, end = max(min(curve.steps) for curve in curves), min(max(curve.steps) for curve in curves)
    shared = steps[(steps >= begin) & (steps <= end)]
    steps = shared if len(shared) else steps
    steps = steps[evenly(len(steps), POINTS)]
    values = np.stack([at(curve, steps) for curve in curves])  # [runs, steps]
    mean, low, high = (rounded(part) for part in (values.mean(0), values.min(0), values.max(0)))
    return Band(rounded(steps), mean, low, high, len(curves))


def at(curve: Curve, steps: np.ndarray) -> np.ndarray:
    """The curve's values at some steps, by straight lines between the recorded ones; of two at one step the newer."""
    newest = dict(zip(curve.steps, curve.values, strict=True))
    known = sorted(newest)
    return np.interp(steps, known, [newest[step] for step in known])


def evenly(count: int, most: int) -> list[int]:
    """Indices of at most `most` of so many things, from the first to the last."""
    return [int(i) for i in np.linspace(0, count - 1, min(count, most)).round()]


def rounded(values: np.ndarray) -> list[float]:
    """With six digits, which are enough to look at."""
    return [float(f"{value:.6g}") for value in values]


def last(run: Run, name: str) -> float | None:
    """A run's newest value of a metric."""
    curve = run.curves.get(name)
    return curve.values[-1] if curve else None


def panels(groups: dict[str, list[Run]], names: list[str]) -> list[dict[str, Any]]:
    """For each metric the bands of all groups that have it."""
    found = []
    for name in names:
        bands = {label: band(runs, name) for label, runs in groups.items()}
        lines = [{"group": label, **line._asdict()} for label, line in bands.items() if line is not None]
        found.append({"name": name, "lines": lines})
    return found
