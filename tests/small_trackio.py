"""What the tracker asks of Trackio's client, in small, for where the client itself cannot be installed: 0.43 needs a
Pillow before 13. A run is found by project and name, the newest of that name; all is kept in memory."""

import itertools
from typing import Any

import numpy as np

RUNS: list["Run"] = []
IDS = itertools.count()
current: "Run | None" = None


class Image:
    def __init__(self, value: np.ndarray) -> None:
        assert value.dtype == np.uint8
        assert value.ndim == 3
        self.value = value


class Audio:
    def __init__(self, value: np.ndarray, sample_rate: int) -> None:
        assert value.dtype == np.int16  # the client makes floats as loud as can be
        assert value.ndim == 1
        self.value, self.sample_rate = value, sample_rate


class Run:
    def __init__(self, project: str, name: str, group: str | None, config: dict[str, Any]) -> None:
        self.project, self.name, self.group, self.config = project, name, group, config
        self.id, self.rows = f"run{next(IDS)}", list[dict[str, Any]]()

    def log(self, metrics: dict[str, Any], step: int | None = None) -> None:
        assert current is self
        self.rows.append({**metrics, "step": step})


def init(
    project: str, name: str, group: str | None, space_id: str | None, config: dict[str, Any], resume: str, embed: bool
) -> Run:
    global current
    assert space_id is None
    assert not any(key.startswith("_") for key in config)  # which the client refuses
    found = [run for run in RUNS if (run.project, run.name) == (project, name)]
    if resume == "never" or not found:
        found = [Run(project, name, group, config)]
        RUNS.extend(found)
    current = found[-1]
    return current


def finish() -> None:
    global current
    assert current is not None
    current = None
