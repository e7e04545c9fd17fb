"""`rlgen eval`: how what a run makes compares with real data and with scripted baselines, by the same numbers."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from rlgen_cli.core.errors import require
from rlgen_cli.core.files import write_atomic
from rlgen_cli.core.protocols import Planner
from rlgen_cli.core.seeding import stream
from rlgen_cli.core.specs import View
from rlgen_cli.core.stages import Helpers
from rlgen_cli.data.images import Images
from rlgen_cli.data.sequences import Sequences
from rlgen_cli.domains.music.notes import NAMES
from rlgen_cli.evaluation.judge import accuracy, judge_of
from rlgen_cli.evaluation.real import real_view
from rlgen_cli.evaluation.report import (
    Column,
    PictureNumbers,
    SequenceNumbers,
    begun,
    better,
    by_name,
    finished,
    own_numbers,
    rows,
    table,
)
from rlgen_cli.runs.assemble import Session
from rlgen_cli.runs.baselines import asked, baselines, env_steps
from rlgen_cli.runs.open import open_run
from rlgen_cli.runs.stages import fit_cached

MIDDLE_C = 60


def evaluate_run(config: DictConfig) -> Path:
    """Judge `config.n` samples of `config.run`, print a table, and write it as JSON and CSV; returns where the JSON
    is."""
    asked(config.baselines)  # before anything takes time
    run, session, name = open_run(config)
    require(config.split in session.envs, f"split: must be one of {', '.join(session.envs)}, got {config.split}.")
    env = session.envs[config.split]
    starts = begun(env, config.n, stream(config.seed, "report", session.device))
    view = finished(env, session.actor, starts, stream(config.seed, "report/samples", session.device))
    passes = 0 if isinstance(session.actor, Planner) else env.spec.max_steps
    columns = {"samples": Column(view, env_steps(session.actor, env), passes)}
    real = real_view(env, split_of(session, config.split), config.n, config.seed)
    if real is not None:
        columns["real"] = Column(real, 0, 0)
    left_out = []
    for baseline, found in baselines(session, env, starts, config):
        if isinstance(found, Column):
            columns[baseline] = found
        else:
            left_out.append(f"baseline {baseline}: {found}.")
    record: dict[str, Any] = {"run": run.name, "split": config.split, "seed": config.seed, "n": config.n}
    compare, about = comparison(session, config)
    counts = {
        name: {"n": len(c.view.sample), "env_steps": c.env_steps, "network_passes": c.network_passes}
        for name, c in columns.items()
    }
    numbers = by_name({
        name: own_numbers(env, session.reward, column.view) | compare(column.view) for name, column in columns.items()
    })  # fmt: skip
    record |= about | {"columns": counts, "numbers": numbers, "better": {name: better(name) for name in numbers}}
    record["left_out"] = left_out
    out = Path(config.out or run / "eval" / f"{name}.json")
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(out, (json.dumps(record, indent=1) + "\n").encode())
    write_atomic(out.with_name(f"{out.stem}.csv"), as_csv(record).encode())
    print(table(record))
    return out


def split_of(session: Session, split: str) -> Any:
    """The data of a split; None where the environment takes none."""
    return None if session.data is None else getattr(session.data, split)


def comparison(session: Session, config: DictConfig) -> tuple[Callable[[View], dict[str, float]], dict[str, Any]]:
    """What compares samples with the training data, and what is to be said of it; a judge is fitted, or comes from the
    cache."""
    train = split_of(session, "train")
    if isinstance(train, Sequences):
        config_key = str(session.config.env.get("key", NAMES[0]))
        spec = session.envs["train"].spec
        sequences = SequenceNumbers(spec, train, MIDDLE_C + NAMES.index(config_key), config.seed)
        return sequences, {"training": len(sequences.novelty.real)}
    if not isinstance(train, Images):
        return lambda view: {}, {}
    helpers = Helpers()
    judge = judge_of(train, config.updates, helpers)
    fit_cached(helpers.stages[0], session)
    chance = 1 / (len(train.classes) or 4)
    knows = "pictures' labels" if train.classes else "pictures' turns by right angles"
    told = {"accuracy": round(accuracy(judge, split_of(session, config.split)), 4), "chance": chance, "knows": knows}
    pictures = PictureNumbers(judge, train, config.n, config.seed)
    return pictures, {"judge": told | {"reference": len(pictures.reference)}, "training": len(pictures.pixels)}


def as_csv(record: dict[str, Any]) -> str:
    """The table for a spreadsheet."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows(record))
    return text.getvalue()
