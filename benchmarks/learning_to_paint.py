"""Learning to Paint: five Bézier strokes a digit, with and without a gradient through them, on the test digits.

    python -m benchmarks.learning_to_paint [agents=pathwise,policy_gradient,hard] [seeds=1] [runs=FOLDER,FOLDER]

Trains experiment=learning_to_paint by each agent (`hard` is pathwise with a hard rim; `ppo` and `longer`, REINFORCE for
eight times as long, are for a GPU); `runs` are judged instead. The canvas is judged at 128 × 128, quantised after each
stroke, against the digits resized bilinearly to 128 × 128: mean squared error over all pixels of the 10 000 official
test digits, divided by that of the blank canvas.
"""

import sys
from pathlib import Path
from typing import NamedTuple

import torch
from omegaconf import OmegaConf

from benchmarks.files import mnist
from benchmarks.harness import Call, run
from benchmarks.judge import pictures
from benchmarks.parts import QUICK, data_of, evaluations, opened, step_of, trained, training_cost
from benchmarks.report import Line, Row, curves, summary, table, write
from benchmarks.rollouts import episodes
from rlgen_cli.agents.actor_critic import ActorCritic
from rlgen_cli.agents.pathwise import Pathwise
from rlgen_cli.agents.policy_gradient import PolicyGradient
from rlgen_cli.core import checkpoint
from rlgen_cli.core.specs import View
from rlgen_cli.evaluation.media.pictures import sheet
from rlgen_cli.evaluation.media.raster import enlarge, write_png
from rlgen_cli.runs.assemble import Session

SIZE, PUBLISHED, PUBLISHED_BLANK = 128, 0.0060, 0.0914
EXPERIMENT = "experiment=learning_to_paint"
SMALL = [*QUICK, "agent.network.body.width=16"]
SHOWN = 64
HEADER: Row = [
    "", "seed", "steps", "updates", "minutes", "rim in training", "rim", "MSE", "MSE / blank",
    f"MSE / {PUBLISHED_BLANK}",
]  # fmt: skip
HARD_RIM = 1.0  # pixels of the larger canvas
HARD_EDGE = 0.5  # of strokes in training for it, pixels: softer, so that gradients find them
AGENTS = {name: [f"agent={name}"] for name in ("pathwise", "policy_gradient", "ppo")}
AGENTS["longer"] = [
    "agent=policy_gradient", "num_envs=1024", "total_steps=50000000", "eval_interval=2500000",
    "checkpoint_interval=25000000", "log_interval=500000",
]  # fmt: skip
AGENTS["hard"] = ["agent=pathwise", f"env.brush.edge={HARD_EDGE}"]
CALLED = {Pathwise: "pathwise gradient", PolicyGradient: "REINFORCE", ActorCritic: "PPO"}


class Painted(NamedTuple):
    """What the paintings of the test digits are worth."""

    error: float  # mean squared error over all pixels
    blank: float  # that of blank canvases
    shown: View  # the first paintings


def enlarged(folder: Path, size: int, rim: float | None = None) -> Session:
    """The run on a larger canvas: strokes grow with it, and the policy sees what it saw while training.

    Args:
        rim: of the strokes, pixels of the larger canvas; None: it grows with it.
    """
    env = OmegaConf.load(folder / "config.yaml").env
    scale = size / env.size
    return opened(folder, {
        "env.size": size, "env.observation_size": env.size, "env.brush.edge": rim or env.brush.edge * scale,
        "env.brush.widths": [width * scale for width in env.brush.widths],
    })  # fmt: skip


@torch.no_grad()
def painted(session: Session, digits: int) -> Painted:
    """The first test digits."""
    env, first, error, blank = session.envs["test"], None, 0.0, 0.0
    index = torch.arange(min(digits, len(data_of(session).test.images)))
    for played in episodes(session, index, "learning_to_paint", at_once=250):
        view = env.view(played.final)
        target = view.context["target"]
        error += float((view.sample - target).square().flatten(1).mean(1).sum())
        blank += float(target.square().flatten(1).mean(1).sum())
        first = first or View(view.sample[:SHOWN], {"target": target[:SHOWN]}, {})
    assert first is not None
    return Painted(error / len(index), blank / len(index), first)


