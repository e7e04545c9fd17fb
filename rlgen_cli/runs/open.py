"""Runs as they lie on the disk, opened for sampling and judging."""

from pathlib import Path
from typing import NamedTuple

from omegaconf import DictConfig, OmegaConf

from rlgen_cli.core import checkpoint
from rlgen_cli.runs.assemble import Session, build, check_foreign
from rlgen_cli.core.errors import UserError, require


class Opened(NamedTuple):
    """A run's folder, and its objects with the weights of a checkpoint."""

    folder: Path
    session: Session


def open_run(config: DictConfig) -> Opened:
    """The run that `config.run` names, on `config.device`, with the changes of `config.set`.

    Raises:
        UserError: where there is none, or it would import what `config.trust` does not name.
    """
    require(isinstance(config.n, int) and config.n >= 1, f"n: must be a whole number from 1, got {config.n}.")
    require(isinstance(config.seed, int), f"seed: must be a whole number, got {config.seed!r}.")
    run, saved = find_run(str(config.run))
    trained = OmegaConf.load(run / "config.yaml")
    assert isinstance(trained, DictConfig)
    check_foreign(OmegaConf.to_container(trained), list(config.trust))
    trained.device, trained.trust = config.device, config.trust  # whom to trust is not for the run to say
    for key, value in (config.get("set") or {}).items():
        OmegaConf.update(trained, key, value)
    session = build(trained, fresh=False)
    state = (
        checkpoint.load(saved, session.device, session.parts)
        if saved
        else checkpoint.load_newest(run, session.device, session.parts)
    )
    session.load(state)
    return Opened(run, session)


def find_run(name: str) -> tuple[Path, Path | None]:
    """The run's folder, and the checkpoint's when one was named; `latest` is the run that was written last."""
    if name == "latest":
        runs = sorted(Path("outputs").rglob("status.json"), key=lambda path: path.stat().st_mtime)
        require(bool(runs), "run: there is no run below outputs/ yet; train one first.")
        return runs[-1].parent, None
    path = Path(name)
    if (path / "manifest.json").is_file():
        return path.parent.parent, path
    if (path / "config.yaml").is_file():
        return path, None
    raise UserError(f"run: {path} is neither a run's folder nor a checkpoint's; `run=latest` takes the newest run.")
