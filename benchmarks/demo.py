"""The demo and its first minute: what `make demo` and the quick start make, and what a training prints.

python -m benchmarks.demo
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from benchmarks.harness import Call, run
from benchmarks.parts import QUICK, finished, seconds_until
from benchmarks.report import Row, summary, table, write

# Each training's words, as a reader would type them.
TRAININGS = {"minute": ["agent=dqn", "total_steps=60000"], "demo": ["env=pixel", "agent=dqn"]}
SMALL = [*QUICK, "agent.batch_size=8", "agent.learning_starts=64", "agent.network.body.width=16"]
# What is kept of what the demo made, by its name among the final samples.
SHOWN = {"grid.png": "demo.png", "timelapse.gif": "demo.gif", "000.svg": "demo.svg"}


class Made(NamedTuple):
    """A training of the demo's."""

    folder: Path  # of the run
    printed: str


def made(call: Call, name: str) -> Made:
    """The run of `rlgen train WORDS`, as a process of its own in an empty folder, and what it printed; one that was
    interrupted begins anew."""
    home = call.parts / name
    found = runs_in(home)
    if not found or not finished(found[0]):
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir(parents=True)
        words = [*TRAININGS[name], *call.pick([], SMALL)]
        command = [sys.executable, "-m", "rlgen_cli", "train", *words]
        done = subprocess.run(command, cwd=home, check=True, capture_output=True, text=True)
        (home / "printed.txt").write_text(done.stdout, encoding="utf-8")
        found = runs_in(home)
    return Made(found[0], (home / "printed.txt").read_text(encoding="utf-8"))


def runs_in(home: Path) -> list[Path]:
    """The runs whose folders lie in the outputs below `home`."""
    return sorted(path.parent for path in home.glob("outputs/*/*/*/status.json"))


def row(name: str, found: Made) -> Row:
    """Its scores beside those of random actions and of real data."""
    scores = json.loads((found.folder / "results.json").read_text())["scores"]
    numbers = [f"{scores[of]['target']:.3f}" for of in ("samples", "random", "real")]
    return [f"`rlgen train {' '.join(TRAININGS[name])}`", *numbers, f"{seconds_until(found.folder) / 60:.1f}"]


def measure(call: Call) -> None:
    minute, demo = (made(call, name) for name in TRAININGS)
    shutil.copy(minute.folder / "samples" / "final" / "grid.png", call.results / "minute.png")
    for name, kept in SHOWN.items():
        shutil.copy(demo.folder / "samples" / "final" / name, call.results / kept)
    rows: list[Row] = [["", "target", "random actions", "real data", "minutes"]]
    rows += [row("minute", minute), row("demo", demo)]
    write(call, "The demo", [
        summary(__doc__),
        "`target` is minus the squared difference from a held-out glyph, as a share of the blank canvas's: 0 is a "
        "perfect copy, −1 a blank canvas.",
        table(rows),
        "The demo, drawn left and wanted right, as a time-lapse, and one drawing as vectors:",
        "![drawn and wanted](demo.png)", "![the drawings, stroke by stroke](demo.gif)", "![one drawing](demo.svg)",
        "After the first of the two, drawn left and wanted right:", "![drawn and wanted](minute.png)",
        f"What the first prints:\n\n```text\n{minute.printed.strip()}\n```",
    ])  # fmt: skip


def main(arguments: list[str]) -> None:
    run("demo", measure, arguments)


if __name__ == "__main__":
    main(sys.argv[1:])
