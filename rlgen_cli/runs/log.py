"""What a run leaves to read: metrics.jsonl, train.log, status.json, and a line or bar on the screen; its trackers get
the same."""

import contextlib
import json
import logging
import math
import os
import platform
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from tqdm import tqdm

from rlgen_cli.core import ranks
from rlgen_cli.core.errors import reader_gone
from rlgen_cli.core.files import write_atomic
from rlgen_cli.runs.records import NO_METRIC, record_of

if TYPE_CHECKING:
    from rlgen_cli.runs.tracking import Trackers

log = logging.getLogger("rlgen_cli")
SILENCE = 5.0  # seconds after which a line says how far a run is
HEARTBEAT = 30.0  # seconds after which status.json says it


class Records(Protocol):
    """What a run or a stage says of itself while it is trained."""

    folder: Path

    def scalars(self, step: int, values: dict[str, float]) -> None: ...

    def progress(self, step: int) -> None: ...

    def meanwhile(self, what: str) -> Callable[[str], None]: ...

    def announce(self, text: str) -> None: ...

    def status(self, state: str, step: int, error: str | None = None, best: str | None = None) -> None: ...

    def failure(self, said: str, error: BaseException) -> None: ...

    def close(self) -> None: ...


def run_log(folder: Path, step: int, total_steps: int, trackers: "Trackers", stage: str | None = None) -> Records:
    """The records of a run or a stage, as `RunLog` has them; of several ranks, the first one keeps them."""
    return RunLog(folder, step, total_steps, trackers, stage) if ranks.first() else NoLog(folder)


