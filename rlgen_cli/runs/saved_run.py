"""A run's folder as it lies on the disk, perhaps a stranger's: found, and read as data."""

import contextlib
import os
import stat
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from rlgen_cli.config.saved import read_config
from rlgen_cli.core import checkpoint
from rlgen_cli.core.errors import UserError, faults_as, require
from rlgen_cli.core.files import read_json
from rlgen_cli.core.trust import Trust


def config_of(folder: Path, trust: Trust, training: bool = False) -> DictConfig:
    """The config that a run was made with, as data; whom to trust, when to stop and where it lies are not for it to
    say, and who records it matters only where it is trained (`training`).

    Raises:
        UserError: where there is none, or it names what is neither rlgen's nor trusted, or the folder holds a link or
            anything else that is neither file nor folder.
    """
    path = folder / "config.yaml"
    require(path.exists(), f"run: {folder} is no run's folder (it holds no config.yaml).")
    require_plain(folder)
    config = read_config(path, trust, without=None if training else "logger")
    config.stop_at, config.resume, config.trust = None, None, sorted(trust)
    return config


def continued(folder: Path, changes: dict[str, Any]) -> DictConfig:
    """The config of a run that goes on; `changes` are new top-level settings such as total_steps."""
    require((folder / "config.yaml").exists(), f"resume: {folder} is no run's folder (it holds no config.yaml).")
    config = config_of(folder, Trust(changes.get("trust", [])), training=True)
    for key, value in changes.items():
        OmegaConf.update(config, key, value)
    return config


def require_plain(folder: Path) -> None:
    """Refuse a run's folder in which something is neither file nor folder: what is written there through a link would
    land elsewhere, and a pipe has no end.

    Raises:
        UserError: naming what is wrong.
    """
    for place, folders, files in os.walk(folder):  # what may not be read is passed over, and not read later either
        for path in (os.path.join(place, name) for name in (*folders, *files)):
            mode = os.lstat(path).st_mode
            if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
                what = "a link" if stat.S_ISLNK(mode) else "neither a file nor a folder"
                raise UserError(f"run: {path} is {what}, which a run's folder never holds; remove it.")


def opening(folder: Path) -> contextlib.AbstractContextManager[None]:
    """What a stranger's folder says may fit nothing: that ends in one sentence, and never in a half-opened run."""
    return faults_as(f"run: {folder} cannot be opened by this version of rlgen")


def find_run(name: str) -> tuple[Path, Path | None]:
    """The run's folder, and the checkpoint's when one was named; `latest` is the run that was written last, `best` its
    best checkpoint.

    Raises:
        UserError: where there is none.
    """
    if name.startswith("hf://"):
        from rlgen_cli.runs.hub import fetched  # here, since few runs come from there

        return fetched(name), None
    if name == "latest":
        return latest_run("run"), None
    if name == "best":
        run = latest_run("run")
        best = read_json(run / "status.json", "run").get("best")
        found = [path for path in checkpoint.steps(run) if path.name == best]
        require(bool(found), f"run: {run} has no best checkpoint yet; use run=latest.")
        return run, found[0]
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
    """The run below outputs/ that was written last, but for those that came from the hub; `key` is what asks for it."""
    found = (path for path in Path("outputs").rglob("status.json") if path.parts[1] != "hub")
    runs = sorted(found, key=lambda path: path.stat().st_mtime)
    require(bool(runs), f"{key}: there is no run below outputs/ yet; train one first.")
    return runs[-1].parent
