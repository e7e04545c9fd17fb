"""Speed: every loop beside its limit, and how steps grow with environments, canvases and sequences.

    python -m benchmarks.speed [seconds=4]

Ratios within one run are what counts; absolute numbers are the machine's. A loop's limit is what its network passes and
optimizer steps take on tensors that are there already (limit.py). Each case runs in a process of its own, so that its
memory is its own too.
"""

import multiprocessing
import resource
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

import torch

from benchmarks.harness import Call, run
from benchmarks.limit import Record
from benchmarks.parts import prepared, remembered
from benchmarks.report import Row, curves, table, write
from rlgen_cli.core import compiled
from rlgen_cli.core.compiled import synchronise
from rlgen_cli.core.tree import select
from rlgen_cli.runs.assemble import Session
from rlgen_cli.runs.trainer import Loop

ENVS = {
    "canvas": ["env=pixel"],
    "music": ["env=music"],
    "latent GAN": ["env=latent_gan", "env.generator.updates=1"],  # its speed does not depend on its weights
}
AGENTS = {"DQN": "dqn", "A2C": "actor_critic", "PPO": "ppo", "REINFORCE": "policy_gradient"}
ROUNDS = 7
STRETCH = 60  # steps that are recorded, at least
PATIENCE = 0.1  # seconds until a function is compiled, here; a training waits longer
SMALL = ["num_envs=8", "threads=1", "agent.learning_starts=16", "agent.batch_size=8", "agent.replay.buffer_size=800"]


class Case(NamedTuple):
    """One environment and agent."""

    loop: float  # ms a batched step, as it begins
    compiled_loop: float  # with what compile=auto keeps
    limit: float  # ms
    ratio: float  # of the compiled loop to its limit, the median of rounds
    passes: float  # networks' passes a batched step
    num_envs: int
    memory: float  # MiB at most, with both loops and torch itself
    checkpoint: float  # MiB
    saving: float  # seconds a checkpoint takes


def measured(words: list[str], folder: Path, seconds: float) -> Case:
    """The case of `rlgen train WORDS`, in this process."""
    loops = [looping(words, folder, mode) for mode in ("never", "auto")]
    record, steps = recorded(loops[0])
    actions = [partial(stretch, loop, steps) for loop in loops] + [record.again]
    rounds = [[took(action, seconds / ROUNDS) / steps for action in actions] for _ in range(ROUNDS)]
    plain, compiled_loop, limit = (statistics.median(times) for times in zip(*rounds, strict=True))
    ratio = statistics.median(after / least for _, after, least in rounds)
    began = time.perf_counter()
    loops[1].save(folder)
    saving = time.perf_counter() - began
    size = sum(path.stat().st_size for path in (folder / "checkpoints").rglob("*") if path.is_file()) / 2**20
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    num_envs = loops[1].session.settings.num_envs
    return Case(plain, compiled_loop, limit, ratio, record.calls / steps, num_envs, memory, size, saving)


def looping(words: list[str], folder: Path, compile_mode: str) -> Loop:
    """A training that has learned at least once, and has compiled what it will."""
    with patch.object(compiled, "PATIENCE", PATIENCE):
        session = prepared(folder / compile_mode, [*words, f"compile={compile_mode}"])
        loop = Loop(session)
    waiting = set(session.learners)
    began = time.perf_counter()
    while waiting or (compile_mode == "auto" and time.perf_counter() - began < 50 * PATIENCE):
        decision, stepped = loop.play()
        loop.renew(decision, stepped)
        waiting -= {name.partition("/")[0] for name in stepped.metrics}
    return loop


def recorded(loop: Loop) -> tuple[Record, int]:
    """What networks and optimizers do from one update of the agent to another, some steps later, and how many: enough
    that learners which update less often have done so as often as they do."""
    while not stepping(loop):
        pass
    steps = 0
    with Record() as record:
        while not stepping(loop) or steps + 1 < STRETCH:
            steps += 1
    return record, steps + 1


def stretch(loop: Loop, steps: int) -> None:
    """So many steps of the loop."""
    for _ in range(steps):
        stepping(loop)


def stepping(loop: Loop) -> bool:
    """Step, and say whether the agent learned."""
    decision, stepped = loop.play()
    loop.renew(decision, stepped)
    return any(name.startswith("agent/") for name in stepped.metrics)


def took(action: Callable[[], None], seconds: float) -> float:
    """Milliseconds of a call, over `seconds` of them."""
    action()
    synchronise()
    began, calls = time.perf_counter(), 0
    while calls == 0 or time.perf_counter() - began < seconds:
        action()
        calls += 1
    synchronise()
    return (time.perf_counter() - began) / calls * 1e3


