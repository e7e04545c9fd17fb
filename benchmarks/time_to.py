"""Time to quality: how long trainings take until their own evaluations reach a published or a wanted number.

    python -m benchmarks.time_to [seeds=1]

What is timed is the wall time of the training, start-up and evaluations included, on as many threads as it takes by
itself. An evaluation on held-out data comes every few seconds, and the first one that reaches the number counts.
"""

import sys
from typing import NamedTuple

from benchmarks.files import mnist
from benchmarks.harness import Call, run
from benchmarks.parts import QUICK, evaluations, trained
from benchmarks.report import Row, curves, table, write


class Task(NamedTuple):
    """A training and what it must reach."""

    words: list[str]
    metric: str
    offset: float  # added to the metric, to give the number
    wanted: dict[float, str]  # the number, and whose it is


def tasks(call: Call) -> dict[str, Task]:
    """By name."""
    small = [*QUICK, "total_steps=512", "agent.batch_size=8", "agent.learning_starts=64",
             "agent.replay.buffer_size=2000", "agent.network.body.width=16"]  # fmt: skip
    # Fewer than the steps of the experiment, since its schedules follow the training's length.
    evaluated = ["total_steps=1000000", "eval_interval=20000", "log_interval=20000", "checkpoint_interval=1000000000"]
    resketch = ["experiment=resketch", *mnist(call), *call.pick(evaluated, small)]
    return {
        "ReSketch, similarity": Task(resketch, "eval/score/target", 1.0, {0.908: "published", 0.97: "ours"}),
    }


def measure(call: Call) -> None:
    rows: list[Row] = [["task", "seed", "wanted", "reached after, s", "environment steps"]]
    panels: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for name, task in tasks(call).items():
        lines: dict[str, list[tuple[float, float]]] = {}
        for seed in call.seeds():
            folder = call.parts / name.partition(",")[0] / str(seed)
            found = evaluations(trained(folder, [*task.words, f"seed={seed}"]), task.metric)
            reached = [(record["seconds"], record[task.metric] + task.offset, record["step"]) for record in found]
            lines[f"seed {seed}"] = [(seconds, number) for seconds, number, _ in reached]
            for number, whose in task.wanted.items():
                first = next((record for record in reached if record[1] >= number), None)
                took = ["never", "–"] if first is None else [f"{first[0]:.0f}", f"{first[2]:,}"]
                rows.append([name, seed, f"{number} ({whose})", *took])
        panels[f"{name} over seconds"] = lines
    curves(call.results / "time_to.png", panels, "seconds")
    write(call, "Time to quality", [
        "Wall time of a training until an evaluation on held-out data reaches a number, evaluations included.",
        table(rows), "![over time](time_to.png)",
    ])  # fmt: skip


def main(arguments: list[str]) -> None:
    run("time_to", measure, arguments, seeds="1")


if __name__ == "__main__":
    main(sys.argv[1:])
