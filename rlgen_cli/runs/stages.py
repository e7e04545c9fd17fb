"""Runs stages in a run's folder: each is taken from there, from the cache, or fitted, with records, checkpoints and
resume.

`stages/<name>/result` holds a finished stage; `stages/<name>/progress` one that was cut off.
"""

import hashlib
import logging
import shutil
from pathlib import Path
from typing import Any

import torch

from rlgen_cli.core import checkpoint, seeding
from rlgen_cli.core.errors import UserError
from rlgen_cli.core.specs import Metrics
from rlgen_cli.core.stages import Stage
from rlgen_cli.runs.assemble import Session
from rlgen_cli.runs.folder import Interrupt, Position, logged_failure
from rlgen_cli.runs.log import RunLog

log = logging.getLogger(__name__)
PART = "stage"


class Progress(Position):
    """How far a stage is, as a checkpoint holds it."""

    def __init__(self) -> None:
        super().__init__()
        self.best_step, self.lowest = 0, 1e30


def run_stages(session: Session, folder: Path) -> bool:
    """Bring every stage of a session to its end; false where an interrupt came first, after saving."""
    return all(run_stage(stage, session, folder, None) for stage in session.stages)


def run_stage(stage: Stage, session: Session, folder: Path, stop_at: int | None) -> bool:
    """Bring one stage to its end, or to `stop_at` updates; false where that or an interrupt came first, after
    saving."""
    home = folder / "stages" / stage.name
    if load_stage(stage, session, folder):
        return True
    cached = None if stage.key is None else cache_of(stage)
    if cached is not None and cached.is_dir():
        log.info("the %s comes from the cache (%s)", stage.name, cached)
        restore(stage, session, cached)
        stage.finish()
        keep(stage, session, home / "result")
        return True
    progress = Progress()
    if (home / "progress").is_dir():
        restore(stage, session, home / "progress")
        vars(progress).update(checkpoint.load(home / "progress", PART, "cpu")["progress"])
    log.info("fitting the %s (%d updates at most)", stage.name, stage.updates)
    if not fit(stage, session, home, progress, stop_at):
        return False
    if stage.keep_best and (home / "best").is_dir():
        restore(stage, session, home / "best")
    stage.finish()
    keep(stage, session, home / "result")
    if cached is not None:
        keep(stage, session, cached)
    for name in ("progress", "best"):
        shutil.rmtree(home / name, ignore_errors=True)
    return True


def fit(stage: Stage, session: Session, home: Path, progress: Progress, stop_at: int | None) -> bool:
    """The updates of a stage that are still to come; false where `stop_at` or an interrupt came first."""
    home.mkdir(parents=True, exist_ok=True)
    run = RunLog(home.parents[1], progress.step, stage.updates, None, stage=stage.name)
    stop_at = min(stage.updates, stop_at or stage.updates)
    with Interrupt() as interrupt, logged_failure(run, progress):
        patient = True
        while progress.step < stop_at and patient and not interrupt.asked:
            metrics: list[Metrics] = []
            while not metrics or (progress.step % stage.interval and progress.step < stop_at and not interrupt.asked):
                metrics.append(stage.trainable.update(progress.step / stage.updates))
                progress.step += 1
                run.progress(progress.step)
            numbers = {} if stage.evaluate is None else stage.evaluate("valid")
            run.scalars(progress.step, means(metrics, stage.name) | numbers)
            lowest = next(iter(numbers.values()), -float(progress.step))  # unmeasured, the newest is the best
            if lowest < progress.lowest:
                progress.lowest, progress.best_step = lowest, progress.step
                if stage.keep_best:
                    keep(stage, session, home / "best")
            patience = stage.updates if stage.patience is None else stage.patience * stage.interval
            patient = progress.step - progress.best_step < patience
            keep(stage, session, home / "progress", progress)
        over = progress.step >= stage.updates or not patient
        run.status("running" if over else "preempted", progress.step)
    run.close()
    return over


def load_stage(stage: Stage, session: Session, folder: Path) -> bool:
    """Take a stage's result from a run's folder; false where it is not there."""
    result = folder / "stages" / stage.name / "result"
    if not result.is_dir():
        return False
    restore(stage, session, result)
    stage.finish()
    return True


def load_stages(session: Session, folder: Path) -> None:
    """Take the results of all stages from a run's folder, or from the cache.

    Raises:
        UserError: where one is nowhere.
    """
    for stage in session.stages:
        if load_stage(stage, session, folder):
            continue
        cached = None if stage.key is None else cache_of(stage)
        if cached is None or not cached.is_dir():
            raise UserError(f"run: {folder} has no stages/{stage.name}/result; its training did not come that far.")
        restore(stage, session, cached)
        stage.finish()


def cache_of(stage: Stage) -> Path:
    """Where results of this name and key are kept for other runs."""
    kind = stage.name.partition("_")[0]
    return checkpoint.cache_folder() / kind / hashlib.sha256(str(stage.key).encode()).hexdigest()[:24]


def keep(stage: Stage, session: Session, folder: Path, progress: Progress | None = None) -> None:
    """The stage's state, and that of the streams that it may draw from."""
    components: dict[str, Any] = {"trainable": stage.trainable.state_dict()}
    if progress is not None:
        components["progress"] = dict(vars(progress))
    folder.parent.mkdir(parents=True, exist_ok=True)
    drawn = {name: session.streams[name] for name in stage.streams}
    checkpoint.save(folder, {PART: components, "streams": {"streams": seeding.streams_state(drawn)}})


def restore(stage: Stage, session: Session, folder: Path) -> None:
    """The inverse of `keep`, but for the progress; what follows then goes on as after the fitting itself."""
    stage.trainable.load_state_dict(checkpoint.load(folder, PART, session.device)["trainable"])
    saved = checkpoint.load(folder, "streams", "cpu")["streams"]
    drawn = {name: session.streams[name] for name in stage.streams}
    seeding.restore_streams(drawn, saved, session.settings.seed, 0)


def means(metrics: list[Metrics], stage: str) -> dict[str, float]:
    """The mean of each metric over some updates."""
    return {
        f"{stage}/{name}": float(torch.stack([step[name].detach().float() for step in metrics if name in step]).mean())
        for name in metrics[0]
    }


def fit_cached(stage: Stage, session: Session) -> None:
    """Fit a stage outside a run (a judge's), or take it from the cache, where its result is kept."""
    cached = cache_of(stage)
    if cached.is_dir():
        restore(stage, session, cached)
    else:
        log.info("fitting the %s (%d updates)", stage.name, stage.updates)
        for i in range(stage.updates):
            stage.trainable.update(i / stage.updates)
        keep(stage, session, cached)
    stage.finish()
