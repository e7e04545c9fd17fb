"""Digits from nothing: how many an 11-class judge accepts, and how far they are from real ones, over the training.

    python -m benchmarks.digits [seeds=1] [judge=0] [runs=FOLDER,FOLDER]

Trains experiment=digits with each seed; `judge` is the judge's own. `runs` are judged instead of trained.
"""

import sys
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks.files import mnist
from benchmarks.harness import Call, run
from benchmarks.judge import NOT_A_DIGIT, FixedJudge, blend, digit_judge, pictures, shuffle_patches
from benchmarks.parts import QUICK, data_of, opened, seconds_until, step_of, trained, updates_of, with_planner
from benchmarks.report import Line, Row, curves, table, write
from benchmarks.rollouts import copies, samples
from rlgen_cli.core import checkpoint
from rlgen_cli.evaluation.distances import frechet, neighbourhoods
from rlgen_cli.evaluation.media.raster import enlarge, grid, write_png
from rlgen_cli.runs.assemble import Session

SMALL = [
    *QUICK, "agent.batch_size=8", "agent.learning_starts=64", "agent.replay.buffer_size=2000",
    "agent.network.body.width=16", "reward.terms.classifier.updates=10",
]  # fmt: skip
WIDTHS, LENGTHS = ("[1.0]", "[1.4]", "[2.0]"), (5, 9, 14)  # random strokes that the judge learns to refuse
EACH = 16  # samples of a label that are shown


class Judged(NamedTuple):
    """What the judges say of some samples."""

    accepted: float  # share
    as_asked: float | None  # share; None where nothing was asked for
    counts: list[int]  # accepted as 0 … 9
    frechet: float
    precision: float
    coverage: float

    def row(self, name: str) -> Row:
        """A line of the table."""
        asked = "" if self.as_asked is None else f"{self.as_asked:.1%}"
        cells = (f"{self.frechet:.1f}", f"{self.precision:.2f}", f"{self.coverage:.2f}")
        return [name, f"{self.accepted:.1%}", asked, " ".join(map(str, self.counts)), *cells]


class Judges:
    """The 11-class judge and the fixed network, with the test pictures that they compare to."""

    def __init__(self, call: Call, session: Session, words: list[str], seed: int) -> None:
        data, count = data_of(session), call.pick(4000, 50)
        negatives = random_strokes(words, call.pick(40_000, 90), "train")
        self.judge = digit_judge(data.train, negatives, call.pick(2500, 10), seed)
        self.network, self.near = FixedJudge(call), call.pick(2000, 40)
        test = pictures(data.test)
        self.known = self.network(test)
        self.right = float((self.judge.classify(test) == data.test.labels.cpu()).float().mean())
        rng, some = torch.Generator().manual_seed(1), test[:count]
        wrong = {"random strokes": random_strokes(words, count, "fresh"), "blends": blend(some, rng)}
        wrong |= {f"{parts} × {parts} patches": shuffle_patches(some, parts, rng) for parts in (2, 4)}
        self.fooled = {name: float((self.judge.classify(x) != NOT_A_DIGIT).float().mean()) for name, x in wrong.items()}

    def __call__(self, samples: Tensor, labels: Tensor | None) -> Judged:
        found, features = self.judge.classify(samples), self.network(samples)
        near = neighbourhoods(self.known[: self.near], features[: self.near])
        return Judged(
            accepted=float((found != NOT_A_DIGIT).float().mean()),
            as_asked=None if labels is None else float((found == labels.cpu()).float().mean()),
            counts=torch.bincount(found, minlength=11)[:10].tolist(),
            frechet=frechet(features, self.known), precision=near["precision"], coverage=near["coverage"],
        )  # fmt: skip


def random_strokes(words: list[str], count: int, name: str) -> Tensor:
    """Strokes of several widths and lengths, none of them drawn by a learner, float [M, 1, S, S]."""
    each, parts = count // (len(WIDTHS) * len(LENGTHS)) + 1, []
    for width in WIDTHS:
        for length in LENGTHS:
            session = with_planner([*words, f"env.brush.widths={width}", f"env.max_steps={length}"], "random")
            parts.append(samples(session, each, f"digits/{name}/{width}/{length}", at_once=each).sample)
    return torch.cat(parts)


