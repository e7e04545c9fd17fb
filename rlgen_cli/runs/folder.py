"""A run's folder while it is written: begun once, stopped in order, and with the reason where it fails."""

import json
import signal
import threading
from pathlib import Path
from types import FrameType

from omegaconf import OmegaConf

from rlgen_cli.core import checkpoint
from rlgen_cli.core.errors import UserError
from rlgen_cli.runs.assemble import Session
from rlgen_cli.runs.log import RunLog, environment, log


def claim(session: Session, folder: Path) -> None:
    """Begin a run's folder with what a reader needs beside the results: the resolved config and the machine.

    Raises:
        UserError: if a run is there already.
    """
    if checkpoint.steps(folder) or (folder / "config.yaml").exists():
        raise UserError(f"hydra.run.dir: {folder} holds a run already; resume={folder} goes on with it.")
    folder.mkdir(parents=True, exist_ok=True)
    text = OmegaConf.to_yaml(session.config, resolve=True)
    checkpoint.write_atomic(folder / "config.yaml", text.encode())
    record = {"command": session.command} | environment(session.device, session.settings.seed)
    checkpoint.write_atomic(folder / "environment.json", json.dumps(record, indent=1).encode())
    if session.notes:
        (folder / "train.log").write_text("".join(f"{note}\n" for note in session.notes))


class Interrupt:
    """Ctrl-C and SIGTERM ask for a stop between two steps, so that the checkpoint is exact; a second Ctrl-C ends at
    once."""

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> "Interrupt":
        self.before = {}
        if threading.current_thread() is threading.main_thread():
            self.before = {s: signal.signal(s, self._ask) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        print("\nstopping after this step; once more to stop at once", flush=True)


class Position:
    """How far a leg of a run is, and its best checkpoint: what failures and checkpoints name."""

    def __init__(self) -> None:
        self.step, self.best = 0, ""


class logged_failure:
    """Leaves the reason of a failure in train.log and status.json before it goes on its way."""

    def __init__(self, run: RunLog, position: Position) -> None:
        self.run, self.position = run, position

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        if kind is None or error is None:
            return
        log.error("failed at step %d", self.position.step, exc_info=error)
        self.run.status("failed", self.position.step, error=f"{kind.__name__}: {error}", best=self.position.best)
        self.run.close()


def name_of(step: int) -> str:
    """A checkpoint's folder."""
    return f"step_{step:09d}"