class NoLog:
    """What the other ranks have in its place: they say and write nothing."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def scalars(self, step: int, values: dict[str, float]) -> None:
        pass

    def progress(self, step: int) -> None:
        pass

    def meanwhile(self, what: str) -> Callable[[str], None]:
        return self.announce

    def announce(self, text: str) -> None:
        pass

    def status(self, state: str, step: int, error: str | None = None, best: str | None = None) -> None:
        pass

    def failure(self, said: str, error: BaseException) -> None:
        pass

    def close(self) -> None:
        pass


class RunLog:
    """All records of a run, or of one of its stages.

    Args:
        folder: the run's.
        step: where it begins: what older records say beyond it is dropped, so that a resumed run has each step once.
        total_steps: where it ends. trackers: what else records the run. stage: of the run, or None for the
            reinforcement learning itself.
    """

    def __init__(
        self, folder: Path, step: int, total_steps: int, trackers: "Trackers", stage: str | None = None
    ) -> None:
        self.folder, self.total_steps, self.trackers, self.stage = folder, total_steps, trackers, stage
        self.began, self.first_step = time.monotonic(), step
        self.shown = self.began  # when the screen last said something
        for name in ("metrics.jsonl", "train.log", "status.json"):
            if (folder / name).is_dir():
                os.replace(folder / name, folder / f"{name}.folder")  # in the way of what is written there
        self.metrics_path = folder / "metrics.jsonl"
        self.earlier = self._drop_after(step)
        self.metrics = self.metrics_path.open("a")
        self.bar = tqdm(
            total=total_steps,
            initial=step,
            unit=" updates" if stage else " steps",
            desc=stage,
            disable=not sys.stderr.isatty(),
            leave=True,
        )
        self.text = (folder / "train.log").open("a")
        self.handler = logging.StreamHandler(self.text)
        self.handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        self.handler.handleError = lambda record: None  # type: ignore[method-assign]  # as of a full disk
        log.addHandler(self.handler)
        log.setLevel(logging.INFO)
        self.trackers.begin(stage, step)
        self.status("running", step)

    @property
    def seconds(self) -> float:
        """Wall time of the training so far, earlier sittings included."""
        return self.earlier + time.monotonic() - self.began

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Record numbers at `step` and show the most telling ones."""
        speed = self._speed(step)
        record: dict[str, Any] = {"stage": self.stage} if self.stage else {}
        record |= {"step": step, "seconds": round(self.seconds, 2), "steps_per_second": round(speed, 1)} | values
        finite = {k: v if not isinstance(v, float) or math.isfinite(v) else None for k, v in record.items()}
        self.metrics.write(json.dumps(finite) + "\n")
        self.metrics.flush()
        self.trackers.scalars(step, {name: value for name, value in record.items() if name not in NO_METRIC})
        shown = {
            k: f"{v:.3g}"
            for k, v in values.items()
            if k in ("return", "agent/loss") or k.startswith(("score/", "eval/", "nll/")) or self.stage
        }
        self.bar.set_postfix(shown, refresh=False)
        line = self._line(step, " ".join(f"{key} {value}" for key, value in shown.items()))
        self.text.write(line + "\n")
        self.text.flush()
        self._show(step, line)

    def progress(self, step: int) -> None:
        """Say how far the run is, if nothing was said for some seconds."""
        if time.monotonic() - self.shown >= SILENCE:
            self._show(step, self._line(step, ""))
        if time.monotonic() - self.told >= HEARTBEAT:
            self.status("running", step)

    def meanwhile(self, what: str) -> Callable[[str], None]:
        """Says how far something is that holds the training up, if nothing was said for some seconds."""

        def said(text: str) -> None:
            if time.monotonic() - self.shown >= SILENCE:
                self.announce(f"{what}: {text}")

        return said

    def announce(self, text: str) -> None:
        """Say what takes a while now."""
        self.shown = time.monotonic()
        if self.bar.disable:
            say(text)
        else:
            self.bar.write(text)

    def _show(self, step: int, line: str) -> None:
        self.shown = time.monotonic()
        self.bar.update(step - self.bar.n)
        if self.bar.disable:
            say(line)

    def _line(self, step: int, text: str) -> str:
        speed, what = self._speed(step), f"{self.stage}: update" if self.stage else "step"
        left = max(self.total_steps - step, 0) / max(speed, 1e-9)
        unit = "updates/s" if self.stage else "steps/s"
        parts = [f"{what} {step}/{self.total_steps}", f"{speed:.0f} {unit}", text, f"ETA {_clock(left)}"]
        return " ".join(part for part in parts if part)

    def _speed(self, step: int) -> float:
        """Steps a second in this sitting."""
        return (step - self.first_step) / max(time.monotonic() - self.began, 1e-9)

    def status(self, state: str, step: int, error: str | None = None, best: str | None = None) -> None:
        """`running`, `finished`, `stopped` (at stop_at), `preempted` (by a signal) or `failed`."""
        self.told, self.trackers.status = time.monotonic(), state
        record = {"status": state, "step": step, "total_steps": self.total_steps, "seconds": round(self.seconds, 2)}
        record |= {"updated": round(time.time())}
        record |= {"stage": self.stage} if self.stage else {}
        record |= {"best": best, "error": error}
        write_atomic(self.folder / "status.json", json.dumps(record, indent=1).encode())

    def failure(self, said: str, error: BaseException) -> None:
        """Write why a run ends, with the traceback, to train.log alone: the screen gets a sentence."""
        with contextlib.suppress(OSError):  # the disk may be what failed
            self.text.write(f"{said}\n{''.join(traceback.format_exception(error))}")
            self.text.flush()

    def close(self) -> None:
        self.bar.close()
        log.removeHandler(self.handler)
        for file in (self.metrics, self.text):
            with contextlib.suppress(OSError):  # of what the disk had no room for; whoever wrote it was told
                file.close()

    def _drop_after(self, step: int) -> float:
        """Forget this stage's records beyond `step`; return the seconds that the kept ones took."""
        if not self.metrics_path.exists():
            return 0.0
        lines = self.metrics_path.read_bytes().splitlines()
        records = [record for record in map(record_of, lines) if record is not None]
        if len(records) < len(lines):
            say(f"{len(lines) - len(records)} lines of {self.metrics_path} cannot be read, and are left out")
        kept = [record for record in records if record.get("stage") != self.stage or record["step"] <= step]
        write_atomic(self.metrics_path, "".join(json.dumps(record) + "\n" for record in kept).encode())
        return max((float(record["seconds"]) for record in kept if record.get("stage") == self.stage), default=0.0)


def say(text: str) -> None:
    """Print a line, on the first rank; where the reader has gone, as of `rlgen train … | head`, the run goes on without
    one."""
    if not ranks.first():
        return
    try:
        print(text, flush=True)
    except BrokenPipeError:
        reader_gone()


def environment(device: torch.device, seed: int) -> dict[str, Any]:
    """What a reader needs to repeat the run: versions, git, device, threads, seed."""
    packages = ("rlgen", "torch", "hydra-core", "omegaconf", "numpy", "pillow", "safetensors")
    cuda = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in packages},
        "git": _git(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "device": str(device),
        "cuda": cuda,
        "threads": torch.get_num_threads(),
        "seed": seed,
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except ModuleNotFoundError:
        return None


def _git() -> str | None:
    """The package's commit, when it runs from a checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=5).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"
