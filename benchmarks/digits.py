"""Digits from nothing: how many an 11-class judge accepts, and how far they are from real ones, over the training.

    python -m benchmarks.digits [recipes=strokes,strokes_28,lattice] [seeds=1,2,3] [other_seeds=1] [judge=0]
        [runs=FOLDER,FOLDER]

`strokes`: experiment=digits_strokes, with `seeds`; `strokes_28`: the same at 28 × 28, `lattice`: experiment=digits,
with `other_seeds`. `judge` is the judge's own seed. `runs` are judged instead of trained.
"""

import sys
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks.files import mnist
from benchmarks.harness import Call, run
from benchmarks.judge import NOT_A_DIGIT, FixedJudge, blend, digit_judge, pictures, shuffle_patches
from benchmarks.parts import QUICK, data_of, opened, seconds_until, step_of, trained, training_cost, with_planner
from benchmarks.report import Line, Row, curves, table, write
from benchmarks.rollouts import copies, samples
from rlgen_cli.agents.pathwise import Pathwise
from rlgen_cli.config.compose import composed
from rlgen_cli.core import checkpoint
from rlgen_cli.evaluation.distances import frechet, neighbourhoods
from rlgen_cli.evaluation.media.raster import enlarge, grid, write_png
from rlgen_cli.runs.assemble import Session

LATTICE, STROKES = "experiment=digits", "experiment=digits_strokes"
SMALL = {
    LATTICE: [
        *QUICK, "agent.batch_size=8", "agent.learning_starts=64", "agent.replay.buffer_size=2000",
        "agent.network.body.width=16", "reward.terms.classifier.updates=10",
    ],
    STROKES: [*QUICK, "agent.network.body.width=16"],
}  # fmt: skip
SIZE, LARGER = 16, 28  # of canvases; widths are those of the first
# Random strokes that the judge learns to refuse: by pen, and how many free ones.
WIDTHS, LENGTHS, FREE_LENGTHS = (1.0, 1.4, 2.0), (5, 9, 14), (2, 4, 8)
EACH = 16  # samples of a label that are shown
HEADER: Row = [
    "", "seed", "updates", "minutes", "accepted", "as asked", "accepted as 0 … 9", "Fréchet distance", "precision",
    "coverage",
]  # fmt: skip


class Judged(NamedTuple):
    """What the judges say of some samples."""

    accepted: float  # share
    as_asked: float | None  # share; None where nothing was asked for
    counts: list[int]  # accepted as 0 … 9
    frechet: float
    precision: float
    coverage: float

    def cells(self) -> Row:
        """The end of its line in the table."""
        asked = "" if self.as_asked is None else f"{self.as_asked:.1%}"
        distances = (f"{self.frechet:.1f}", f"{self.precision:.2f}", f"{self.coverage:.2f}")
        return [f"{self.accepted:.1%}", asked, " ".join(map(str, self.counts)), *distances]


class Judges:
    """The 11-class judge and the fixed network, with the test pictures that they compare to, all of one size."""

    def __init__(self, call: Call, size: int, seed: int) -> None:
        self.data = data_of(with_planner([STROKES, *mnist(call), f"env.size={size}"], "random"))
        count = call.pick(4000, 50)
        negatives = random_strokes(call, size, call.pick(40_000, 90), "train")
        self.judge = digit_judge(self.data.train, torch.cat(list(negatives.values())), call.pick(2500, 10), seed)
        self.network, self.near = FixedJudge(call), call.pick(2000, 40)
        test = pictures(self.data.test)
        self.known = self.network(test)
        self.right = float((self.judge.classify(test) == self.data.test.labels.cpu()).float().mean())
        rng, some = torch.Generator().manual_seed(1), test[:count]
        wrong = random_strokes(call, size, count, "fresh") | {"blends": blend(some, rng)}
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


