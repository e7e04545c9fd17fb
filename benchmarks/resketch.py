"""ReSketch: our DQN beside random, the greedy oracle and the published one, on the official test digits.

    python -m benchmarks.resketch [seeds=1,2] [runs=FOLDER,FOLDER]

Trains experiment=resketch with each seed, and, for longer, without the preview of what each move gains. `runs` are
judged instead of trained.
"""

import sys
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.files import mnist
from benchmarks.harness import Call, run
from benchmarks.judge import Classifier, pictures, recogniser
from benchmarks.parts import QUICK, data_of, opened, seconds_until, step_of, trained, updates_of, with_planner
from benchmarks.report import Row, summary, table, write
from benchmarks.rollouts import episodes
from rlgen_cli.core import checkpoint
from rlgen_cli.core.specs import View
from rlgen_cli.core.tree import join
from rlgen_cli.evaluation.media.pictures import sheet
from rlgen_cli.evaluation.media.raster import enlarge, write_png
from rlgen_cli.runs.assemble import Session

SMALL = [
    *QUICK, "total_steps=768", "agent.batch_size=8", "agent.learning_starts=64",
    "agent.replay.buffer_size=2000", "agent.network.body.width=16",
]  # fmt: skip
NO_PREVIEW = ["env.brush.preview_scale=0", "total_steps=6000000"]
SHOWN = 64


@torch.no_grad()
def drawn(session: Session, digits: int) -> tuple[View, float]:
    """The first test digits as drawn, and after how many steps, on average, the last mark was made."""
    env, views, last = session.envs["test"], [], []
    for played in episodes(session, torch.arange(digits), "resketch", at_once=1000, record=True):
        marks = torch.stack([state.marks for state in [*played.states, played.final]])  # [T + 1, N]
        last.append((marks < marks[-1]).sum(0))
        views.append(env.view(played.final))
    return join(*views), float(torch.cat(last).float().mean())


def similarity(view: View) -> Tensor:
    """1 − Σ (canvas − target)² / Σ target², [N]."""
    target = view.context["target"]
    return 1 - (view.sample - target).square().flatten(1).sum(1) / target.square().flatten(1).sum(1)


def row(name: str, session: Session, judge: Classifier, digits: int, note: str = "") -> tuple[Row, View]:
    """A line of the table, and what was drawn."""
    labels = data_of(session).test.labels[:digits]
    view, last = drawn(session, len(labels))
    sims, right = similarity(view), (judge.classify(view.sample) == labels.cpu()).float().mean()
    interval = 1.96 * sims.std() / len(labels) ** 0.5
    cells: Row = [name, len(labels), f"{sims.mean():.4f} ± {interval:.4f}", f"{sims.median():.4f}"]
    return [*cells, f"{right:.2%}", f"{last:.1f}", note], view


def runs_of(call: Call, words: list[str]) -> list[Path]:
    """Those that are asked for, or trained: for each seed one, and one that sees no preview."""
    if call.each("runs"):
        return [Path(folder) for folder in call.each("runs")]
    kinds = {"seed": words, "no_preview": [*words, *call.pick(NO_PREVIEW, NO_PREVIEW[:1])]}
    return [
        trained(call.parts / f"{kind}_{seed}", [*own, f"seed={seed}"])
        for kind, own in kinds.items()
        for seed in call.seeds()
    ]


def measure(call: Call) -> None:
    words = ["experiment=resketch", *mnist(call), *call.pick([], SMALL)]
    runs = runs_of(call, words)
    random = with_planner(words, "random")
    judge = recogniser(data_of(random).train, call.pick(1800, 20))
    test = data_of(random).test
    right = (judge.classify(pictures(test)) == test.labels.cpu()).float().mean()
    many, few = call.pick(10_000, 20), call.pick(1_000, 8)
    rows: list[Row] = [["", "digits", "sim (95 % CI)", "median", "recognised", "last mark", ""]]
    rows.append(row("random", random, judge, many)[0])
    greedy = with_planner(words, "greedy")
    rows.append(row("one-step greedy oracle", greedy, judge, few, "sees the true reward")[0])
    rows.append(["published DQN (ReSketch)", "", "0.908", "", "97.1 %", "", ""])
    for folder in runs:
        for saved in checkpoint.steps(folder):
            session = opened(saved)
            seen = "" if session.config.env.brush.preview_scale else ", without the preview"
            name = f"rlgen DQN{seen}, seed {session.settings.seed}, {step_of(saved):,} steps"
            minutes = seconds_until(folder, step_of(saved)) / 60
            note = f"{updates_of(folder, saved):,} updates, {minutes:.1f} min of training"
            cells, view = row(name, session, judge, many, note)
            rows.append(cells)
            if folder == runs[0]:
                shown = View(view.sample[:SHOWN], {"target": view.context["target"][:SHOWN]}, {})
    write_png(call.results / "resketch.png", enlarge(sheet(shown), 480))
    write(call, "ReSketch", [
        f"{summary(__doc__)} Copying MNIST digits by pen: 28 × 28, 98 moves, 64 steps, the first test digits in their "
        f"official order. The recogniser is right on {right:.2%} of the binarised test digits. Our DQN's observation "
        "holds a preview of what each pen move gains at once (`env.brush.preview_scale`), which is what the greedy "
        "oracle knows too; the published DQN has no such thing, nor have the rows without it, whose longer training "
        "was chosen on held-out training digits. Drawn on the left, "
        "wanted on the right:",
        "![drawn and wanted](resketch.png)",
        table(rows),
    ])  # fmt: skip


def main(arguments: list[str]) -> None:
    run("resketch", measure, arguments, seeds="1,2", runs="")


if __name__ == "__main__":
    main(sys.argv[1:])
