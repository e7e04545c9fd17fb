"""`rlgen tune`: asks Optuna for settings, trains with them, and tells it what came of that. Several of these commands,
on one machine or many, may work on one study."""

import time
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from rlgen_cli.config.arguments import parted
from rlgen_cli.config.compose import composed
from rlgen_cli.core.errors import UserError, require
from rlgen_cli.core.extras import imported
from rlgen_cli.runs.states import in_use
from rlgen_cli.tuning.results import conclude
from rlgen_cli.tuning.space import Space, first_values, space_of, suggested, words_of
from rlgen_cli.tuning.trial import Failed, Pruned, Stopped, Trial

JOURNAL = "journal.log"
TRIES, PAUSE = 3, 1.0  # to open a storage, and seconds between two tries
LONGEST_START = 120.0  # seconds in which a trial that has begun comes to hold its folder
FOLDER, WHY = "folder", "why"  # what a trial is kept with: where it is trained, and why it failed


def tune(config: DictConfig, arguments: list[str]) -> str:
    """Search until the study has its trials; returns the status: finished, or preempted by a signal.

    Raises:
        UserError: for a space or a metric that there is not, or where Optuna is not installed.
    """
    optuna, asked = client(), config.tune
    flags, words = parted(arguments)
    words = [word for word in words if not word.startswith("tune.")]
    for key in ("trials", "warmup"):
        whole = isinstance(asked[key], int) and asked[key] >= 1
        require(whole, f"tune.{key}: must be a whole number from 1, got {asked[key]}.")
    env, agent = (str(config.hydra.runtime.choices[group]) for group in ("env", "agent"))
    space = space_of(asked.space, agent)
    composed("train", [*flags, *words, *words_of(first_values(space))])  # so that a wrong key is told now
    folder = Path(asked.folder or f"outputs/tune/{env}_{agent}").expanduser()
    study = study_of(optuna, asked, folder)
    status = search(optuna.trial.TrialState, study, asked, folder, space, flags, words)
    conclude(optuna, study, folder, asked.metric)
    return status


def search(
    states: Any, study: Any, asked: DictConfig, folder: Path, space: Space, flags: list[str], words: list[str]
) -> str:
    """Trials one after another, until the study has as many as are asked for."""
    while True:
        reclaim(study, states)
        if begun(study, states) >= asked.trials:
            return "finished"
        trial = study.ask()
        values = suggested(trial, space)
        place = Path(trial.user_attrs.get(FOLDER) or folder / f"{trial.number:04d}")
        trial.set_user_attr(FOLDER, str(place))
        print(f"trial {trial.number}: {' '.join(words_of(values))}", flush=True)
        try:
            study.tell(trial, Trial(trial, place, asked.metric, asked.warmup).run(flags, [*words, *words_of(values)]))
        except Pruned:
            study.tell(trial, state=states.PRUNED)
        except Failed as error:
            print(f"trial {trial.number} failed: {error}", flush=True)
            trial.set_user_attr(WHY, str(error))
            study.tell(trial, state=states.FAIL)
        except Stopped:
            put_back(study, states, trial.number, values, place)
            return "preempted"


def begun(study: Any, states: Any) -> int:
    """The trials that count: those at work, and those that came to an end of their own."""
    trials = study.get_trials(deepcopy=False)
    return sum(t.state != states.WAITING and not (t.state == states.FAIL and WHY not in t.user_attrs) for t in trials)


def reclaim(study: Any, states: Any) -> None:
    """Put back the trials of workers that were killed."""
    for trial in study.get_trials(deepcopy=False, states=(states.RUNNING,)):
        place, began = trial.user_attrs.get(FOLDER), trial.datetime_start
        old = began is None or time.time() - began.timestamp() > LONGEST_START
        if place and old and not in_use(Path(place)):
            put_back(study, states, trial.number, trial.params, Path(place))


def put_back(study: Any, states: Any, number: int, values: dict[str, Any], place: Path) -> None:
    """Give up a trial that was cut off, and let another go on in its folder."""
    study.tell(number, state=states.FAIL)
    study.enqueue_trial(values, user_attrs={FOLDER: str(place)})


def study_of(optuna: Any, asked: DictConfig, folder: Path) -> Any:
    """The study, new or as it was left.

    Raises:
        UserError: where its storage cannot be had.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folder.mkdir(parents=True, exist_ok=True)
    direction = direction_of(asked)
    for tries_left in reversed(range(TRIES)):
        try:
            storage = storage_of(asked.storage, folder / JOURNAL)
            name = asked.study or folder.name
            study = optuna.create_study(study_name=name, storage=storage, direction=direction, load_if_exists=True)
            break
        except Exception as error:  # of SQLAlchemy, of a database's client, of Optuna
            if not tries_left:
                said = " ".join(str(error).split())[:200]
                raise UserError(f"tune.storage: {asked.storage} cannot be used ({said}).") from None
            time.sleep(PAUSE)  # another worker may be making the same tables now
    # Each worker draws from a stream of its own, which is the same where one works alone.
    study.sampler = optuna.samplers.TPESampler(seed=asked.seed + len(study.trials), constant_liar=True)
    study.pruner = optuna.pruners.MedianPruner()
    return study


def storage_of(asked: str | None, journal: Path) -> Any:
    """A database's URL, or a journal, which is a file that many processes may write."""
    if asked and "://" in asked:
        return asked
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    return JournalStorage(JournalFileBackend(str(Path(asked).expanduser() if asked else journal)))


def direction_of(asked: DictConfig) -> str:
    """Whether the metric is to rise or to fall.

    Raises:
        UserError: where its name does not tell.
    """
    known = ("maximize", "minimize", "auto")
    require(asked.direction in known, f"tune.direction: must be {', '.join(known)}, got {asked.direction}.")
    if asked.direction != "auto":
        return str(asked.direction)
    if asked.metric == "return" or asked.metric.startswith(("eval/", "score/")):
        return "maximize"
    from rlgen_cli.evaluation.report import better  # imports torch

    direction = {"higher": "maximize", "lower": "minimize"}.get(better(asked.metric))
    if direction is None:
        raise UserError(f"tune.direction: say whether {asked.metric} is to rise (maximize) or to fall (minimize).")
    return direction


def client() -> Any:
    """The package optuna.

    Raises:
        UserError: where it is not installed.
    """
    return imported("optuna", "tune", "tune: searches with Optuna;")
