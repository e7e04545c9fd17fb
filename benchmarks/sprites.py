"""Sprites in colour: the copying error beside the blank canvas and the best that the palette allows.

python -m benchmarks.sprites run=outputs/pixel/dqn/…    judges a run (trained by experiment=sprites)
python -m benchmarks.sprites                            trains one first
"""

import sys

import torch
from omegaconf import OmegaConf

from benchmarks.judge import SHARED
from benchmarks.report import RESULTS, new_run, runs_named, seconds_until, table, write
from rlgen_cli.core import checkpoint
from rlgen_cli.runs.assemble import build
from rlgen_cli.cli.main import composed, register_resolvers
from rlgen_cli.data.palette import quantise
from rlgen_cli.evaluation.media.raster import enlarge, write_png
from rlgen_cli.evaluation.media.pictures import sheet
from rlgen_cli.evaluation.rollout import rollout
from rlgen_cli.core.seeding import stream
from rlgen_cli.runs.trainer import train
from rlgen_cli.core.types import View

EXPERIMENT = ["experiment=sprites", f"data.path={SHARED / 'sprites'}"]


def error(made: torch.Tensor, wanted: torch.Tensor) -> float:
    """Mean over images of the squared distance, summed over pixels and colours."""
    return float((made - wanted).square().flatten(1).sum(1).mean())


@torch.no_grad()
def main() -> None:
    register_resolvers()
    runs = runs_named(sys.argv[1:])
    if not runs:
        runs = [new_run("sprites")]
        with torch.enable_grad():
            train(build(composed("train", EXPERIMENT)), runs[0])
    rows: list[list[object]] = [["", "mean L2", "share of blank"]]
    for run in runs:
        session = build(OmegaConf.load(run / "config.yaml"))
        saved = checkpoint.load_newest(run, "cpu", frozenset(["agent", "reward", "loop"]))
        session.load(saved)
        env, rng = session.envs["test"], stream(0, "sprites")
        wanted = env.images.float() / 255
        made = rollout(env, session.agent, env.begin(torch.arange(len(wanted)), rng), rng).final.canvas.float() / 255
        if len(rows) == 1:
            blank = error(torch.zeros_like(wanted), wanted)
            nearest = error(quantise(env.images, env.palette).float() / 255, wanted)
            rows += [
                ["blank canvas", f"{blank:.2f}", "100 %"],
                ["nearest palette colours", f"{nearest:.2f}", f"{nearest / blank:.1%}"],
            ]
        minutes = seconds_until(run, saved["loop"]["step"]) / 60
        drawn = error(made, wanted)
        rows.append(
            [
                f"rlgen DQN, seed {session.config.seed}, {minutes:.1f} min",
                f"{drawn:.2f}",
                f"{drawn / blank:.1%}",
            ]
        )
    view = View(made[:64], env.view(env.begin(torch.arange(64), rng)).context, torch.zeros(64))
    write_png(RESULTS / "sprites.png", enlarge(sheet(view), 600))
    text = f"Copying {len(wanted)} held-out sprites at 16 × 16, pixel by pixel, 32 colours. Drawn left, wanted right:"
    write("sprites", "Sprites", [text, "![drawn and wanted](sprites.png)", table(rows)])


if __name__ == "__main__":
    main()
