"""Digits from nothing: how many an 11-class judge accepts, and how far they are from real ones, over the training.

python -m benchmarks.digits run=outputs/pixel/dqn/…    judges a run (trained by experiment=digits)
python -m benchmarks.digits                            trains one first
"""

import sys
from pathlib import Path

import torch
from omegaconf import OmegaConf
from torch import Tensor

from benchmarks.judge import (
    NOT_A_DIGIT,
    SHARED,
    Classifier,
    Features,
    blend,
    digit_judge,
    shuffle_patches,
)  # fmt: skip
from benchmarks.report import RESULTS, curves, new_run, runs_named, seconds_until, table, write
from rlgen_cli.core import checkpoint
from rlgen_cli.runs.assemble import Session, build
from rlgen_cli.cli.main import composed, register_resolvers
from rlgen_cli.evaluation.distances import frechet, neighbourhoods
from rlgen_cli.evaluation.media.raster import enlarge, grid, write_png
from rlgen_cli.evaluation.rollout import rollout
from rlgen_cli.core.seeding import stream
from rlgen_cli.runs.trainer import train

EXPERIMENT = ["experiment=digits", f"data.root={SHARED / 'mnist'}"]
WIDTHS, LENGTHS = ("[1.0]", "[1.4]", "[2.0]"), (5, 9, 14)  # random strokes that the judge learns to refuse
COUNT = 4000


