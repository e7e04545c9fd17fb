"""The numbers of `rlgen eval`: what is said of each set of samples (a column), and the table of them all.

docs/evaluation.md says what each number is, where it comes from, and when it misleads.
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rlgen_cli.core.acting import Actor
from rlgen_cli.core.protocols import Env
from rlgen_cli.core.specs import EnvSpec, State, View
from rlgen_cli.core.tree import join, map_tensors
from rlgen_cli.data.images import Images
from rlgen_cli.data.sequences import Sequences
from rlgen_cli.domains.music.scores import SequenceNovelty
from rlgen_cli.domains.music.statistics import features, piece_statistics, rl_tuner_statistics
from rlgen_cli.evaluation.distances import frechet, from_corpus, kernel_distance, neighbourhoods, vendi
from rlgen_cli.evaluation.evaluate import unique
from rlgen_cli.evaluation.judge import Judge
from rlgen_cli.evaluation.media.registry import medium
from rlgen_cli.evaluation.novelty import nearest
from rlgen_cli.evaluation.real import mean_scores, some
from rlgen_cli.evaluation.rollout import rollout
from rlgen_cli.rewards.reward import WeightedSum

BATCH = 500  # episodes at once
NEIGHBOURS = 5
FEWEST = 50  # of which a covariance or a neighbourhood says anything
MOST_TRAINING = 10_000  # training samples among which the nearest is looked for
MOST_PIECES = 150  # of a set, whose distances to a corpus are compared
HIGHER, LOWER, REAL = "higher", "lower", "as real"
SIGNS = {HIGHER: "↑", LOWER: "↓", REAL: "≈"}
LEGEND = "↑ higher is better   ↓ lower is better   ≈ better the nearer to real data"
# Which way is better, of numbers by their names; or of all whose names begin alike.
BETTER = {
    "total": HIGHER, "unique": HIGHER, "psnr": HIGHER, "frechet": LOWER, "kernel": LOWER, "precision": HIGHER,
    "recall": HIGHER, "coverage": HIGHER, "label_accuracy": HIGHER, "copies": LOWER,
    "rl_tuner/repeated_too_often": LOWER, "rl_tuner/not_in_key": LOWER,
    **{f"rl_tuner/autocorrelation_{lag}": REAL for lag in (1, 2, 3)},
}  # fmt: skip
BETTER_BY_GROUP = {"score": HIGHER, "overlap": HIGHER, "kl": LOWER, "rl_tuner": HIGHER}


class Column(NamedTuple):
    """A set of finished samples, and what one of them costs."""

    view: View
    env_steps: int  # of the environment, those that were only tried included
    network_passes: int  # of a policy's network


def better(name: str) -> str:
    """Whether a number is better `higher`, `lower`, or near what real data has."""
    return BETTER.get(name) or BETTER_BY_GROUP.get(name.partition("/")[0], REAL)


@torch.no_grad()
def begun(env: Env, n: int, rng: torch.Generator) -> State:
    """N fresh episodes, some at a time."""
    return join(*(env.reset(min(BATCH, n - at), rng) for at in range(0, n, BATCH)))


@torch.no_grad()
def finished(env: Env, actor: Actor, starts: State, rng: torch.Generator, at_once: int = BATCH) -> View:
    """What rewards see of the samples that an actor makes of episodes that begin."""
    n = len(env.done(starts))
    parts = (map_tensors(lambda field, at=at: field[at : at + at_once], starts) for at in range(0, n, at_once))
    return join(*(env.view(rollout(env, actor, part, rng).final) for part in parts))


def own_numbers(env: Env, reward: WeightedSum, view: View) -> dict[str, float]:
    """What the run's own terms and medium say, under the names that training logs have (there below `eval/`)."""
    scores = mean_scores(reward, view)
    numbers = {f"score/{name}": score for name, score in scores.items()}
    if scores.keys() == reward.terms.keys() and scores:
        numbers["total"] = sum(reward.terms[name].weight * score for name, score in scores.items())
    shown = medium(env)
    return numbers | {
        "unique": unique(view.sample), "diversity": shown.diversity(view.sample), **shown.numbers(view),
    }  # fmt: skip


class PictureNumbers:
    """Pictures compared with training pictures, by a judge and pixel by pixel.

    Args:
        n: reference pictures of the distances. seed: of which they are.
    """

    def __init__(self, judge: Judge, train: Images, n: int, seed: int) -> None:
        rng = torch.Generator().manual_seed(seed)
        index = some(len(train.images), max(n, MOST_TRAINING), rng)
        self.judge, self.pixels = judge, train.images[index].cpu()  # [M, C, H, W]
        parts = train.images[index].split(BATCH)  # since all pictures as floats may be much
        self.features = torch.cat([judge.features(part.float() / 255) for part in parts])
        self.reference = self.features[:n]

    @torch.no_grad()
    def __call__(self, view: View) -> dict[str, float]:
        features = self.judge.features(view.sample)
        numbers = compared(features, self.reference)
        if "label" in view.context:
            label = view.context["label"].cpu()
            right = self.judge.confidence(features).argmax(1) == label
            numbers |= {"label_accuracy": float(right.float().mean()), "vendi_in_label": within(features, label)}
        made = (view.sample.cpu() * 255).round()
        pixels = nearest(made, self.pixels)[0] / (255 * made[0].numel() ** 0.5)
        away = nearest(features, self.features)[0]
        return numbers | {"novelty_pixels": float(pixels.mean()), "novelty_features": float(away.mean())}