def random_strokes(call: Call, size: int, count: int, name: str) -> dict[str, Tensor]:
    """About `count` pictures of strokes by pen, of several widths and lengths, and as many of free ones, none of them
    drawn by a learner, float [M, 1, S, S] each."""
    recipes = {
        "random pen strokes": [
            [LATTICE, f"env.size={size}", f"env.brush.widths=[{width * size / SIZE}]", f"env.max_steps={length}"]
            for width in WIDTHS for length in LENGTHS
        ],
        "random free strokes": [[*free(size), f"env.max_steps={length}"] for length in FREE_LENGTHS],
    }  # fmt: skip
    return {
        kind: torch.cat([
            by_chance(call, words, count // len(several) + 1, f"digits/{name}/{i}") for i, words in enumerate(several)
        ])
        for kind, several in recipes.items()
    }  # fmt: skip


def by_chance(call: Call, words: list[str], count: int, name: str) -> Tensor:
    """What random actions draw by a recipe, float [count, 1, S, S]."""
    session = with_planner([*words, *mnist(call), *call.pick([], SMALL[words[0]])], "random")
    return samples(session, count, name).sample


def of_each_label(session: Session) -> Tensor:
    """Samples of every label, a row each, float [10 · EACH, 1, S, S]."""
    labels = data_of(session).test.labels
    first = torch.stack([(labels == label).nonzero()[0, 0] for label in range(10)])
    return copies(session, first.repeat_interleave(EACH), "digits/grid").sample


class Point(NamedTuple):
    """A checkpoint judged."""

    minutes: float
    judged: Judged


def points_of(judges: Judges, folder: Path, count: int) -> list[Point]:
    """One for each checkpoint."""
    points = []
    for saved in checkpoint.steps(folder):
        view = samples(opened(saved), count, "digits/rlgen")
        minutes = seconds_until(folder, step_of(saved)) / 60
        points.append(Point(minutes, judges(view.sample, view.context["label"])))
    return points


def free(size: int) -> list[str]:
    """experiment=digits_strokes on a canvas of this size: strokes grow with it."""
    brush, times = composed("train", [STROKES]).env.brush, size / SIZE
    widths = [round(width * times, 2) for width in brush.widths]
    return [STROKES, f"env.size={size}", f"env.brush.edge={brush.edge * times}", f"env.brush.widths={widths}"]


def runs_of(call: Call) -> list[Path]:
    """Those that are asked for, or trained."""
    if call.each("runs"):
        return [Path(folder) for folder in call.each("runs")]
    recipes = {"strokes": free(SIZE), "strokes_28": free(LARGER), "lattice": [LATTICE]}
    folders = []
    for name in call.each("recipes"):
        words = [*recipes[name], *mnist(call), "keep_checkpoints=100", *call.pick([], SMALL[recipes[name][0]])]
        for seed in call.seeds("seeds" if name == "strokes" else "other_seeds"):
            folders.append(trained(call.parts / f"{name}_{seed}", [*words, f"seed={seed}"]))
    return folders


def called(session: Session) -> str:
    """A run's recipe, in the table."""
    if isinstance(session.agent, Pathwise):
        return "four free strokes, pathwise gradient, discriminator alone"
    return "ten pen strokes, DQN, discriminator and classifier"


def scale(call: Call, judges: Judges, size: int) -> list[Row]:
    """Rows of what random strokes are worth, and real pictures."""
    count, data, rows = call.pick(4000, 50), judges.data.train, list[Row]()
    for name, words in (("random pen strokes", [LATTICE, f"env.size={size}"]), ("random free strokes", free(size))):
        rows.append([name, "", "", "", *judges(by_chance(call, words, count, "digits/random"), None).cells()])
    real = judges(pictures(data)[:count], data.labels[:count])
    return [*rows, ["real training images", "", "", "", *real.cells()]]


def plot(call: Call, lines: dict[str, list[Point]]) -> None:
    """Accepted and Fréchet distance over the minutes of training."""
    accepted: dict[str, Line] = {
        name: [(point.minutes, 100 * point.judged.accepted) for point in points] for name, points in lines.items()
    }
    distance: dict[str, Line] = {
        name: [(point.minutes, point.judged.frechet) for point in points] for name, points in lines.items()
    }
    panels = {"accepted as digits, %": accepted, "Fréchet distance": distance}
    curves(call.results / "digits_curve.png", panels, "minutes of training")


def measure(call: Call) -> None:
    count, lines = call.pick(4000, 50), dict[str, list[Point]]()
    sessions = {folder: opened(folder) for folder in runs_of(call)}
    parts = []
    for size in sorted({session.config.env.size for session in sessions.values()}):
        judges = Judges(call, size, int(call.settings["judge"]))
        rows, shown = [HEADER, *scale(call, judges, size)], dict[str, str]()
        for folder, session in sessions.items():
            if session.config.env.size != size:
                continue
            name, points = called(session), points_of(judges, folder, count)
            lines[f"{size} × {size}, {name}, seed {session.settings.seed}"] = points
            rows.append([name, session.settings.seed, *training_cost(folder), *points[-1].judged.cells()])
            shown[name] = f"digits_{type(session.agent).__name__.lower()}_{size}.png"
            write_png(call.results / shown[name], enlarge(grid(of_each_label(session), columns=EACH), 600))
        fooled = ", ".join(f"{name} {share:.1%}" for name, share in judges.fooled.items())
        parts += [
            f"## {size} × {size}",
            f"The judge is right on {judges.right:.1%} of the test digits and takes for digits: {fooled}.",
            table(rows),
            *(f"{name[0].upper()}{name[1:]}, a row a label:\n\n![drawn digits]({picture})"
              for name, picture in shown.items()),
        ]  # fmt: skip
    plot(call, lines)
    write(call, "Digits from nothing", [
        "Drawn on a blank canvas by experiment=digits_strokes and by experiment=digits, which see a label and no "
        f"target; n = {count} samples a row, against the 10 000 test images at the same size. The judge, an 11-class "
        "classifier, took no part in training.",
        *parts,
        "![over the training](digits_curve.png)",
    ])  # fmt: skip


def main(arguments: list[str]) -> None:
    run(
        "digits", measure, arguments, recipes="strokes,strokes_28,lattice", seeds="1,2,3", other_seeds="1", judge="0",
        runs="",
    )  # fmt: skip


if __name__ == "__main__":
    main(sys.argv[1:])
