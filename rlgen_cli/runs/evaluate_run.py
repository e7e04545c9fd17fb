"""`rlgen eval`: how what a run makes compares with real data, judged by a network that took no part in training."""

import json
from pathlib import Path

from omegaconf import DictConfig

from rlgen_cli.core.errors import require
from rlgen_cli.core.files import write_atomic
from rlgen_cli.core.seeding import stream
from rlgen_cli.core.stages import Helpers
from rlgen_cli.data.images import Images
from rlgen_cli.evaluation.judge import judge_of
from rlgen_cli.evaluation.report import finished_samples, judged, own_numbers, table
from rlgen_cli.runs.open import open_run
from rlgen_cli.runs.stages import fit_cached


def evaluate_run(config: DictConfig) -> Path:
    """Judge `config.n` samples of `config.run`, print a table, and write it as JSON; returns where."""
    run, session, name = open_run(config)
    require(config.split in session.envs, f"split: must be one of {', '.join(session.envs)}, got {config.split}.")
    env, rng = session.envs[config.split], stream(config.seed, "report", session.device)
    view = finished_samples(env, session.actor, config.n, rng)
    record = {"run": run.name, "split": config.split, "seed": config.seed, "n": config.n}
    record |= own_numbers(env, session.reward, view)
    if session.data is not None and isinstance(session.data.train, Images):
        helpers = Helpers()
        judge = judge_of(session.data.train, config.updates, helpers)
        fit_cached(helpers.stages[0], session)
        record |= judged(judge, view, getattr(session.data, config.split), session.data.train, config.seed)
    out = Path(config.out or run / "eval" / f"{name}.json")
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(out, (json.dumps(record, indent=1) + "\n").encode())
    print(table(record))
    return out
