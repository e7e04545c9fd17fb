"""How good a run's last samples are beside random actions and beside real data, by the run's own terms."""

import json
from pathlib import Path
from typing import Any

import torch

from rlgen_cli.agents.planners.random import Random
from rlgen_cli.core.checkpoint import write_atomic
from rlgen_cli.core.seeding import stream
from rlgen_cli.evaluation.real import mean_scores, real_view
from rlgen_cli.evaluation.rollout import rollout
from rlgen_cli.runs.assemble import Session

COLUMNS = {"samples": "this run", "random": "random", "real": "real data"}


@torch.no_grad()
def compare_results(session: Session, record: dict[str, Any], folder: Path) -> str:
    """A table of each term's score: of the samples that `record` is of (`write_samples`), of as many that random
    actions make in the same episodes, and of as many real ones where a term can score these. Kept as results.json."""
    env, n = session.envs[record["split"]], record["n"]
    rng = stream(record["seed"], "sample", session.device)
    made = env.view(rollout(env, Random(), env.reset(n, rng), rng).final)
    columns = {"samples": record["scores"], "random": mean_scores(session.reward, made)}
    data = None if session.data is None else getattr(session.data, record["split"])
    real = real_view(env, data, n, record["seed"])
    if real is not None:
        columns["real"] = mean_scores(session.reward, real)
    kept = {"n": n, "seed": record["seed"], "split": record["split"], "scores": columns}
    write_atomic(folder / "results.json", (json.dumps(kept, indent=1) + "\n").encode())
    lines = [f"scores of {n} samples ({record['split']} data)" + "".join(f"{COLUMNS[name]:>12}" for name in columns)]
    width = len(lines[0]) - 12 * len(columns)
    for term in session.reward.terms:
        values = (column.get(term) for column in columns.values())
        lines.append(f"  {term}".ljust(width) + "".join(f"{'':>12}" if v is None else f"{v:12.4f}" for v in values))
    return "\n".join(lines)
