"""Runs stages in a run's folder: each is taken from there, from the cache, or fitted, with records, checkpoints and
resume.

`stages/<name>/result` holds a finished stage; `stages/<name>/progress` one that was cut off. All ranks fit it together;
the first one reads and writes.
"""

import hashlib
import logging
import shutil
from pathlib import Path
from typing import Any

import torch

from rlgen_cli.core import checkpoint, ranks, seeding
from rlgen_cli.core.errors import UserError
from rlgen_cli.core.specs import Metrics
from rlgen_cli.core.stages import Stage
from rlgen_cli.core.tree import moved
from rlgen_cli.runs.assemble import Session, fitting_the_config
from rlgen_cli.runs.folder import Interrupt, Position, logged_failure
from rlgen_cli.runs.lock import cache_entry
from rlgen_cli.runs.log import run_log

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
        if not stopped:
            state = state_of(stage, session)
            try:
                write(state, cached)
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
    elif ranks.count() > 1:  # all begin with the same weights, whatever each has drawn on its machine
        first = ranks.from_first(lambda: moved(stage.trainable.state_dict(), "cpu"))
        stage.trainable.load_state_dict(moved(first, session.device))
    log.info("fitting the %s (%d updates at most)", stage.name, stage.updates)
    if stopped := fit(stage, session, home, progress, stop_at):
        return stopped
    best = saved_state(stage, session, home / "best") if stage.keep_best else None
    if best is not None:
        restore(stage, session, best)
    stage.finish()
    keep(stage, session, home / "result")
    for name in ("progress", "best") if ranks.first() else ():
        shutil.rmtree(home / name, ignore_errors=True)
    return ""


def fit(stage: Stage, session: Session, home: Path, progress: Progress, stop_at: int | None) -> str:
    """The updates of a stage that are still to come; "", "stopped" or "preempted", as above."""
    if ranks.first():
        home.mkdir(parents=True, exist_ok=True)
    run = run_log(home.parents[1], progress.step, stage.updates, session.trackers, stage=stage.name)
    stop_at = min(stage.updates, stop_at or stage.updates)
    with Interrupt() as interrupt, logged_failure(run, progress):
        patient = True
        while progress.step < stop_at and patient and not interrupt.stops():
            update = stage.trainable.update(progress.step / stage.updates)
            progress.metrics.append({name: value.detach() for name, value in update.items()})
            progress.step += 1
            run.progress(progress.step)
            if progress.step % stage.interval and progress.step < stage.updates:
                continue
            numbers = evaluated(stage)
            run.scalars(progress.step, ranks.means(means(progress.metrics, stage.name)) | numbers)
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
        stopped = "" if over else "preempted" if interrupt.stopped else "stopped"
        run.status(stopped or "running", progress.step)
    run.close()
    return stopped


def evaluated(stage: Stage) -> dict[str, float]:
    """The stage's held-out numbers, found by the first rank, so that all decide alike."""
    evaluate = stage.evaluate
    return {} if evaluate is None else ranks.from_first(lambda: evaluate("valid"))


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
        place = next((place for place in places_of(stage, folder) if load_stage(stage, session, place)), None)
        if place is None:
            raise UserError(
                f"run: {folder} has no intact stages/{stage.name}/result; its training did not come that far, or "
                "resume= fits it anew."
            )
        if not place.is_relative_to(folder):
            log.warning(
                "%s has no intact stages/%s/result; that of the cache is taken (%s), which has other numbers where "
                "another machine fitted it, so that the policy does not fit it.", folder, stage.name, place,
            )  # fmt: skip


def places_of(stage: Stage, folder: Path) -> list[Path]:
    """Where a run's result of a stage may lie: in its folder, or in the cache."""
    return [folder / "stages" / stage.name / "result", *([] if stage.key is None else [cache_of(stage)])]


def cache_of(stage: Stage) -> Path:
    """Where results of this name and key are kept for other runs."""
    kind = stage.name.partition("_")[0]
    return checkpoint.cache_folder() / kind / hashlib.sha256(str(stage.key).encode()).hexdigest()[:24]


def keep(stage: Stage, session: Session, folder: Path, progress: Progress | None = None) -> None:
    """Write the stage's state as it is now."""
    write(state_of(stage, session, progress), folder)


def state_of(stage: Stage, session: Session, progress: Progress | None = None) -> dict[str, dict[str, Any]]:
    """The stage's state, and that of the streams that it may draw from on each rank."""
    components: dict[str, Any] = {"trainable": stage.trainable.state_dict()}
    if progress is not None:
        components["progress"] = dict(vars(progress))
    drawn = ranks.gathered(seeding.streams_state({name: session.streams[name] for name in stage.streams}))
    return {PART: components, "streams": {name_of_streams(rank): state for rank, state in enumerate(drawn)}}


def name_of_streams(rank: int) -> str:
    """What a rank's streams are called."""
    return f"streams_{rank}" if rank else "streams"


def write(state: dict[str, dict[str, Any]], folder: Path | None) -> None:
    """Leave a stage's state in a folder, if there is one, by the first rank."""
    if folder is not None and ranks.first():
        folder.parent.mkdir(parents=True, exist_ok=True)
        checkpoint.save(folder, state)


def saved_state(stage: Stage, session: Session, folder: Path) -> dict[str, Any] | None:
    """What `keep` has left in a folder; None where that is not there, or damaged, which a warning says."""

    def read() -> dict[str, Any] | None:
        if not folder.is_dir():
            return None
        try:
            return checkpoint.load(folder, PART, "cpu") | checkpoint.load(folder, "streams", "cpu")
        except UserError as error:
            log.warning("%s The %s is not taken from there.", error, stage.name)
            return None

    return ranks.from_first(read)


def restore(stage: Stage, session: Session, saved: dict[str, Any]) -> None:
    """Take over what `keep` has left, but for the progress; what follows then goes on as after the fitting itself.

    Raises:
        UserError: where it is of another config.
    """
    with fitting_the_config():
        stage.trainable.load_state_dict(moved(saved["trainable"], session.device))
        drawn = {name: session.streams[name] for name in stage.streams}
        name = name_of_streams(ranks.rank())
        if name in saved:
            seeding.restore_streams(drawn, saved[name], session.settings.seed, 0)
        else:  # it was fitted by fewer ranks
            seeding.begin_anew(drawn, session.settings.seed, stage.name)


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
