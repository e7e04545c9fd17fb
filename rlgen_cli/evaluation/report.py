"""How samples compare with real data: distances by a judge that took no part in training, and the run's own terms."""

from typing import Any

import torch
from torch import Tensor

from rlgen_cli.core.acting import Actor
from rlgen_cli.core.protocols import Env
from rlgen_cli.core.specs import View
from rlgen_cli.core.tree import join
from rlgen_cli.data.images import Images
from rlgen_cli.evaluation.distances import frechet, kernel_distance, neighbourhoods, vendi
from rlgen_cli.evaluation.evaluate import unique
from rlgen_cli.evaluation.judge import Judge
from rlgen_cli.evaluation.media.registry import medium
from rlgen_cli.evaluation.rollout import rollout
from rlgen_cli.rewards.reward import WeightedSum

BATCH = 500  # episodes at once
NEIGHBOURS = 5
FEWEST = 50  # of which a covariance or a neighbourhood says anything


@torch.no_grad()
def finished_samples(env: Env, actor: Actor, n: int, rng: torch.Generator) -> View:
    """What rewards see of n finished samples."""
    counts = [min(BATCH, n - begun) for begun in range(0, n, BATCH)]
    return join(*(env.view(rollout(env, actor, env.reset(count, rng), rng).final) for count in counts))


@torch.no_grad()
def own_numbers(env: Env, reward: WeightedSum, view: View) -> dict[str, Any]:
    """What the run's own terms and medium say."""
    numbers = {name: round(value, 4) for name, value in medium(env).numbers(view).items()}
    scores = {name: round(float(score.mean()), 6) for name, score in reward.score(view).items()}
    return {"scores": scores, "unique": round(unique(view.sample), 4), **numbers}


def judged(judge: Judge, view: View, real: Images, other: Images, seed: int) -> dict[str, Any]:
    """Samples, and as many other real pictures, compared with the real ones; all three counts beside them."""
    rng = torch.Generator().manual_seed(seed)
    index, spare = (some(len(part.images), len(view.sample), rng) for part in (real, other))
    features = judge.features(view.sample)
    wanted, floor = (judge.features(part.images[i].float() / 255) for part, i in ((real, index), (other, spare)))
    columns = {"samples": compared(features, wanted), "real": compared(floor, wanted)}
    if real.classes:
        right = judge.confidence(wanted).argmax(1) == real.labels[index].cpu()
        columns["real"]["asked"] = round(float(right.float().mean()), 4)
    if "label" in view.context and real.classes:
        label = view.context["label"].cpu()
        columns["samples"]["asked"] = round(float((judge.confidence(features).argmax(1) == label).float().mean()), 4)
        columns["samples"]["vendi_in_label"] = within(features, label)
        columns["real"]["vendi_in_label"] = within(wanted, real.labels[index].cpu())
    return {"judge": {"counts": {"samples": len(features), "real": len(floor), "reference": len(wanted)}, **columns}}


def some(available: int, n: int, rng: torch.Generator) -> Tensor:
    """Indices of n pictures, or of all."""
    return torch.randperm(available, generator=rng)[:n]


def compared(features: Tensor, real: Tensor) -> dict[str, float]:
    """Distances, what lies where, and the variety of the first; nothing of too few."""
    if min(len(features), len(real)) < FEWEST:
        return {}
    scale = real.square().mean().sqrt().clamp(min=1e-12)  # the kernel's values depend on the features' unit
    numbers = {"frechet": frechet(features, real), "kernel": kernel_distance(features / scale, real / scale)}
    numbers |= neighbourhoods(real, features, NEIGHBOURS) | {"vendi": vendi(features)}
    return {name: round(value, 4) for name, value in numbers.items()}


def within(features: Tensor, label: Tensor) -> float:
    """Mean Vendi score of the samples of one label."""
    return round(sum(vendi(features[label == i]) for i in label.unique()) / len(label.unique()), 4)


ROWS = {
    "frechet": ("Fréchet distance", "lower is better"),
    "kernel": ("kernel distance (KID)", "lower is better; of features whose mean square is 1 for real data"),
    "precision": ("precision", "share of samples that are like real ones"),
    "recall": ("recall", "share of real ones that are like samples"),
    "density": ("density", "higher is better, real about 1"),
    "coverage": ("coverage", "share of real ones with a sample near"),
    "vendi": ("Vendi score", "how many different ones there seem to be"),
    "vendi_in_label": ("Vendi score in a label", "the mean over labels"),
    "asked": ("asked label recognised", "share"),
}


def table(record: dict[str, Any]) -> str:
    """For the terminal."""
    lines = [f"{record['n']} samples of {record['run']}, split {record['split']}; scores (higher is better):"]
    lines += [f"  {name:26} {value:10.4f}" for name, value in record["scores"].items()]
    lines += [f"  {'unique':26} {record['unique']:10.4f}   share of different samples"]
    judge = record.get("judge")
    if judge is None:
        return "\n".join(lines)
    counts = judge["counts"]
    lines += [f"  {'':26} {'samples':>10} {'real':>10}   against {counts['reference']} real pictures"]
    lines += [f"  {'n':26} {counts['samples']:10} {counts['real']:10}"]
    for key, (name, meaning) in ROWS.items():
        values = [judge[column].get(key) for column in ("samples", "real")]
        if any(value is not None for value in values):
            numbers = " ".join(" " * 10 if v is None else f"{v:10.4f}" for v in values)
            lines.append(f"  {name:26} {numbers}   {meaning}")
    return "\n".join(lines)
