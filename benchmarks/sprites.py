"""Sprites in colour: the copying error beside the blank canvas and the best that the palette allows.

    python -m benchmarks.sprites [seeds=1] [runs=FOLDER,FOLDER]

`runs` are judged instead of trained (by experiment=sprites).
"""

import sys
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.files import SPRITES, published
from benchmarks.harness import Call, run
from benchmarks.parts import QUICK, data_of, opened, seconds_until, trained, updates_of
from benchmarks.report import Row, table, write
from benchmarks.rollouts import copies
from rlgen_cli.core.specs import View
from rlgen_cli.data.palette import quantise
from rlgen_cli.domains.canvas.environment import Canvas
from rlgen_cli.evaluation.media.pictures import sheet
from rlgen_cli.evaluation.media.raster import enlarge, write_png
from rlgen_cli.runs.assemble import Session

SMALL = [*QUICK, "env.max_steps=16", "agent.batch_size=8", "agent.learning_starts=64", "agent.network.maps.channels=4"]


def error(made: Tensor, target: Tensor) -> float:
    """Mean over pictures of the squared difference, summed over pixels and colours."""
    return float((made - target).square().flatten(1).sum(1).mean())


def references(session: Session, blank: float, target: Tensor) -> list[Row]:
    """The blank canvas, and each pixel in the nearest colour of the palette."""
    env = session.envs["test"]
    assert isinstance(env, Canvas)
    nearest = error(quantise(env.images, env.palette).float() / 255, target)
    return [["blank canvas", f"{blank:.2f}", "100 %"],
            ["nearest palette colours", f"{nearest:.2f}", f"{nearest / blank:.1%}"]]  # fmt: skip


def measure(call: Call) -> None:
    words = ["experiment=sprites", f"data.path={published(call, SPRITES)}", *call.pick([], SMALL)]
    runs = [Path(folder) for folder in call.each("runs")] or [
        trained(call.parts / f"seed_{seed}", [*words, f"seed={seed}"]) for seed in call.seeds()
    ]
    rows: list[Row] = [["", "mean L2", "share of blank"]]
    for folder in runs:
        session = opened(folder)
        count = len(data_of(session).test.images)
        view = copies(session, torch.arange(count), "sprites")
        target = view.context["target"]
        blank, drawn = error(torch.zeros_like(target), target), error(view.sample, target)
        if len(rows) == 1:
            rows += references(session, blank, target)
        cost = f"{updates_of(folder):,} updates, {seconds_until(folder) / 60:.1f} min"
        name = f"rlgen DQN, seed {session.settings.seed}, {cost}"
        rows.append([name, f"{drawn:.2f}", f"{drawn / blank:.1%}"])
    shown = View(view.sample[:64], {"target": target[:64]}, {})
    write_png(call.results / "sprites.png", enlarge(sheet(shown), 600))
    text = f"Copying {count} held-out sprites at 16 × 16, pixel by pixel, 32 colours. Drawn left, wanted right:"
    write(call, "Sprites", [text, "![drawn and wanted](sprites.png)", table(rows)])


def main(arguments: list[str]) -> None:
    run("sprites", measure, arguments, seeds="1", runs="")


if __name__ == "__main__":
    main(sys.argv[1:])
