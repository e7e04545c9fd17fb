"""A run's folder while it is written: begun once, stopped in order, and with the reason where it fails."""

import contextlib
import json
import signal
import threading
from pathlib import Path
from types import FrameType

from omegaconf import OmegaConf

from rlgen_cli.core import checkpoint, migrations, ranks
from rlgen_cli.core.errors import UserError
from rlgen_cli.core.files import write_atomic
from rlgen_cli.runs.assemble import Session
from rlgen_cli.runs.log import Records, environment, say
from rlgen_cli.runs.states import SIGNALS


def claim(session: Session, folder: Path) -> None:
    """Begin a run's folder with what a reader needs beside the results: the resolved config and the machine.

    Raises:
        UserError: if a run is there already.
    """
    if not ranks.first():
        return
    if checkpoint.steps(folder) or (folder / "config.yaml").exists():
        raise UserError(f"hydra.run.dir: {folder} holds a run already; resume={folder} goes on with it.")
    record = {"command": session.command} | environment(session.device, session.settings.seed)
    write_atomic(folder / "environment.json", json.dumps(record, indent=1).encode())
    if session.notes:
        (folder / "train.log").write_text("".join(f"{note}\n" for note in session.notes))
    keep_config(session, folder)


def keep_config(session: Session, folder: Path) -> None:
    """The run's config as it is now, so that settings that were changed when it went on hold the next time, too."""
    text = f"{migrations.KEY}: {migrations.FORMAT}\n" + OmegaConf.to_yaml(session.config, resolve=True)
    if ranks.first():
        write_atomic(folder / "config.yaml", text.encode())


class Interrupt:
    """A signal asks for a stop between two steps, so that the checkpoint is exact; a second one ends at once. Several
    ranks stop after the same step, a few steps later."""

    def __init__(self) -> None:
        self.asked, self.stopped, self.any_rank = False, False, ranks.AnyRank()

    def __enter__(self) -> "Interrupt":
        self.before = {}
        if threading.current_thread() is threading.main_thread():
            self.before = {s: signal.signal(s, self._ask) for s in SIGNALS}
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
        if kind is None:
            self.any_rank.finish()

    def stops(self) -> bool:
        """Whether to stop now, asked once before every step."""
        self.stopped = self.any_rank(self.asked)
        return self.stopped

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        say("\nstopping after this step; once more to stop at once")


class Position:
    """How far a leg of a run is, and its best checkpoint: what failures and checkpoints name."""

    def __init__(self) -> None:
        self.step, self.best = 0, ""


class logged_failure:
    """Leaves the reason of a failure in train.log and status.json before it goes on its way; what the disk refuses
    becomes a sentence."""

    def __init__(self, run: Records, position: Position) -> None:
        self.run, self.position = run, position

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        if kind is None or error is None:
            return
        stopped = isinstance(error, KeyboardInterrupt)
        self.run.failure(f"{'stopped' if stopped else 'failed'} at step {self.position.step}", error)
        with contextlib.suppress(OSError):  # the disk may be what failed
            said = str(error) if isinstance(error, UserError) else f"{kind.__name__}: {error}"
            step = self.position.step
            self.run.status("preempted" if stopped else "failed", step, error=said, best=self.position.best)
        self.run.close()
        if isinstance(error, OSError):
            where = error.filename or self.run.folder
            raise UserError(
                f"run: {where} cannot be written ({error.strerror or error}); the checkpoints before it are "
                f"whole, and resume={self.run.folder} goes on from the newest."
            ) from error


def name_of(step: int) -> str:
    """A checkpoint's folder."""
    return f"step_{step:09d}"