@torch.no_grad()
def draw(session: Session, n: int, name: str, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Samples [n, 1, S, S] and the labels that were asked for."""
    env, rng = session.envs["test"], stream(0, f"digits/{name}", session.device)
    state = env.reset(n, rng)
    if labels is not None:
        first = {int(k): int((session.data.test.labels == k).nonzero()[0]) for k in labels.unique()}
        state = state._replace(index=torch.tensor([first[int(k)] for k in labels], dtype=torch.int32))
    view = env.view(rollout(env, session.agent, state, rng).final)
    return view.sample, view.context.label


def untrained(overrides: list[str]) -> Session:
    """The experiment with an agent that acts at random."""
    config = composed("train", overrides)
    OmegaConf.set_struct(config, False)
    config.agent = {"_target_": "rlgen_cli.agents.planners.random.Random"}
    return build(config)


def strokes(base: list[str], n: int, name: str) -> Tensor:
    """Random strokes of several widths and lengths, none of them drawn by a learner."""
    parts = []
    for width in WIDTHS:
        for length in LENGTHS:
            session = untrained([*base, f"env.widths={width}", f"env.max_steps={length}"])
            parts.append(draw(session, n // 9 + 1, f"{name}/{width}/{length}")[0])
    return torch.cat(parts)


class Court:
    """All judges, with what they compare to."""

    def __init__(self, session: Session, base: list[str], seed: int) -> None:
        train_images, test_images = (part.images.float() / 255 for part in (session.data.train, session.data.test))
        self.judge: Classifier = digit_judge(
            train_images, session.data.train.labels, strokes(base, 40_000, "train"), 2500, seed
        )
        self.features, self.test = Features(), test_images
        self.known = self.features(test_images)
        rng = torch.Generator().manual_seed(1)
        self.right = float((self.judge.classify(test_images) == session.data.test.labels).float().mean())
        wrong = {"random strokes": strokes(base, COUNT, "fresh"), "blends": blend(test_images[:COUNT], rng)}
        wrong |= {f"{p} × {p} patches": shuffle_patches(test_images[:COUNT], p, rng) for p in (2, 4)}
        self.fooled = {name: float((self.judge.classify(x) != NOT_A_DIGIT).float().mean()) for name, x in wrong.items()}

    def row(self, name: str, samples: Tensor, labels: Tensor | None) -> list[object]:
        found = self.judge.classify(samples)
        accepted = found != NOT_A_DIGIT
        counts = torch.bincount(found, minlength=11)[:10]
        asked = "" if labels is None else f"{(found == labels).float().mean():.1%}"
        features = self.features(samples)
        near = neighbourhoods(self.known[:2000], features[:2000])
        distance = f"{frechet(features, self.known):.1f}"
        share = f"{accepted.float().mean():.1%}"
        return [
            name,
            share,
            asked,
            " ".join(map(str, counts.tolist())),
            distance,
            f"{near['precision']:.2f}",
            f"{near['coverage']:.2f}",
        ]


def main() -> None:
    register_resolvers()
    runs = runs_named(sys.argv[1:])
    if not runs:
        runs = [new_run("digits")]
        train(
            build(composed("train", [*EXPERIMENT, "keep_checkpoints=100", "checkpoint_interval=500000"])),
            runs[0],
        )
    random = untrained(EXPERIMENT)
    court = Court(random, EXPERIMENT, seed=int(next((a[6:] for a in sys.argv if a.startswith("judge=")), "0")))
    rows: list[list[object]] = [
        ["", "accepted", "as asked", "accepted as 0 … 9", "Fréchet distance", "precision", "coverage"],
        court.row("random strokes", draw(random, COUNT, "random")[0], None),
    ]
    real = random.data.train
    rows.append(court.row("real training images", real.images[:COUNT].float() / 255, real.labels[:COUNT]))
    points: list[list[float]] = []
    for run in runs:
        judged_rows, points = judged(court, run)
        rows += judged_rows
    plot(points, rows)
    fooled = ", ".join(f"{name} {share:.1%}" for name, share in court.fooled.items())
    parts = [
        f"Drawn from a blank 16 × 16 canvas in ten strokes by experiment=digits; n = {COUNT} samples a row, against "
        "the 10 000 test images at the same size. The judge took no part in training: it is right on "
        f"{court.right:.1%} of the test digits and takes for digits: {fooled}.",
        "![drawn digits, one row a label](digits.png)",
        "![over the training](digits_curve.png)",
        table(rows),
    ]
    write("digits", "Digits from nothing", parts)


def judged(court: Court, run: Path) -> tuple[list[list[object]], list[list[float]]]:
    """A row and a point (minutes, accepted, distance) for each checkpoint, and the grid of the last."""
    session, rows, points = build(OmegaConf.load(run / "config.yaml")), [], []
    for folder in checkpoint.steps(run):
        saved = checkpoint.load(folder, "cpu", frozenset(["agent", "reward", "loop"]))
        session.load(saved)
        step = saved["loop"]["step"]
        minutes = seconds_until(run, step) / 60
        name = f"seed {session.config.seed}, {step:,} steps, {minutes:.1f} min"
        rows.append(court.row(name, *draw(session, COUNT, "rlgen")))
        points.append([minutes, *numbers(rows[-1])])
    labels = torch.arange(10).repeat_interleave(16)
    write_png(RESULTS / "digits.png", enlarge(grid(draw(session, 160, "grid", labels)[0], columns=16), 600))
    return rows, points


def numbers(row: list[object]) -> tuple[float, float]:
    """Accepted, in percent, and the Fréchet distance of a row."""
    return float(str(row[1]).rstrip("%")), float(str(row[4]))


def plot(points: list[list[float]], rows: list[list[object]]) -> None:
    """Accepted and Fréchet distance over the minutes of training, beside random strokes and the goal."""
    random, last = numbers(rows[1]), points[-1][0]
    accepted = {"rlgen DQN": [(p[0], p[1]) for p in points], "goal": [(0.0, 50.0), (last, 50.0)]}
    distance = {"rlgen DQN": [(0.0, random[1]), *((p[0], p[2]) for p in points)]}
    distance["goal: a quarter of random's"] = [(0.0, random[1] / 4), (last, random[1] / 4)]
    panels = {"accepted as digits, %": accepted, "Fréchet distance": distance}
    curves(RESULTS / "digits_curve.png", panels, "minutes of training, two cores")


if __name__ == "__main__":
    main()
