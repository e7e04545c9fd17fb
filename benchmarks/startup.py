"""Start-up: how long a user waits for a command, on processes of their own, seen from outside.

    python -m benchmarks.startup

A command that ends is timed until it has ended. A training is timed until its first step is recorded in metrics.jsonl,
when config, data and networks are made and a whole step is done (the policy's actions, the environment, the reward, the
learners), and until a record first holds a number of the agent's, when its weights have moved; then it is killed.
`log_interval=1` lets it record every step, and changes nothing else of the bare command. The generator of
env=latent_gan has one update and lies in the cache, since no stage is to be fitted here.
"""

import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.harness import Call, run
from benchmarks.parts import trained
from benchmarks.report import Row, table, write
from rlgen_cli.runs.records import record_of

TRAININGS = [
    "env=pixel agent=dqn", "env=pixel agent=ppo", "env=pixel agent=policy_gradient", "env=pixel agent=actor_critic",
    "env=music", "env=latent_gan env.generator.updates=1",
]  # fmt: skip
SMALL_RUN = ["env=pixel", "agent=dqn", "total_steps=2048"]  # whose agent makes samples, at the default sizes
PATIENCE = 120.0  # seconds until a training that records nothing counts as failed
POLL = 0.002  # seconds between two looks at its records


def seconds_to_end(arguments: Sequence[str]) -> float:
    """Wall time of `python ARGUMENTS`."""
    began = time.monotonic()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - began


def seconds_to_records(words: Sequence[str], folder: Path) -> tuple[float, float]:
    """Wall time of `rlgen train WORDS` until its first step and until its first update are recorded in `folder`, where
    its cache lies, too."""
    run_folder = folder / "training"
    shutil.rmtree(run_folder, ignore_errors=True)
    command = [sys.executable, "-m", "rlgen_cli", "train", *words, "log_interval=1", f"hydra.run.dir='{run_folder}'"]
    own_cache = os.environ | {"RLGEN_CACHE": str(folder.resolve() / "cache")}
    began = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, env=own_cache) as process:
        try:
            step = wait_for(process, began, lambda: bool(names_recorded(run_folder)))
            update = wait_for(process, began, lambda: any(n.startswith("agent/") for n in names_recorded(run_folder)))
        finally:
            process.kill()
    return step, update


def wait_for(process: "subprocess.Popen[bytes]", began: float, happened: Callable[[], bool]) -> float:
    """Seconds from `began` until something has happened.

    Raises:
        SystemExit: where the process ends without it, or it takes too long.
    """
    while not happened():
        if process.poll() is not None or time.monotonic() - began > PATIENCE:
            raise SystemExit(f"{process.args!r}: did not record what was waited for.")
        time.sleep(POLL)
    return time.monotonic() - began


def names_recorded(run_folder: Path) -> set[str]:
    """The names of all numbers that the training itself, none of its stages, has recorded."""
    path = run_folder / "metrics.jsonl"
    records = map(record_of, path.read_bytes().splitlines()) if path.is_file() else []
    return {name for record in records if record is not None and "stage" not in record for name in record}


def spread(seconds: Sequence[float]) -> str:
    """The median, with the least and the greatest."""
    return f"{statistics.median(seconds):.2f} ({min(seconds):.2f} to {max(seconds):.2f})"


def measure(call: Call) -> None:
    times = call.pick(5, 1)
    saved = trained(call.parts / "run", SMALL_RUN)
    sample = ["sample", f"run='{saved}'", "n=64", f"out='{call.parts / 'samples'}'"]
    commands = {
        "`python -c 'import torch'`": ["-c", "import torch"],
        "`rlgen --help`": ["-m", "rlgen_cli", "--help"],
        "`rlgen list env`": ["-m", "rlgen_cli", "list", "env"],
        "`rlgen sample run=FOLDER n=64` (drawings, as PNG, GIF and SVG)": ["-m", "rlgen_cli", *sample],
    }
    trainings = call.pick(TRAININGS, TRAININGS[:1])
    ends: dict[str, list[float]] = {name: [] for name in commands}
    records: dict[str, list[tuple[float, float]]] = {words: [] for words in trainings}
    for _ in range(1 + times):  # the first one fills the caches, and does not count
        for name, arguments in commands.items():
            ends[name].append(seconds_to_end(arguments))
        for words in trainings:
            records[words].append(seconds_to_records(words.split(), call.parts))
    rows: list[Row] = [["command", "seconds until it has ended"]]
    rows += [[name, spread(seconds[1:])] for name, seconds in ends.items()]
    first: list[Row] = [["command", "seconds until the first step", "seconds until the first update"]]
    for words, pairs in records.items():
        first.append([f"`rlgen train {words}`", *map(spread, zip(*pairs[1:], strict=True))])
    write(call, "Start-up", [
        f"Medians of {times} processes each, with the shortest and the longest; files are in the page cache. The first "
        "step of a training counts when metrics.jsonl holds it (`log_interval=1`, seen from outside), its first update "
        "when a record holds a number of the agent's: `agent=dqn` waits for `learning_starts` environment steps, the "
        "others for a rollout or a whole episode. `env.generator.updates=1` leaves no stage to fit.",
        table(rows), table(first),
    ])  # fmt: skip


def main(arguments: list[str]) -> None:
    run("startup", measure, arguments)


if __name__ == "__main__":
    main(sys.argv[1:])
