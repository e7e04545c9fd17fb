"""What a run has recorded, read again: metrics.jsonl as curves. Imports no torch."""

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

from rlgen_cli.core.files import MIB, read_bytes

LARGEST = 256 * MIB  # of metrics.jsonl
NO_METRIC = ("step", "stage")
# Of an evaluation, beside the terms' scores, which earlier versions recorded as `eval/<term>`.
EVALUATED = ("eval/total", "eval/diversity", "eval/unique")


class Curve(NamedTuple):
    """A metric over the steps at which it was recorded."""

    steps: list[float]
    values: list[float]


def curves_of(folder: Path) -> dict[str, Curve]:
    """The metrics of a run by name, those of a stage as `stage/metric`; without what is no finite number.

    Raises:
        UserError: for a file of records that cannot be read.
    """
    path, curves = folder / "metrics.jsonl", dict[str, Curve]()
    if not path.exists():
        return curves
    for line in read_bytes(path, LARGEST, "run").splitlines():
        record = record_of(line)
        if record is None:
            continue
        stage = record.get("stage")
        for name, value in record.items():
            if name not in NO_METRIC and type(value) in (int, float) and math.isfinite(value):
                curve = curves.setdefault(f"{stage}/{name}" if stage else current_name(name), Curve([], []))
                curve.steps.append(float(record["step"]))
                curve.values.append(float(value))
    return curves


def current_name(name: str) -> str:
    """A metric's name now: a term's score in an evaluation is below `eval/score/`, as it is below `score/` in
    training, so that no term is taken for another number."""
    old = name.startswith("eval/") and not name.startswith("eval/score/") and name not in EVALUATED
    return f"eval/score/{name.removeprefix('eval/')}" if old else name


def record_of(line: bytes) -> dict[str, Any] | None:
    """A line of metrics.jsonl; None where a kill or the disk has left no whole one."""
    try:
        record: dict[str, Any] = json.loads(line)
        return record if {type(record["step"]), type(record["seconds"])} <= {int, float} else None
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
