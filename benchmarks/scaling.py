"""One training on several processes: how fast, what their messages cost, and what that says of more of them.

    python -m benchmarks.scaling [steps=400]

Two trainings are timed, one in which the environment takes most of the time and one in which the networks do: in one
process on one core, in one process on two, and in two processes on one core each, with as many environments and samples
a batch in all of them, and with as many in each. Then the message that averages gradients is timed by its size, and
from both it is calculated how much of their time 8 and 64 processes would keep, each with a batch of its own.
"""

import json
import math
import statistics
import sys
import time
from pathlib import Path
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import multiprocessing

from benchmarks.harness import Call, run
from benchmarks.report import Row, table, write
from rlgen_cli.config.compose import composed
from rlgen_cli.runs.assemble import assemble
from rlgen_cli.runs.devices import run_on_devices

CANVAS = ["env=pixel", "logger=none", "compile=never", "eval_interval=1000000000"]
TASKS = {
    "environment": [*CANVAS, "agent=ppo", "agent.network.body.width=32", "agent.network.maps.channels=4",
                    "agent.num_minibatches=1", "agent.update_epochs=1"],
    "networks": [*CANVAS, "agent=dqn", "network=convolutions", "agent.gradient_steps=1", "agent.learning_starts=2000",
                 "agent.replay.buffer_size=20000"],
}  # fmt: skip
# Devices, threads, and how much more there is of everything.
WAYS = {
    "1 process, 1 core": (1, 1, 1),
    "1 process, 2 cores": (1, 2, 1),
    "2 processes, 1 core each": (2, 1, 1),
    "2 processes with twice of everything": (2, 1, 2),
}
MORE = {"environment": {"num_envs": 128}, "networks": {"num_envs": 128, "agent.batch_size": 256}}
SIZES = (1, 1_000, 10_000, 100_000, 1_000_000)  # numbers in a message
RANKS = (2, 8, 64)
WARM_UP, TIMES = 20, 100


class Message(NamedTuple):
    """What it costs two processes to add up some numbers, as a line in their count."""

    latency: float  # seconds
    per_number: float  # seconds

    def seconds(self, numbers: int, ranks: int) -> float:
        """Of more ranks, by a ring, which sends each number 2 (N − 1) / N times, after log₂ N latencies."""
        sent = 2 * (ranks - 1) / ranks * numbers
        return self.latency * math.log2(ranks) + self.per_number * sent


def speed(call: Call, name: str, devices: int, threads: int, times: int) -> float:
    """Environment steps a second, start-up, the first updates and the last samples left out."""
    steps = call.pick(int(call.settings["steps"]), 24) * 128 * times
    folder = call.parts / name / f"{devices}x{threads}x{times}"
    intervals = [f"total_steps={2 * steps}", f"log_interval={steps}", "checkpoint_interval=1000000000"]
    sizes = [f"{key}={times * size}" for key, size in MORE[name].items()]
    line = [
        "train",
        *TASKS[name],
        *sizes,
        *intervals,
        f"devices={devices}",
        f"threads={threads}",
        f"hydra.run.dir={folder}",
    ]
    if not (folder / "results.json").exists() and run_on_devices(devices, line):
        raise SystemExit(f"benchmarks.scaling: the training in {folder} failed.")
    records = [json.loads(text) for text in (folder / "metrics.jsonl").read_text().splitlines()]
    first, last = [record for record in records if "agent/entropy" in record or "agent/loss" in record][-2:]
    return float((last["step"] - first["step"]) / (last["seconds"] - first["seconds"]))


def timed(rank: int, port: int, path: Path) -> None:
    """One of two processes that add up messages of each size; the first one writes the seconds."""
    torch.set_num_threads(1)
    store = dist.TCPStore("127.0.0.1", port, is_master=False)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2)
    found = {}
    for size in SIZES:
        x = torch.ones(size)
        times = []
        for _ in range(WARM_UP + TIMES):
            began = time.perf_counter()
            dist.all_reduce(x)
            times.append(time.perf_counter() - began)
        found[size] = statistics.median(times[WARM_UP:])
    if rank == 0:
        path.write_text(json.dumps(found))
    dist.destroy_process_group()


def messages(call: Call) -> dict[int, float]:
    """Seconds that two processes need for a message, by its size."""
    path = call.parts / "messages.json"
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    multiprocessing.spawn(timed, (store.port, path), 2)
    return {int(size): seconds for size, seconds in json.loads(path.read_text()).items()}


def weights(words: list[str]) -> int:
    """Numbers in the message of an update."""
    agent = assemble(composed("train", words)).agent
    assert agent is not None
    return sum(parameter.numel() for parameter in agent.optimizer.parameters)  # type: ignore[attr-defined]


def updates(words: list[str]) -> float:
    """Updates a batched step."""
    agent = composed("train", words).agent
    return float(agent.gradient_steps) if "gradient_steps" in agent else 1 / agent.num_steps


def list_of(cost: dict[int, float]) -> list[Row]:
    """Rows of a table."""
    return [[f"{numbers:,}", f"{seconds * 1e3:.2f}"] for numbers, seconds in cost.items()]


def measure(call: Call) -> None:
    tasks = list(TASKS)[: call.pick(None, 1)]
    speeds = {name: {way: speed(call, name, *size) for way, size in WAYS.items()} for name in tasks}
    rows: list[Row] = [["most of the time goes to the", *WAYS]]
    for name, found in speeds.items():
        base = found["1 process, 1 core"]
        rows.append([name, *(f"{value:,.0f}, {value / base:.2f}×" for value in found.values())])
    cost = messages(call)
    message_rows: list[Row] = [["numbers", "milliseconds"], *list_of(cost)]
    small, large = SIZES[1], SIZES[-1]
    per_number = max(cost[large] - cost[small], 0.0) / (large - small)
    message = Message(cost[small] - per_number * small, per_number)
    kept: list[Row] = [["training", "numbers in a message", "a batched step, ms", *(f"{n} processes" for n in RANKS)]]
    for name in tasks:
        alone = 128 / speeds[name]["1 process, 1 core"]
        numbers = weights(TASKS[name])
        shares = [alone / (alone + updates(TASKS[name]) * message.seconds(numbers, ranks)) for ranks in RANKS]
        kept.append([name, f"{numbers:,}", f"{alone * 1e3:.1f}", *(f"{share:.0%}" for share in shares)])
    write(call, "Several processes", [
        "Environment steps a second of a training with 128 environments, by the processes that share it; in the last "
        "column each of the two has as many environments, and as large a batch, as the one has alone.",
        table(rows),
        "What two processes on one machine need to add up their numbers (gloo), the median of "
        f"{TIMES} times.",
        table(message_rows),
        "How much of their time processes would keep, each with 128 environments and a batch of its own on one core: "
        "t / (t + u · m), where t is the measured time of a batched step of one process, u the updates in it, and m "
        "the time of a message, from the table above by a ring: L · log₂ N + c · 2 (N − 1) / N · numbers. On GPUs, t "
        "and the two constants of NCCL take their places; neither was measured here.",
        table(kept),
    ])  # fmt: skip


def main(arguments: list[str]) -> None:
    run("scaling", measure, arguments, steps="400")


if __name__ == "__main__":
    main(sys.argv[1:])