def of_each_label(session: Session) -> Tensor:
    """Samples of every label, a row each, float [10 · EACH, 1, S, S]."""
    labels = data_of(session).test.labels
    first = torch.stack([(labels == label).nonzero()[0, 0] for label in range(10)])
    return copies(session, first.repeat_interleave(EACH), "digits/grid").sample


class Point(NamedTuple):
    """A checkpoint judged."""

    minutes: float
    accepted: float  # percent
    frechet: float


def judged_run(judges: Judges, folder: Path, count: int) -> tuple[list[Row], list[Point]]:
    """A row and a point for each checkpoint."""
    rows, points = [], []
    for saved in checkpoint.steps(folder):
        session, minutes = opened(saved), seconds_until(folder, step_of(saved)) / 60
        view = samples(session, count, "digits/rlgen")
        found = judges(view.sample, view.context["label"])
        cost = f"{step_of(saved):,} steps, {updates_of(folder, saved):,} updates, {minutes:.1f} min"
        rows.append(found.row(f"seed {session.settings.seed}, {cost}"))
        points.append(Point(minutes, 100 * found.accepted, found.frechet))
    return rows, points


def plot(call: Call, points: list[Point], random: Judged) -> None:
    """Accepted and Fréchet distance over the minutes of training, beside random strokes and the goal."""
    last = points[-1].minutes
    accepted: dict[str, Line] = {
        "rlgen DQN": [(point.minutes, point.accepted) for point in points], "goal": [(0.0, 50.0), (last, 50.0)],
    }  # fmt: skip
    quarter = random.frechet / 4
    distance: dict[str, Line] = {
        "rlgen DQN": [(0.0, random.frechet), *((point.minutes, point.frechet) for point in points)],
        "goal: a quarter of random's": [(0.0, quarter), (last, quarter)],
    }
    panels = {"accepted as digits, %": accepted, "Fréchet distance": distance}
    curves(call.results / "digits_curve.png", panels, "minutes of training")


def measure(call: Call) -> None:
    words, count = ["experiment=digits", *mnist(call), *call.pick([], SMALL)], call.pick(4000, 50)
    runs = [Path(folder) for folder in call.each("runs")] or [
        trained(call.parts / f"seed_{seed}", [*words, "keep_checkpoints=100", f"seed={seed}"]) for seed in call.seeds()
    ]
    random = with_planner(words, "random")
    judges = Judges(call, random, words, int(call.settings["judge"]))
    by_chance = judges(samples(random, count, "digits/random").sample, None)
    real = data_of(random).train
    rows: list[Row] = [["", "accepted", "as asked", "accepted as 0 … 9", "Fréchet distance", "precision", "coverage"]]
    rows += [
        by_chance.row("random strokes"),
        judges(pictures(real)[:count], real.labels[:count]).row("real training images"),
    ]
    for folder in runs:
        found, points = judged_run(judges, folder, count)
        rows += found
    plot(call, points, by_chance)
    write_png(call.results / "digits.png", enlarge(grid(of_each_label(opened(runs[-1])), columns=EACH), 600))
    fooled = ", ".join(f"{name} {share:.1%}" for name, share in judges.fooled.items())
    write(call, "Digits from nothing", [
        f"Drawn from a blank 16 × 16 canvas in ten strokes by experiment=digits; n = {count} samples a row, against "
        "the 10 000 test images at the same size. The judge took no part in training: it is right on "
        f"{judges.right:.1%} of the test digits and takes for digits: {fooled}.",
        "![drawn digits, one row a label](digits.png)",
        "![over the training](digits_curve.png)",
        table(rows),
    ])  # fmt: skip


def main(arguments: list[str]) -> None:
    run("digits", measure, arguments, seeds="1", judge="0", runs="")


if __name__ == "__main__":
    main(sys.argv[1:])
