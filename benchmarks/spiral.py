"""SPIRAL's two findings, as curve pairs: discriminator against L2 reward, and potential against terminal reward.

python -m benchmarks.spiral                  trains four agents (about half an hour on one core)
python -m benchmarks.spiral seeds=2 target_seeds=1     more seeds of the pair from nothing, or of that with a target
python -m benchmarks.spiral folder=FOLDER    goes on where a comparison in FOLDER stopped, or only reports it

With a target: the squared distance to it on held-out digits, for an agent rewarded by that distance and for one that is
rewarded by a discriminator which sees canvas and target. Without: the Fréchet distance of finished drawings to the test
digits, for the change of the discriminator's score at each of twenty strokes and for its score at the end.
"""

import json
import sys
from pathlib import Path

import torch
from omegaconf import OmegaConf

from benchmarks.judge import SHARED, Features
from benchmarks.report import RESULTS, curves, finished, new_run, table, write
from rlgen_cli.core import checkpoint
from rlgen_cli.runs.assemble import build
from rlgen_cli.cli.main import composed, register_resolvers
from rlgen_cli.evaluation.distances import frechet
from rlgen_cli.evaluation.media.raster import enlarge, write_png
from rlgen_cli.evaluation.media.pictures import diversity, sheet
from rlgen_cli.evaluation.rollout import rollout
from rlgen_cli.core.seeding import stream
from rlgen_cli.runs.trainer import train

BASE = ["experiment=spiral", f"data.root={SHARED / 'mnist'}", "threads=1", "keep_checkpoints=100"]
WATCHED = ["+reward/term=target", "reward.terms.target.per=pixel"]
FREE = ["env.condition=none", "reward.terms.adversarial.pairs=false", "env.max_steps=20", "agent.rollout=20"]
RUNS = {
    "L2 reward": [
        "reward=target",
        "~reward.terms.adversarial",
        "reward.terms.target.per=pixel",
        "reward.terms.target.weight=100",
    ],
    "discriminator reward": [*WATCHED, "reward.terms.target.weight=0"],
    "potential": [*FREE, "reward.terms.adversarial.form=potential"],
    "terminal": [*FREE, "reward.terms.adversarial.form=terminal"],
}
FROM_NOTHING = ("potential", "terminal")
COUNT = 2000


def trained(folder: Path, name: str, seed: int) -> Path:
    run = folder / f"{name.replace(' ', '_')}_{seed}"
    if not finished(run):
        words = [word for word in BASE if not (name == "L2 reward" and "adversarial" in word)]
        train(build(composed("train", [*words, *RUNS[name], f"seed={seed}"])), run)
    return run


def distances(run: Path) -> list[tuple[float, float]]:
    """(thousand steps, squared distance to held-out targets as a share of the blank canvas's) at each evaluation."""
    session = build(OmegaConf.load(run / "config.yaml"), fresh=False)
    blank = float((session.data.valid.images.float() / 255).square().mean())
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [(r["step"] / 1000, -100 * r["eval/target"] / blank) for r in lines if "eval/target" in r]


@torch.no_grad()
def judged(run: Path, picture: str, newest: int) -> list[tuple[float, float, float]]:
    """(thousand steps, Fréchet distance, diversity) at the `newest` checkpoints; the last drawings as `picture`."""
    session, features, points = build(OmegaConf.load(run / "config.yaml"), fresh=False), Features(), []
    known = features(session.data.test.images.float() / 255)
    for folder in checkpoint.steps(run)[-newest:]:
        saved = checkpoint.load(folder, "cpu", frozenset(["agent", "reward", "loop"]))
        session.load(saved)
        rng = stream(0, "spiral")
        view = session.envs["test"].view(
            rollout(session.envs["test"], session.agent, session.envs["test"].reset(COUNT, rng), rng).final
        )
        distance = frechet(features(view.sample), known)
        points.append((saved["loop"]["step"] / 1000, distance, diversity(view.sample)))
    write_png(RESULTS / picture, enlarge(sheet(view), 400))
    return points


def main() -> None:
    register_resolvers()
    given = dict(argument.split("=", 1) for argument in sys.argv[1:])
    folder = Path(given["folder"]) if "folder" in given else new_run("spiral")
    seeds = {name: int(given.get("seeds" if name in FROM_NOTHING else "target_seeds", 1)) for name in RUNS}
    runs = {(name, seed): trained(folder, name, seed) for name in RUNS for seed in range(1, seeds[name] + 1)}
    copies: dict[str, list[tuple[float, float]]] = {}
    drawings: dict[str, list[tuple[float, float]]] = {}
    rows: list[list[object]] = [["reward", "seed", "steps", "L2 / blank, held-out", "Fréchet distance", "diversity"]]
    for (name, seed), run in runs.items():
        label = name if seeds[name] == 1 else f"{name}, seed {seed}"
        slug = f"spiral_{name.split()[0].lower()}.png"
        points = judged(run, slug, 100 if name in FROM_NOTHING else 1)
        steps = f"{1000 * points[-1][0]:,.0f}"
        if name in FROM_NOTHING:
            drawings[label] = [(step, distance) for step, distance, _ in points]
            rows.append([name, seed, steps, "", f"{points[-1][1]:.0f}", f"{points[-1][2]:.3f}"])
        else:
            copies[label] = distances(run)
            rows.append(
                [name, seed, steps, f"{copies[label][-1][1]:.1f} %", f"{points[-1][1]:.0f}", f"{points[-1][2]:.3f}"]
            )
    panels = {"with a target: L2 / blank, %": copies, "without: Fréchet distance": drawings}
    curves(RESULTS / "spiral.png", panels, "thousand environment steps")
    parts = [
        f"{__doc__.split(chr(10), 1)[0]} MNIST at 28 × 28, PPO, eight autoregressive decisions a stroke; eight strokes "
        "with a target, twenty without. The papers publish curves only: there the discriminator's reward ends with a "
        "lower L2 distance than the L2 reward (SPIRAL), and the change of its score at each step beats the score at "
        "the end on long episodes (SPIRAL++).",
        "![the two pairs](spiral.png)",
        table(rows),
        f"Fréchet distances are of {COUNT} drawings against the 10 000 test digits (real against real 1.6).",
        "With a target, drawn on the left and wanted on the right: L2 reward, then discriminator reward.",
        "![L2 reward](spiral_l2.png) ![discriminator reward](spiral_discriminator.png)",
        "Without: potential, then terminal.",
        "![potential](spiral_potential.png) ![terminal](spiral_terminal.png)",
    ]
    write("spiral", "SPIRAL's curves", parts)


if __name__ == "__main__":
    main()
