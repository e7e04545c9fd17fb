"""How good and how different a run's last samples are beside random actions and beside real data."""

import json
from pathlib import Path
from typing import Any

import torch

from rlgen_cli.agents.planners.random import Random
from rlgen_cli.core.files import write_atomic
from rlgen_cli.core.seeding import stream
from rlgen_cli.evaluation.evaluate import unique
from rlgen_cli.evaluation.media.registry import medium
from rlgen_cli.evaluation.real import mean_scores, real_view
from rlgen_cli.evaluation.rollout import rollout
from rlgen_cli.runs.assemble import Session

COLUMNS = {"samples": "this run", "random": "random", "real": "real data"}


@torch.no_grad()
def compare_results(session: Session, record: dict[str, Any], folder: Path) -> str:
    """A table of each term's score, and of how different samples are: of the samples that `record` is of
    (`write_samples`), of as many that random actions make in the same episodes, and of as many real ones where a term
    can score these. Kept as results.json."""
    env, n = session.envs[record["split"]], record["n"]
    rng = stream(record["seed"], "sample", session.device)
    made = {"random": env.view(rollout(env, Random(), env.reset(n, rng), rng).final)}
    data = None if session.data is None else getattr(session.data, record["split"])
    real = real_view(env, data, n, record["seed"])
    made |= {} if real is None else {"real": real}
    shown = medium(env)
    scores = {"samples": record["scores"]} | {name: mean_scores(session.reward, view) for name, view in made.items()}
    variety = {
        "diversity": {name: round(shown.diversity(view.sample), 6) for name, view in made.items()},
        "unique": {name: round(unique(view.sample), 6) for name, view in made.items()},
    }
    variety = {name: {"samples": record[name]} | values for name, values in variety.items()}
    kept = {"n": n, "seed": record["seed"], "split": record["split"], "scores": scores, **variety}
    write_atomic(folder / "results.json", (json.dumps(kept, indent=1) + "\n").encode())
    lines = [f"scores of {n} samples ({record['split']} data)" + "".join(f"{COLUMNS[name]:>12}" for name in scores)]
    width = len(lines[0]) - 12 * len(scores)
    rows = {f"score/{term}": [column.get(term) for column in scores.values()] for term in session.reward.terms}
    for name, row in [*rows.items(), *((name, list(values.values())) for name, values in variety.items())]:
        lines.append(f"  {name}".ljust(width) + "".join(f"{'':>12}" if v is None else f"{v:12.4f}" for v in row))
    return "\n".join(lines)
