"""The task of `rlgen paint`'s painter, pieces of pictures in 32 strokes, learned by three agents for about as long: the
pathwise gradient and PPO over sixteen free strokes a step, and DQN over one of the arcs of a lattice a step.

python -m benchmarks.painters [seeds=1,2] [methods=pathwise,ppo,dqn]
"""

import sys
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.harness import Call, run
from benchmarks.parts import QUICK, final_views, opened, prepared, remembered, seconds_until, trained
from benchmarks.report import Row, summary, table, with_interval, write
from rlgen_cli.evaluation.likeness import mse, psnr
from rlgen_cli.evaluation.media.raster import enlarge, grid, write_png
from rlgen_cli.runs.assemble import Session

TASK = ["experiment=painter", "data.count=4000", "threads=1", "eval_interval=1000000", "checkpoint_interval=10000000"]
LATTICE = ["brush=stroke_grid", "env.max_steps=32", "env.colours=16", "env.brush.widths=[2.0,6.0]"]
METHODS = {
    "pathwise": ["total_steps=40000"],
    "ppo": ["agent=ppo", "network=cells", "agent.evaluate=mode", "total_steps=60000"],
    "dqn": ["agent=dqn", *LATTICE, "total_steps=50000"],
}
RANDOM = {"random free strokes": [], "random arcs of the lattice": LATTICE}
SHOWN = 12


def words_of(call: Call, more: list[str]) -> list[str]:
    """The command line of a training."""
    return [*TASK, *more, *call.pick([], [*QUICK, "data.count=40", "data.shapes=10"])]


def measured(call: Call, session: Session) -> dict[str, Any]:
    """How near a session's paintings come to held-out pictures."""
    views = final_views(session, "test", call.pick(1000, 16), 3)
    sample, target = (torch.cat(parts) for parts in zip(*((v.sample, v.context["target"]) for v in views), strict=True))
    return {
        "mse": float(mse(sample, target).mean()), "psnr": float(psnr(sample, target).mean()),
        "shown": as_list(sample[:SHOWN]), "wanted": as_list(target[:SHOWN]),
    }  # fmt: skip


def as_list(pictures: Tensor) -> list[Any]:
    """Bytes of pictures in [0, 1], for JSON."""
    found: list[Any] = (255 * pictures).round().int().tolist()
    return found


def of_method(call: Call, name: str, seed: int) -> dict[str, Any]:
    """A training's paintings, and its time."""
    small = {"pathwise": ["agent.network.body.channels=4"], "ppo": ["agent.network.body.channels=4"]}
    words = words_of(call, [*METHODS[name], f"seed={seed}", *call.pick([], small.get(name, []))])
    folder = trained(call.parts / f"{name}_{seed}", words)
    return measured(call, opened(folder)) | {"minutes": seconds_until(folder) / 60}


def of_random(call: Call, more: list[str], seed: int) -> dict[str, Any]:
    """The same of random strokes."""
    words = words_of(call, [*more, "agent=random", f"seed={seed}"])
    return measured(call, prepared(call.parts / "random", words)) | {"minutes": 0.0}


def measure(call: Call) -> None:
    compared: dict[str, list[dict[str, Any]]] = {
        name: [of_random(call, more, call.seeds()[0])] for name, more in RANDOM.items()
    }  # fmt: skip
    for name in call.each("methods"):
        compared[name] = [
            remembered(call.parts / f"{name}_{seed}.json", partial(of_method, call, name, seed))
            for seed in call.seeds()
        ]  # fmt: skip
    rows: list[Row] = [["", "mean squared error", "PSNR, dB", "minutes", "seeds"]]
    for name, found in compared.items():
        columns = [with_interval([one[key] for one in found]) for key in ("psnr", "minutes")]
        rows.append([name, f"{sum(one['mse'] for one in found) / len(found):.5f}", *columns, len(found)])
    shown = [found[0]["shown"] for found in compared.values()]
    pictures = torch.cat([torch.tensor(part) for part in [compared["random free strokes"][0]["wanted"], *shown]]) / 255
    write_png(call.results / "painters.png", enlarge(grid(pictures, columns=SHOWN), 800))
    steps = ", ".join(f"{name} {words[-1].removeprefix('total_steps=')}" for name, words in METHODS.items())
    write(call, "Painters by three agents", [
        f"`python -m benchmarks.painters methods={call.settings['methods']} seeds={call.settings['seeds']}`: "
        f"{summary(__doc__)} Pictures of 32 × 32 pixels of `data=leaves`, begun with what is left of them when they "
        "are reduced to a few pixels; 1 000 that are held out, painted in 32 strokes each. Environment steps: "
        f"{steps}; a free step is sixteen strokes in the best colours, and a step on the lattice is one arc of two "
        "widths in one of sixteen colours. No settings were tuned for PPO and DQN. Rows of the picture: wanted, then "
        "as in the table.",
        table(rows),
        "![](painters.png)",
    ])  # fmt: skip


def main(arguments: list[str]) -> None:
    run("painters", measure, arguments, seeds="1,2", methods=",".join(METHODS))


if __name__ == "__main__":
    main(sys.argv[1:])
