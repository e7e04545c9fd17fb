"""Which runs there are, and how each is doing. Imports no torch, since `rlgen list runs` needs none."""

import contextlib
import json
import signal
import time
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock, Timeout

from rlgen_cli.core.errors import UserError
from rlgen_cli.core.files import read_json, write_atomic

LOCK = ".lock"
PREEMPTED = 75  # the exit code of a run that a signal stopped after it was saved (EX_TEMPFAIL of sysexits.h)
# Ctrl-C, and what schedulers and terminals send before they take a machine away.
SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP") if hasattr(signal, name)]


class RunState(NamedTuple):
    """A run's folder, and what its status.json says."""

    folder: Path
    status: str  # running, finished, stopped, preempted, failed; stale: it says running and no process is at work
    step: int
    total_steps: int
    age: float  # seconds since it was said
    error: str


def run_states(root: Path) -> list[RunState]:
    """The runs below a folder, the one that was heard of last first."""
    found = [state_of(path.parent) for path in root.rglob("status.json")]
    return sorted((state for state in found if state is not None), key=lambda state: state.age)


def state_of(folder: Path) -> RunState | None:
    """How a run is doing; None where its status cannot be read."""
    try:
        said = read_json(folder / "status.json", "run")
        status, numbers = str(said["status"]), (int(said["step"]), int(said["total_steps"]))
        age = time.time() - (folder / "status.json").stat().st_mtime
    except (UserError, OSError, KeyError, TypeError, ValueError):
        return None
    if status == "running" and not in_use(folder):
        status = "stale"
    return RunState(folder, status, *numbers, age, str(said.get("error") or ""))


def write_failure(folder: Path, reason: str) -> None:
    """Say that a run has failed where it could not say so itself, in status.json and train.log."""
    said: dict[str, Any] = {"step": 0, "total_steps": 0}
    with contextlib.suppress(UserError, OSError):
        said |= read_json(folder / "status.json", "run")
    if said.get("status") == "failed" and said.get("error"):
        return
    folder.mkdir(parents=True, exist_ok=True)
    said |= {"status": "failed", "updated": round(time.time()), "error": reason}
    write_atomic(folder / "status.json", json.dumps(said, indent=1).encode())
    with (folder / "train.log").open("a") as log:
        log.write(f"{reason}\n")


def in_use(folder: Path) -> bool:
    """Whether a process is at work in a run's folder."""
    if not (folder / LOCK).exists():
        return False
    try:
        with FileLock(folder / LOCK, blocking=False):
            return False
    except (Timeout, OSError):
        return True