class SequenceNumbers:
    """Sequences compared with training sequences, and of music what its notes are like.

    Args:
        tonic: MIDI number of the key's first note, for RL Tuner's rules. seed: of which training sequences are taken.
    """

    def __init__(self, spec: EnvSpec, train: Sequences, tonic: int, seed: int) -> None:
        tokens = train.tokens[some(len(train.tokens), MOST_TRAINING, torch.Generator().manual_seed(seed))]
        self.spec, self.tonic = spec, tonic
        self.novelty = SequenceNovelty(real=Sequences(tokens, train.encoding), limit=MOST_TRAINING)
        self.corpus = features(tokens[:MOST_PIECES], spec) if "music" in spec.kinds else {}

    @torch.no_grad()
    def __call__(self, view: View) -> dict[str, float]:
        away = self.novelty(view)
        numbers = {"sequence_novelty": float(away.mean()), "copies": float((away == 0).float().mean())}
        if "music" in self.spec.kinds:
            numbers |= piece_statistics(view, self.spec)
        if "melody" in self.spec.kinds:
            rules = rl_tuner_statistics(view, self.spec, self.tonic)
            numbers |= {f"rl_tuner/{name}": value for name, value in rules.items()}
        if self.corpus and min(len(view.sample), len(self.corpus["note_count"])) >= FEWEST:
            made = features(view.sample[:MOST_PIECES], self.spec)
            both = {name: from_corpus(made[name], corpus) for name, corpus in self.corpus.items()}
            numbers |= {f"overlap/{name}": area for name, (area, _) in both.items()}
            numbers |= {f"kl/{name}": divergence for name, (_, divergence) in both.items()}
        return numbers


def compared(features: Tensor, real: Tensor) -> dict[str, float]:
    """Distances, what lies where, and the variety of the first; nothing of too few."""
    if min(len(features), len(real)) < FEWEST:
        return {}
    scale = real.square().mean().sqrt().clamp(min=1e-12)  # the kernel's values depend on the features' unit
    numbers = {"frechet": frechet(features, real), "kernel": kernel_distance(features / scale, real / scale)}
    return numbers | neighbourhoods(real, features, NEIGHBOURS) | {"vendi": vendi(features)}


def within(features: Tensor, label: Tensor) -> float:
    """Mean Vendi score of the samples of one label."""
    return sum(vendi(features[label == i]) for i in label.unique()) / len(label.unique())


def by_name(columns: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """From the numbers of each column to the columns of each number, of what is finite, with six digits."""
    names = dict.fromkeys(name for numbers in columns.values() for name in numbers)
    return {
        name: {
            column: float(f"{numbers[name]:.6g}")
            for column, numbers in columns.items()
            if name in numbers and math.isfinite(numbers[name])
        }
        for name in names
    }


def rows(record: dict[str, Any]) -> list[list[Any]]:
    """The table as cells: counts and costs first, then each number; None where there is none."""
    columns = record["columns"]
    counts = ("n", "env_steps", "network_passes")
    head: list[list[Any]] = [["", "better", *columns]]
    head += [[name, "", *(column[name] for column in columns.values())] for name in counts]
    return head + [
        [name, better(name), *(values.get(column) for column in columns)] for name, values in record["numbers"].items()
    ]


def table(record: dict[str, Any]) -> str:
    """For the terminal, at most 100 columns wide."""
    lines = [f"{record['n']} samples of {record['run']}, split {record['split']}, seed {record['seed']}"]
    if "judge" in record:
        judge = record["judge"]
        lines.append(
            f"judge: knows {judge['accuracy']:.1%} of the held-out {judge['knows']} (chance {judge['chance']:.1%})"
        )
    if record.get("training"):
        lines.append(f"compared with {record['training']} training samples")
    head, *rest = rows(record)
    lines.append(f"{'':29}" + "".join(f"{name:>10}" for name in head[2:]))
    lines += [f"{SIGNS.get(sign, ''):1} {name:27}" + "".join(map(cell, values)) for name, sign, *values in rest]
    return "\n".join([*lines, LEGEND, *record["left_out"]])


def cell(value: float | None) -> str:
    """A number in ten characters."""
    if value is None:
        return f"{'':10}"
    if isinstance(value, int):
        return f"{value:10}"
    return f"{value:10.4f}" if abs(value) < 1000 else f"{value:10.1f}"
