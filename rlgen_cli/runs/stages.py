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
from rlgen_cli.runs.assemble import Session, fitting_the_config
from rlgen_cli.runs.folder import Interrupt, Position, logged_failure
from rlgen_cli.runs.lock import cache_entry
from rlgen_cli.runs.log import RunLog

log = logging.getLogger(__name__)
PART = "stage"


class Progress(Position):
    """How far a stage is, as a checkpoint holds it."""

    def __init__(self) -> None:
        super().__init__()
        self.best_step, self.lowest = 0, 1e30
        self.metrics: list[Metrics] = []  # of the updates since the last record


def run_stages(session: Session, folder: Path) -> str:
    """Bring every stage of a session to its end; "" or, where an interrupt came first, "preempted", after saving."""
    return next((stopped for stage in session.stages if (stopped := run_stage(stage, session, folder, None))), "")


def run_stage(stage: Stage, session: Session, folder: Path, stop_at: int | None) -> str:
    """Bring one stage to its end; "" or, where `stop_at` updates or an interrupt came first, "stopped" or "preempted",
    after saving."""
    home = folder / "stages" / stage.name
    if load_stage(stage, session, home / "result"):
        return ""
    if stage.key is None:
        return fit_stage(stage, session, home, stop_at)
    entry = cache_of(stage)
    with cache_entry(entry) as cached:
        if load_stage(stage, session, entry):
            log.info("the %s comes from the cache (%s)", stage.name, entry)
            keep(stage, session, home / "result")
            return ""
        stopped = fit_stage(stage, session, home, stop_at)
        if cached is not None and not stopped:
            try:
                keep(stage, session, cached)
            except OSError as error:
                log.warning("cache: %s cannot be written (%s).", cached, error.strerror)
        return stopped


def fit_stage(stage: Stage, session: Session, home: Path, stop_at: int | None) -> str:
    """What is left of a stage; "", "stopped" or "preempted", as above."""
    progress = Progress()
    saved = saved_state(stage, session, home / "progress")
    if saved is not None:
        restore(stage, session, saved)
        vars(progress).update(saved["progress"])
    log.info("fitting the %s (%d updates at most)", stage.name, stage.updates)
    if stopped := fit(stage, session, home, progress, stop_at):
        return stopped
    best = saved_state(stage, session, home / "best") if stage.keep_best else None
    if best is not None:
        restore(stage, session, best)
    stage.finish()
    keep(stage, session, home / "result")
    for name in ("progress", "best"):
        shutil.rmtree(home / name, ignore_errors=True)
    return ""


def fit(stage: Stage, session: Session, home: Path, progress: Progress, stop_at: int | None) -> str:
    """The updates of a stage that are still to come; "", "stopped" or "preempted", as above."""
    home.mkdir(parents=True, exist_ok=True)
    run = RunLog(home.parents[1], progress.step, stage.updates, session.trackers, stage=stage.name)
    stop_at = min(stage.updates, stop_at or stage.updates)
    with Interrupt() as interrupt, logged_failure(run, progress):
        patient = True
        while progress.step < stop_at and patient and not interrupt.asked:
            update = stage.trainable.update(progress.step / stage.updates)
            progress.metrics.append({name: value.detach() for name, value in update.items()})
            progress.step += 1
            run.progress(progress.step)
            if progress.step % stage.interval and progress.step < stage.updates:
                continue
            numbers = {} if stage.evaluate is None else stage.evaluate("valid")
            run.scalars(progress.step, means(progress.metrics, stage.name) | numbers)
            progress.metrics = []
            lowest = next(iter(numbers.values()), -float(progress.step))  # unmeasured, the newest is the best
            if lowest < progress.lowest:
                progress.lowest, progress.best_step = lowest, progress.step
                if stage.keep_best:
                    keep(stage, session, home / "best")
            patience = stage.updates if stage.patience is None else stage.patience * stage.interval
            patient = progress.step - progress.best_step < patience
            keep(stage, session, home / "progress", progress)
        over = progress.step >= stage.updates or not patient
        if progress.metrics:  # stopped between two records
            keep(stage, session, home / "progress", progress)
        stopped = "" if over else "preempted" if interrupt.asked else "stopped"
        run.status(stopped or "running", progress.step)
    run.close()
    return stopped


def load_stage(stage: Stage, session: Session, folder: Path) -> bool:
    """Take a stage's result from a folder of a run or of the cache; false where no intact one is there."""
    saved = saved_state(stage, session, folder)
    if saved is None:
        return False
    restore(stage, session, saved)
    stage.finish()
    return True


def load_stages(session: Session, folder: Path) -> None:
    """Take the results of all stages from a run's folder, or from the cache.

    Raises:
        UserError: where one is nowhere.
    """
    for stage in session.stages:
        if not any(load_stage(stage, session, place) for place in places_of(stage, folder)):
            raise UserError(
                f"run: {folder} has no intact stages/{stage.name}/result; its training did not come that far, or "
                "resume= fits it anew."
            )


def places_of(stage: Stage, folder: Path) -> list[Path]:
    """Where a run's result of a stage may lie: in its folder, or in the cache."""
    return [folder / "stages" / stage.name / "result", *([] if stage.key is None else [cache_of(stage)])]


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


def saved_state(stage: Stage, session: Session, folder: Path) -> dict[str, Any] | None:
    """What `keep` has left in a folder; None where that is not there, or damaged, which a warning says."""
    if not folder.is_dir():
        return None
    try:
        saved = checkpoint.load(folder, PART, session.device)
        return saved | checkpoint.load(folder, "streams", "cpu")
    except UserError as error:
        log.warning("%s The %s is not taken from there.", error, stage.name)
        return None


def restore(stage: Stage, session: Session, saved: dict[str, Any]) -> None:
    """Take over what `keep` has left, but for the progress; what follows then goes on as after the fitting itself.

    Raises:
        UserError: where it is of another config.
    """
    with fitting_the_config():
        stage.trainable.load_state_dict(saved["trainable"])
        drawn = {name: session.streams[name] for name in stage.streams}
        seeding.restore_streams(drawn, saved["streams"], session.settings.seed, 0)


def means(metrics: list[Metrics], stage: str) -> dict[str, float]:
    """The mean of each metric over some updates."""
    return {
        f"{stage}/{name}": float(torch.stack([step[name].float() for step in metrics if name in step]).mean())
        for name in metrics[0]
    }


def fit_cached(stage: Stage, session: Session) -> None:
    """Fit a stage outside a run (a judge's), or take it from the cache, where its result is kept."""
    with cache_entry(cache_of(stage)) as cached:
        if load_stage(stage, session, cache_of(stage)):
            return
        log.info("fitting the %s (%d updates)", stage.name, stage.updates)
        for i in range(stage.updates):
            stage.trainable.update(i / stage.updates)
        if cached is not None:
            keep(stage, session, cached)
        stage.finish()