def validation(folder: Path) -> Line:
    """(minutes, error / blank in percent) at each evaluation while training, on held-out training digits."""
    blank = float(pictures(data_of(opened(folder)).valid).square().mean())
    found = evaluations(folder, "eval/score/target")
    return [(record["seconds"] / 60, -100 * record["eval/score/target"] / blank) for record in found]


def runs_of(call: Call) -> list[Path]:
    """Those that are asked for, or trained: one by each agent with each seed."""
    if call.each("runs"):
        return [Path(folder) for folder in call.each("runs")]
    words, small = [EXPERIMENT, *mnist(call)], call.pick([], SMALL)
    return [
        trained(call.parts / f"{agent}_{seed}", [*words, *AGENTS[agent], f"seed={seed}", *small])
        for agent in call.each("agents")
        for seed in call.seeds()
    ]


def measure(call: Call) -> None:
    size = call.pick(SIZE, 56)
    rows: list[Row] = [HEADER]
    panels: dict[str, Line] = {}
    shown: dict[str, str] = {}  # an agent's picture
    for folder in runs_of(call):
        session = enlarged(folder, size)
        name, seed, rim = CALLED[type(session.agent)], session.settings.seed, session.config.env.brush.edge
        hard = OmegaConf.load(folder / "config.yaml").env.brush.edge == HARD_EDGE
        name += ", for a hard rim" if hard else ""
        cost = [f"{step_of(checkpoint.newest(folder)):,}", *training_cost(folder)]
        digits = call.pick(10_000, 100)
        judged = {rim: painted(session, digits), HARD_RIM: painted(enlarged(folder, size, HARD_RIM), digits)}
        for painted_rim, found in judged.items():
            shares = [f"{found.error / level:.2%}" for level in (found.blank, PUBLISHED_BLANK)]
            rows.append([name, seed, *cost, f"{rim:.1f}", f"{painted_rim:.1f}", f"{found.error:.5f}", *shares])
        panels[f"{name}, seed {seed}"] = validation(folder)
        shown[name] = f"learning_to_paint_{'hard' if hard else name.split()[0].lower()}.png"
        write_png(call.results / shown[name], enlarge(sheet(judged[HARD_RIM if hard else rim].shown, 36), 480))
    known = {"blank canvas": found.blank, "published": PUBLISHED}
    rows[1:1] = [
        [name, *[""] * 6, f"{error:.4f}", f"{error / found.blank:.1%}", f"{error / PUBLISHED_BLANK:.1%}"]
        for name, error in known.items()
    ]
    title = "validation error at 28 × 28 / blank canvas's, %"
    curves(call.results / "learning_to_paint_curve.png", {title: panels}, "minutes of training")
    write(call, "Learning to Paint", [
        f"{summary(__doc__)} Judged on all 10 000 official test digits at {size} × {size}; the canvas is "
        "quantised to whole grey levels after each stroke, and the policy acts by its mode, without any search. The "
        "rim, the pixels over which a stroke fades, is that of training, or a single pixel.",
        table(rows),
        "![error over the training](learning_to_paint_curve.png)",
        f"The published share of 6.5 % is that of a blank canvas at {PUBLISHED_BLANK}, which is the error of the first "
        f"2 000 test digits; over all of them it is {found.blank:.4f}, so both shares are given. The published brush "
        "is another, so the comparison is one of results, not of policies for one brush.",
        *(f"By {name}; painted on the left, wanted on the right:\n\n![painted and wanted]({picture})"
          for name, picture in shown.items()),
    ])  # fmt: skip


def main(arguments: list[str]) -> None:
    run("learning_to_paint", measure, arguments, agents="pathwise,policy_gradient,hard", seeds="1", runs="")


if __name__ == "__main__":
    main(sys.argv[1:])
