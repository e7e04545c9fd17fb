"""A sweep's jobs as tables for the screen."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from rlgen_cli.core.errors import printable
from rlgen_cli.runs.records import curves_of
from rlgen_cli.runs.states import state_of

SHOWN = {"return": "return", "eval/total": "eval/total", "eval/diversity": "diversity"}  # the last value of each
NOT_BEGUN = "not begun"


class Planned(Protocol):
    """A job, as far as a table shows it."""

    @property
    def number(self) -> int: ...
    @property
    def folder(self) -> str: ...
    @property
    def steps(self) -> int: ...
    @property
    def own(self) -> dict[str, str]: ...


class Result(NamedTuple):
    """What came of a job."""

    status: str
    error: str
    numbers: list[str]  # as SHOWN


def print_plan(folder: Path, jobs: Sequence[Planned]) -> None:
    """What would be run, and what that costs."""
    rows = [["job", "steps", "what sets it apart"]]
    rows += [[str(job.number), f"{job.steps:,}", words_of(job)] for job in jobs]
    print(aligned(rows))
    print(f"{len(jobs)} jobs, {sum(job.steps for job in jobs):,} environment steps; they would go to {folder}")


def print_results(folder: Path, jobs: Sequence[Planned]) -> None:
    """What came of each, why those that failed did, and how many there are of each status."""
    results = [result_of(folder / job.folder) for job in jobs]
    rows = [["job", "status", *SHOWN.values(), "folder", "what sets it apart"]]
    for job, result in zip(jobs, results, strict=True):
        rows.append([str(job.number), result.status, *result.numbers, str(folder / job.folder), words_of(job)])
    print(aligned(rows))
    for job, result in zip(jobs, results, strict=True):
        if result.error and result.status not in ("finished", NOT_BEGUN):
            print(f"job {job.number} {result.status}: {printable(result.error)}")
    counts = Counter(result.status for result in results)
    print(", ".join(f"{count} {status}" for status, count in counts.items()))
    if counts.keys() - {"finished"}:
        print(f"run what is missing:\n  rlgen train sweep.resume={folder}")


def result_of(folder: Path) -> Result:
    """A job's status, as far as its folder tells it."""
    state = state_of(folder)
    if state is None:
        return Result(NOT_BEGUN, "", ["" for _ in SHOWN])
    curves: dict[str, Any] = dict(curves_of(folder))
    numbers = [f"{curves[name].values[-1]:.4g}" if name in curves else "" for name in SHOWN]
    return Result(state.status, state.error, numbers)


def words_of(job: Planned) -> str:
    """What sets a job apart, as on the command line."""
    return " ".join(f"{key}={value}" for key, value in job.own.items())


def aligned(rows: list[list[str]]) -> str:
    """Columns as wide as their widest cell."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)