def alone(words: list[str], folder: Path, seconds: float) -> float:
    """Microseconds of one environment's step: random action, step, view, reward, observation, and reset."""
    session: Session = prepared(folder, [*words, "agent=random"])
    env, rng, n = session.envs["train"], session.streams["env"], session.settings.num_envs
    state = env.reset(n, rng)

    @torch.no_grad()
    def step() -> None:
        nonlocal state
        before = env.view(state)
        after = env.step(state, env.spec.action.sample(n, rng, session.device))
        done = env.done(after)
        session.reward(before, env.view(after), done)
        env.observe(after)
        state = select(done, env.reset(n, rng), after)

    return statistics.median(took(step, seconds / ROUNDS) for _ in range(ROUNDS)) / n * 1e3


def growth(call: Call, seconds: float) -> tuple[list[Row], dict[str, dict[str, list[tuple[float, float]]]]]:
    """A step's cost as environments, canvases and sequences grow, as a table and as lines of a plot: cost over size, so
    that what grows as its arithmetic does is level."""
    rows: list[Row] = [["what grows", "size", "µs a step and environment", "µs over what is computed"]]
    panels: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for what, name, words, sizes, unit in (
        ("environments", "canvas 28 × 28", ["env=pixel"], call.pick((64, 256, 1024, 4096), (4, 8)), "num_envs={}"),
        ("canvas", "128 environments", ["env=pixel"], call.pick((16, 32, 64, 128), (8, 16)), "env.size={}"),
        (
            "sequence",
            "128 environments",
            ["env=music", "data.bars=64"],
            call.pick((32, 128, 512, 1024), (16, 32)),
            "env.length={}",
        ),
    ):
        line = []
        for size in sizes:
            arithmetic = {"environments": 1.0, "canvas": size * size / 784, "sequence": size / 32}[what]
            few = [] if what == "environments" else call.pick([], ["num_envs=4"])
            cost = alone([*words, *few, unit.format(size)], call.parts / what / str(size), seconds)
            rows.append([what, size, f"{cost:.2f}", f"{cost / arithmetic:.2f}"])
            line.append((float(size), cost / arithmetic))
        panels[f"{what}: µs over what is computed"] = {name: line}
    return rows, panels


def measure(call: Call) -> None:
    seconds = call.pick(float(call.settings["seconds"]), 0.05)
    few = call.pick([], SMALL)
    rows: list[Row] = [[
        "environment", "agent", "environments", "loop, ms a step", "compiled, ms", "limit, ms", "compiled / limit",
        "passes a step", "steps/s", "memory, MiB", "checkpoint, MiB", "saved in, s",
    ]]  # fmt: skip
    spawn = multiprocessing.get_context("spawn")
    for env, words in call.pick(list(ENVS.items()), list(ENVS.items())[:1]):
        for name, agent in call.pick(list(AGENTS.items()), list(AGENTS.items())[:1]):
            own = [word for word in few if not word.startswith("agent.") or agent == "dqn"]
            case_of = partial(measured, [*words, f"agent={agent}", *own], call.parts / env / agent, seconds)

            def in_a_process(case_of: Callable[[], Case] = case_of) -> dict[str, float]:
                with ProcessPoolExecutor(1, spawn) as pool:
                    return (case_of() if call.quick else pool.submit(case_of).result())._asdict()

            case = Case(**remembered(call.parts / env / f"{agent}.json", in_a_process))
            rows.append([
                env, name, case.num_envs, f"{case.loop:.2f}", f"{case.compiled_loop:.2f}", f"{case.limit:.2f}",
                f"{case.ratio:.2f}", f"{case.passes:.1f}", f"{case.num_envs / case.compiled_loop * 1e3:,.0f}",
                f"{case.memory:.0f}", f"{case.checkpoint:.2f}", f"{case.saving:.2f}",
            ])  # fmt: skip
    grown, panels = growth(call, seconds)
    curves(call.results / "speed.png", panels, "size")
    write(call, "Speed", [
        "Every agent at its defaults in every environment at its defaults. The limit is the same network passes and "
        "optimizer steps on prepared tensors and nothing else, those of the generator and of the reward's "
        "discriminator among them, timed in turn with the loop. `compiled` is the loop with what `compile=auto` keeps, "
        "`loop` with `compile=never`. Memory is the process's at most, with both loops and torch itself.",
        table(rows),
        "Environments alone: a random action, step, view, reward, observation and reset. What grows as its arithmetic "
        "does is level in the last column (canvas: over pixels, sequence: over steps).",
        table(grown), "![growth](speed.png)",
    ])  # fmt: skip


def main(arguments: list[str]) -> None:
    run("speed", measure, arguments, seconds="4")


if __name__ == "__main__":
    main(sys.argv[1:])
