"""SPIRAL's two findings, as curve pairs: discriminator against L2 reward, and potential against terminal reward.

    python -m benchmarks.spiral [seeds=1,2,3] [target_seeds=1,2,3] [target_steps=1000000] [target_envs=256]
        [target_gamma=1.0]

With a target: the squared distance to it on held-out digits, for an agent rewarded by that distance and for one that is
rewarded by a discriminator which sees canvas and target (`target_seeds`). Five free strokes by REINFORCE, which learns
to copy by either reward, with the discriminator of the paper (WGAN-GP); a GPU has time for
`target_steps=10000000 target_envs=512 target_gamma=0.7`. Without: the Fréchet distance of finished
drawings to the test digits, for the change of the discriminator's score at each of twenty strokes and for its score at
the end (`seeds`), by PPO and SPIRAL's brush.
"""

import sys
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from benchmarks.files import mnist
from benchmarks.harness import Call, run
from benchmarks.judge import FixedJudge, pictures
from benchmarks.parts import QUICK, data_of, evaluations, opened, step_of, trained, updates_of, with_planner
from benchmarks.report import Line, Row, curves, summary, table, write
from benchmarks.rollouts import samples
from rlgen_cli.core import checkpoint
from rlgen_cli.evaluation.distances import frechet
from rlgen_cli.evaluation.media.pictures import diversity, sheet
from rlgen_cli.evaluation.media.raster import enlarge, write_png

BASE = ["experiment=spiral", "threads=1", "keep_checkpoints=100"]
COPYING = ["experiment=learning_to_paint", "agent=policy_gradient", "threads=1"]
LOSS = "reward.terms.adversarial.loss"
WASSERSTEIN = [
    "reward=adversarial", "reward.terms.adversarial.net.pairs=true", "reward.terms.adversarial.interval=1",
    f"{LOSS}.kind=wasserstein", f"{LOSS}.penalty._target_=rlgen_cli.generators.losses.WassersteinPenalty",
    f"{LOSS}.penalty.weight=10.0", f"{LOSS}.penalty.interval=1",
]  # fmt: skip
WATCHED = [
    "+reward/term=target", "reward.terms.target.per=pixel", "reward.terms.target.norm=l2",
    "reward.terms.target.weight=0",
]  # fmt: skip
FREE = [
    *BASE, "env.condition=none", "reward.terms.adversarial.net.pairs=false", "env.max_steps=20", "agent.num_steps=20",
]  # fmt: skip
RUNS = {
    "L2 reward": COPYING,
    "discriminator reward": [*COPYING, *WASSERSTEIN, *WATCHED],
    "potential": [*FREE, "reward.terms.adversarial.form=potential"],
    "terminal": [*FREE, "reward.terms.adversarial.form=terminal"],
}  # fmt: skip
FROM_NOTHING = ("potential", "terminal")
SMALL = [*QUICK, "agent.network.body.width=16"]


class Point(NamedTuple):
    """A checkpoint judged."""

    step: int
    frechet: float
    diversity: float


def distances(folder: Path) -> Line:
    """(thousand steps, squared distance to held-out targets as a share of the blank canvas's, %) at each evaluation."""
    blank = float(pictures(data_of(opened(folder)).valid).square().mean())
    found = evaluations(folder, "eval/score/target")
    return [(record["step"] / 1000, -100 * record["eval/score/target"] / blank) for record in found]


def judged(call: Call, judge: FixedJudge, known: Tensor, folder: Path, picture: str, newest: int) -> list[Point]:
    """The `newest` checkpoints against the test digits' features, `known`; the last drawings are shown as `picture`."""
    points = []
    for saved in checkpoint.steps(folder)[-newest:]:
        session = opened(saved)
        view = samples(session, call.pick(2000, 50), "spiral")
        points.append(Point(step_of(saved), frechet(judge(view.sample), known), diversity(view.sample)))
    write_png(call.results / picture, enlarge(sheet(view), 400))
    return points


def length(call: Call) -> list[str]:
    """Words for the trainings with a target: how long, of how many environments, and with which discount."""
    steps = int(call.settings["target_steps"])
    return [
        f"total_steps={steps}", f"eval_interval={steps // 20}", f"checkpoint_interval={steps // 2}",
        f"num_envs={call.settings['target_envs']}", f"agent.gamma={call.settings['target_gamma']}",
    ]  # fmt: skip


def measure(call: Call) -> None:
    judge, count = FixedJudge(call), call.pick(2000, 50)
    known = judge(pictures(data_of(with_planner([*BASE, *mnist(call)], "random")).test))
    copies: dict[str, Line] = {}
    drawings: dict[str, Line] = {}
    rows: list[Row] = [["reward", "seed", "steps", "updates", "L2 / blank, held-out", "Fréchet distance", "diversity"]]
    for name, words in RUNS.items():
        free = name in FROM_NOTHING
        seeds = call.seeds("seeds" if free else "target_seeds")
        for seed in seeds:
            asked = [*words, *([] if free else length(call)), *mnist(call), f"seed={seed}", *call.pick([], SMALL)]
            folder = trained(call.parts / f"{name.replace(' ', '_')}_{seed}", asked)
            label = name if len(seeds) == 1 else f"{name}, seed {seed}"
            points = judged(call, judge, known, folder, f"spiral_{name.split()[0].lower()}.png", 100 if free else 1)
            last, away = points[-1], ""
            if free:
                drawings[label] = [(point.step / 1000, point.frechet) for point in points]
            else:
                copies[label] = distances(folder)
                away = f"{copies[label][-1][1]:.1f} %"
            cells = (f"{last.step:,}", f"{updates_of(folder):,}", away)
            rows.append([name, seed, *cells, f"{last.frechet:.0f}", f"{last.diversity:.3f}"])
    panels = {"with_a_target": {"L2 / blank, %": copies}, "from_nothing": {"Fréchet distance": drawings}}
    for name, panel in panels.items():
        curves(call.results / f"spiral_{name}.png", panel, "thousand environment steps")
    write(call, "SPIRAL's curves", [
        f"{summary(__doc__)} MNIST at 28 × 28. With a target five free Bézier strokes by REINFORCE against the mean of "
        "a group, the discriminator a WGAN-GP that is updated at every step; without one twenty strokes by PPO, eight "
        "autoregressive decisions each. The papers publish curves only: there the discriminator's reward ends with a "
        "lower L2 distance than the L2 reward (SPIRAL), and the change of its score at each step beats the score at "
        "the end on long episodes (SPIRAL++).",
        "![with a target](spiral_with_a_target.png) ![from nothing](spiral_from_nothing.png)",
        table(rows),
        f"Fréchet distances are of {count} drawings against the 10 000 test digits (real against real 1.6).",
        "With a target, drawn on the left and wanted on the right: L2 reward, then discriminator reward.",
        "![L2 reward](spiral_l2.png) ![discriminator reward](spiral_discriminator.png)",
        "Without: potential, then terminal.",
        "![potential](spiral_potential.png) ![terminal](spiral_terminal.png)",
    ])  # fmt: skip


def main(arguments: list[str]) -> None:
    run(
        "spiral", measure, arguments, seeds="1,2,3", target_seeds="1,2,3", target_steps="1000000", target_envs="256",
        target_gamma="1.0",
    )  # fmt: skip


if __name__ == "__main__":
    main(sys.argv[1:])
