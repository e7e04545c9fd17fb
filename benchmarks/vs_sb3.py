"""rlgen beside Stable-Baselines3, a loop in plain torch, and TorchRL where it is installed: DQN, A2C and PPO on one
task, with the same network and the same settings.

    python -m benchmarks.vs_sb3 [seeds=1,2,3] [steps=200000] [agents=dqn,a2c,ppo]
    python -m benchmarks.vs_sb3 curves=false      the speed alone, in about five minutes

The speed is measured first, and anew with every call, by letting the libraries train in turn for a second or some at a
time; then every library is trained to the end (`speed=false`: only this), and evaluated ten times on the way.
"""

import functools
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from importlib.util import find_spec
from typing import NamedTuple

import numpy as np
from stable_baselines3.common.vec_env import DummyVecEnv
from torch.optim.optimizer import register_optimizer_step_post_hook

from benchmarks.files import mnist
from benchmarks.harness import Call, run
from benchmarks.parts import remembered
from benchmarks.peers.ours import Ours
from benchmarks.peers.plain import plain
from benchmarks.peers.stable_baselines import StableBaselines, single_environments
from benchmarks.peers.task import AGENTS, ENVIRONMENT, LONGEST_ROLLOUT, NETWORK, Peer, Task, held_out
from benchmarks.report import Line, Row, curves, table, write
from rlgen_cli.config.compose import composed
from rlgen_cli.core.adam import PlainAdam
from rlgen_cli.runs.assemble import assemble

OURS, STABLE, PLAIN, TORCHRL = "rlgen", "Stable-Baselines3", "plain PyTorch", "TorchRL"
SINGLE = "Stable-Baselines3, DummyVecEnv"
POINTS = 10  # evaluations of a training
EVEN_EXPLORATION = "agent.exploration.epsilon={start:0.17,end:0.17,share:1.0}"  # the mean of its schedule
SMALL_DQN = ["agent.learning_starts=64", "agent.batch_size=16"]


class Result(NamedTuple):
    """One training to the end."""

    returns: list[float]  # mean return of held-out episodes, at each evaluation
    updates: int
    parameters: int


