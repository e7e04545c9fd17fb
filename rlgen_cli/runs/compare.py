"""How good a run's last samples are beside random actions and beside real data, by the run's own terms."""

import json
from pathlib import Path
from typing import Any

import torch

from rlgen_cli.agents.planners.random import Random
from rlgen_cli.core.files import write_atomic
from rlgen_cli.core.protocols import Env
from rlgen_cli.core.seeding import stream
from rlgen_cli.core.specs import View
from rlgen_cli.data.images import Images
from rlgen_cli.data.sequences import Sequences
from rlgen_cli.evaluation.rollout import rollout
from rlgen_cli.rewards.reward import WeightedSum
from rlgen_cli.runs.assemble import Session

COLUMNS = {"samples": "this run", "random": "random", "real": "real data"}


@torch.no_grad()
def compare_results(session: Session, record: dict[str, Any], folder: Path) -> str:
    """A table of each term's score: of the samples that `record` is of (`write_samples`), of as many that random
    actions make in the same episodes, and of as many real ones where a term can score these. Kept as results.json."""
    env, n = session.envs[record["split"]], record["n"]
    rng = stream(record["seed"], "sample", session.device)
    made = env.view(rollout(env, Random(), env.reset(n, rng), rng).final)
    columns = {"samples": record["scores"], "random": means(session.reward, made)}
    real = real_view(session, env, record["split"], n)
    if real is not None:
        columns["real"] = means(session.reward, real)
    kept = {"n": n, "seed": record["seed"], "split": record["split"], "scores": columns}
    write_atomic(folder / "results.json", (json.dumps(kept, indent=1) + "\n").encode())
    lines = [f"scores of {n} samples ({record['split']} data)" + "".join(f"{COLUMNS[name]:>12}" for name in columns)]
    width = len(lines[0]) - 12 * len(columns)
    for term in session.reward.terms:
        values = (column.get(term) for column in columns.values())
        lines.append(f"  {term}".ljust(width) + "".join(f"{'':>12}" if v is None else f"{v:12.4f}" for v in values))
    return "\n".join(lines)


def means(reward: WeightedSum, view: View) -> dict[str, float]:
    """Each term's mean score, so far as the view has what it reads."""
    there = {*view.context, *view.info}
    able = {name: term.score for name, term in reward.terms.items() if set(getattr(term.score, "needs", ())) <= there}
    return {name: round(float(score(view).mean()), 6) for name, score in able.items()}


def real_view(session: Session, env: Env, split: str, n: int) -> View | None:
    """Real data as finished samples, each its own target; None where the environment takes none."""
    data = None if session.data is None else getattr(session.data, split)
    if isinstance(data, Sequences):
        return View(data.tokens[:n], {}, {})
    if not isinstance(data, Images):
        return None
    pictures = data.images[:n].float() / 255
    known = {"target": pictures, "label": data.labels[:n]}
    return View(pictures, {name: value for name, value in known.items() if name in env.spec.context}, {})
