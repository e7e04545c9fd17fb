"""A run's folder: begun once, and opened again."""

import json
import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any

from omegaconf import DictConfig, OmegaConf

from rlgen_cli.config.foreign import check_foreign
from rlgen_cli.core import checkpoint
from rlgen_cli.core.errors import UserError, require
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


def config_of(folder: Path, overrides: dict[str, Any]) -> DictConfig:
    """The config of a run that goes on; `overrides` are new top-level settings such as total_steps."""
    path = folder / "config.yaml"
    require(path.is_file(), f"resume: {folder} is no run's folder (it holds no config.yaml).")
    config = OmegaConf.load(path)
    assert isinstance(config, DictConfig)
    config.stop_at, config.trust = None, []  # whom to trust is not for the run to say
    for key, value in overrides.items():
        OmegaConf.update(config, key, value)
    check_foreign(OmegaConf.to_container(config), list(config.trust))
    return config


def find_run(name: str) -> tuple[Path, Path | None]:
    """The run's folder, and the checkpoint's when one was named; `latest` is the run that was written last, `best` its
    best checkpoint.

    Raises:
        UserError: where there is none.
    """
    if name == "latest":
        return latest_run("run"), None
    if name == "best":
        run = latest_run("run")
        best = json.loads((run / "status.json").read_text()).get("best")
        require(bool(best), f"run: {run} has no best checkpoint yet; use run=latest.")
        return run, run / "checkpoints" / best
    path = Path(name)
    if (path / "manifest.json").is_file():
        return path.parent.parent, path
    if (path / "config.yaml").is_file():
        return path, None
    raise UserError(
        f"run: {path} is neither a run's folder nor a checkpoint's; run=latest takes the newest run, run=best its best "
        "checkpoint."
    )


def latest_run(key: str) -> Path:
    """The run below outputs/ that was written last; `key` is what asks for it."""
    runs = sorted(Path("outputs").rglob("status.json"), key=lambda path: path.stat().st_mtime)
    require(bool(runs), f"{key}: there is no run below outputs/ yet; train one first.")
    return runs[-1].parent


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