class Comparison:
    """What is trained, and for how long; steps are environment steps, all environments together."""

    def __init__(self, call: Call) -> None:
        self.call, self.num_envs, self.episodes = call, call.pick(64, 8), call.pick(500, 20)
        self.environment = [*ENVIRONMENT, *mnist(call)]
        rollout = self.num_envs * LONGEST_ROLLOUT
        per_point = call.pick(int(call.settings["steps"]) // POINTS, rollout)
        self.interval = max(per_point // rollout, 1) * rollout
        self.rounds, self.chunk, self.short_chunk = call.pick((5, 10 * rollout, 2 * rollout), (2, rollout, rollout))
        self.libraries: dict[str, Callable[[Task], Peer]] = {OURS: Ours, STABLE: StableBaselines, PLAIN: plain}
        if find_spec("torchrl"):
            from benchmarks.peers.torch_rl import torch_rl

            self.libraries[TORCHRL] = torch_rl
        else:
            print("TorchRL is left out, since it is not installed; `pip install torchrl` adds it.", flush=True)

    def task(self, algorithm: str, seed: int, total: int, interval: int, *more: str) -> Task:
        """A training of `total` steps that rests after every `interval`."""
        network = [f"agent.network.body.{key}={value}" for key, value in NETWORK.items()]
        small = self.call.pick([], SMALL_DQN if algorithm == "dqn" else [])
        length = [f"num_envs={self.num_envs}", f"seed={seed}", f"total_steps={total}", f"log_interval={interval}"]
        words = [*AGENTS[algorithm], *network, *self.environment, *length, *small, *more]
        return Task(algorithm, self.environment, words)

    @functools.cached_property
    def single_environments(self) -> DummyVecEnv:
        """Made once for all algorithms, since it takes a minute."""
        return single_environments(self.environment, self.num_envs)

    def seconds(self, algorithm: str) -> dict[str, list[float]]:
        """Seconds that each library takes for an environment step, in each round."""
        builders = {**self.libraries, SINGLE: lambda task: StableBaselines(task, self.single_environments)}
        chunks = {library: self.short_chunk if library == SINGLE else self.chunk for library in builders}
        peers: dict[str, Peer] = {}
        for library, build in builders.items():
            total = (self.rounds + 1) * chunks[library]
            even = [EVEN_EXPLORATION] if algorithm == "dqn" else []
            peers[library] = build(self.task(algorithm, 1, total, chunks[library], *even))
            peers[library].train(chunks[library])  # warm, and past the steps after which DQN learns
        taken: dict[str, list[float]] = {library: [] for library in peers}
        for i in range(self.rounds):
            for library in list(peers)[:: 1 if i % 2 == 0 else -1]:
                taken[library].append(peers[library].train(chunks[library]) / chunks[library])
        return taken

    def trained(self, algorithm: str, library: str, seed: int) -> Result:
        """A training to the end, made once and then remembered."""

        def measured() -> Result:
            task = self.task(algorithm, seed, POINTS * self.interval, self.interval)
            peer, judge, returns = self.libraries[library](task), task.session(), []
            updates = 0
            for _ in range(POINTS):
                with counted_updates() as count:
                    peer.train(self.interval)
                updates += len(count)
                returns.append(held_out(judge, peer.actor, self.episodes))
            return Result(returns, updates, peer.parameters)

        name = f"{library.replace(' ', '_')}_{algorithm}_{seed}_{POINTS * self.interval}.json".lower()
        return Result(*remembered(self.call.parts / name, measured))

    def by_planner(self, name: str) -> float:
        """The return of a planner, for reference."""
        session = assemble(composed("train", [*self.environment, f"agent={name}"]))
        return held_out(session, session.actor, self.episodes)

    def about(self) -> str:
        """What was equal, and what was not."""
        versions = [f"Stable-Baselines3 {version('stable_baselines3')}"]
        if TORCHRL in self.libraries:
            versions.append(f"TorchRL {version('torchrl')}")
        return (
            f"Copying MNIST digits by pen: 16 × 16, 24 moves, {self.num_envs} environments, one thread, float32 "
            f"({', '.join(versions)}). All train rlgen's own perceptron with the same heads, to which what each move "
            "gains at once is added (without it Stable-Baselines3's A2C and PPO ended with a blank canvas). Equal are "
            "the initial distribution of the weights, Adam, learning rates, clipping, discount, batches, updates, "
            "rollouts and epochs.\n\n"
            "Not equal: rlgen's own run writes its log and checks every number. Stable-Baselines3 and the plain loop "
            "step the batched environment through `rlgen_cli.gymnasium` as arrays; TorchRL steps it as tensors. "
            "rlgen's replay packs states and makes observations of them anew; the plain loop's holds each float32 "
            "observation once, those of Stable-Baselines3 and TorchRL twice. Stable-Baselines3's DQN tosses one coin "
            "for all environments when it explores, and then leaves out the network's pass. TorchRL computes the "
            "values of a rollout after it, before and after each step, and the shared body for policy and value apart; "
            "its A2C takes no ratio."
        )


@contextmanager
def counted_updates() -> Iterator[list[None]]:
    """A list that grows with every step of any optimizer."""
    count: list[None] = []
    handle = register_optimizer_step_post_hook(lambda *_: count.append(None))
    own_step = PlainAdam.step

    def counted(self: PlainAdam) -> None:
        own_step(self)
        count.append(None)

    PlainAdam.step = counted  # type: ignore[method-assign]
    try:
        yield count
    finally:
        handle.remove()
        PlainAdam.step = own_step  # type: ignore[method-assign]


def measure(call: Call) -> None:
    compared = Comparison(call)
    if call.settings["speed"] == "true":
        measure_speed(call, compared)
    if call.settings["curves"] == "true":
        measure_returns(call, compared)


def measure_speed(call: Call, compared: Comparison) -> None:
    """All libraries in turn, so that what else the machine does meets all alike."""
    rows: list[Row] = [["algorithm", "library", "steps/s", "rlgen is faster by", "of the rounds"]]
    for algorithm in call.each("agents"):
        taken = compared.seconds(algorithm)
        for library, seconds in taken.items():
            ratios = [theirs / ours for theirs, ours in zip(seconds, taken[OURS], strict=True)]
            rate, ratio = 1 / statistics.median(seconds), statistics.median(ratios)
            spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
            rows.append([algorithm.upper(), library, f"{rate:,.0f}", f"**{ratio:.2f} ×**", spread])
            print(*rows[-1], flush=True)
    how = (
        f"Environment steps a second of the whole training loop, the median of {compared.rounds} rounds. In each round "
        f"every library goes on with its own training for {compared.chunk:,} steps "
        f"({SINGLE}, which is slow: {compared.short_chunk:,}), in an order that turns from round to round, after as "
        "many steps to warm up. The ratio is the median of the rounds' own ratios. DummyVecEnv steps "
        f"{compared.num_envs} single `rlgen/pixel-v0` in turn. ε is held at 0.17, the mean of its schedule."
    )
    write(call, "Speed beside other libraries", [how, compared.about(), table(rows)], f"{call.name}_speed")


def measure_returns(call: Call, compared: Comparison) -> None:
    """Every library to the end, with every seed."""
    head: Row = ["algorithm", "library", "parameters", "updates", "held-out return (each seed)"]
    references = {"random actions": "random", "one-step search by the true reward": "greedy"}
    rows: list[Row] = [head]
    rows += [[name, "", "", "", f"{compared.by_planner(agent):.2f}"] for name, agent in references.items()]
    panels: dict[str, Mapping[str, Line]] = {}
    for algorithm in call.each("agents"):
        lines: dict[str, Line] = {}
        for library in compared.libraries:
            results = [compared.trained(algorithm, library, seed) for seed in call.seeds()]
            rows.append(summary_row(algorithm, library, results))
            print(*rows[-1], flush=True)
            means = np.mean([result.returns for result in results], 0)
            lines[library] = [((i + 1) * compared.interval, float(value)) for i, value in enumerate(means)]
        panels[algorithm.upper()] = lines
    curves(call.results / f"{call.name}.png", panels, "environment steps")
    what = (
        f"After {POINTS * compared.interval:,} environment steps, the mean return over {compared.episodes} episodes on "
        "held-out data, the same for all, without exploration; 10 would be a perfect copy."
    )
    picture = f"![Held-out return while training, mean of the seeds]({call.name}.png)"
    write(call, "Beside other libraries", [what, compared.about(), table(rows), picture])


def summary_row(algorithm: str, library: str, results: list[Result]) -> Row:
    """One line of the table, over the seeds."""
    last = [result.returns[-1] for result in results]
    each = ", ".join(f"{value:.2f}" for value in last)
    first = results[0]
    score = f"**{np.mean(last):.2f}** ({each})"
    return [algorithm.upper(), library, f"{first.parameters:,}", f"{first.updates:,}", score]


def main(arguments: list[str]) -> None:
    defaults = {"seeds": "1,2,3", "steps": "200000", "agents": "dqn,a2c,ppo", "speed": "true", "curves": "true"}
    run("vs_sb3", measure, arguments, **defaults)


if __name__ == "__main__":
    main(sys.argv[1:])
