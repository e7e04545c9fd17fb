"""Precision: forward and backward passes of each kind of network in float32 and in bfloat16, on this machine.

    python -m benchmarks.precision [device=cpu] [seconds=4]

Both are timed in turn, many times; the ratio of each pair is what counts, and its median is given with the quartiles.
On a CPU, the time is the processor's. A kind pays where every network of it is faster by more than 5 % at both batch
sizes. Beside it, how far the log-probabilities of what a policy did, evaluated anew in one batch as PPO does, are from
those when it acted; and whole trainings, where passes are a part of the work.
"""

import contextlib
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks.harness import Call, run
from benchmarks.report import Row, summary, table, write
from benchmarks.speed import synchronise
from rlgen_cli.config.compose import composed
from rlgen_cli.core.acting import decide, initial_carry
from rlgen_cli.core.specs import Carry, Observation
from rlgen_cli.core.tree import join
from rlgen_cli.policies.actor import NetworkPolicy
from rlgen_cli.policies.policy_network import PolicyNetwork
from rlgen_cli.policies.precision import Precision
from rlgen_cli.runs.assemble import Session, assemble
from rlgen_cli.runs.trainer import Loop

PICTURES = ["env=pixel", "reward=target", "data=glyphs", "data.per_class=4"]
MELODIES = ["env=music", "reward=music_theory", "data.count=40"]
NETWORKS = {
    "mlp": [*PICTURES, "network=mlp", "agent.network.maps=null"],
    "maps": [*PICTURES, "brush=pixel", "network=mlp"],
    "convolutions": [*PICTURES, "network=convolutions"],
    "lstm": [*MELODIES, "network=lstm"],
    "gru": [*MELODIES, "network=gru"],
    "transformer": [*MELODIES, "network=transformer"],
}
TRAININGS = {
    "DQN, mlp": [*PICTURES, "agent=dqn", "agent.network.maps=null", "agent.learning_starts=64"],
    "DQN, maps": [*PICTURES, "brush=pixel", "agent=dqn", "agent.learning_starts=64",
                  "agent.batch_size=64"],
    **{f"PPO, {name}": [*words, "agent=ppo"] for name, words in NETWORKS.items()},
}  # fmt: skip
STEPS = 16  # of each environment, in one pass
SIZES = (4, 32)  # environments: small and large, 64 and 512 rows
FORMATS = ("float32", "bfloat16")
WARM = 2  # passes that do not count
FASTER = 0.95  # of float32's time
CLIP_RANGE = 0.2  # PPO's


class Batch(NamedTuple):
    """T steps of N environments as PPO learns from them, each field T · N rows."""

    observation: Observation
    action: Tensor
    log_prob: Tensor  # when it acted, step by step
    carry: Carry  # before the first step
    start: Tensor  # bool [T, N]


class Pairs(NamedTuple):
    """Something timed in both number formats in turn."""

    times: dict[str, float]  # medians, ms
    ratio: float  # bfloat16's time over float32's, the median of pairs
    quartiles: tuple[float, float]

    def cells(self) -> Row:
        """For a table."""
        low, high = self.quartiles
        return [*(f"{self.times[name]:.2f}" for name in FORMATS), f"{self.ratio:.2f} ({low:.2f} to {high:.2f})"]


class Timing(NamedTuple):
    """A network at a batch size."""

    kind: str
    rows: int
    passes: Pairs
    apart: dict[str, float]  # the largest |new − old| log-probability, by format


def policy_of(session: Session) -> tuple[NetworkPolicy, PolicyNetwork]:
    """The policy, and its network."""
    policy = session.actor
    assert isinstance(policy, NetworkPolicy)
    assert isinstance(policy.net, PolicyNetwork)
    return policy, policy.net


@contextlib.contextmanager
def in_format(net: PolicyNetwork, name: Any) -> Iterator[None]:
    """The network's passes in another number format."""
    before, net.precision = net.precision, Precision(name)
    try:
        yield
    finally:
        net.precision = before


def acted(session: Session, steps: int) -> Batch:
    """What the policy did in its first steps."""
    env, n, (policy, _) = session.envs["train"], session.settings.num_envs, policy_of(session)
    state, first = env.reset(n, session.streams["env"]), initial_carry(policy, n)
    carry, seen, actions, log_probs = first, [], [], []
    for _ in range(steps):
        decision = decide(policy, env, state, carry, explore=True, rng=session.streams["policy"])
        seen.append(env.observe(state))
        actions.append(decision.action)
        log_probs.append(decision.policy_output.log_prob)
        state, carry = env.step(state, decision.action), decision.carry
    start = torch.zeros(steps, n, dtype=torch.bool, device=session.device)
    return Batch(join(*seen), torch.cat(actions), torch.cat(log_probs), first, start)


def evaluated(net: PolicyNetwork, batch: Batch) -> tuple[Tensor, Tensor]:
    """Log-probabilities and values of the batch, [T · N] each."""
    out = net(batch.observation, None, batch.carry, batch.start)
    return out.policy.evaluate_actions(batch.action)[0], out.value


def one_pass(net: PolicyNetwork, batch: Batch) -> None:
    """Forward and backward."""
    log_prob, value = evaluated(net, batch)
    torch.autograd.grad(value.square().mean() - log_prob.mean(), list(net.parameters()), allow_unused=True)


def milliseconds(action: Callable[[], None], device: torch.device) -> float:
    """How long an action takes; on the CPU in time of the processor, which other programs do not lengthen by taking
    turns with this one."""
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    began = clock()
    action()
    synchronise()
    return 1000 * (clock() - began)


def in_turn(actions: dict[str, Callable[[], None]], device: torch.device, seconds: float, least: int) -> Pairs:
    """Time the action of each format, by turns, for some seconds and at least so often."""
    times: dict[str, list[float]] = {name: [] for name in FORMATS}
    began = time.perf_counter()
    while len(times["float32"]) < WARM + least or time.perf_counter() - began < seconds:
        for name in FORMATS:
            times[name].append(milliseconds(actions[name], device))
    counted = {name: values[WARM:] for name, values in times.items()}
    ratios = [half / full for full, half in zip(counted["float32"], counted["bfloat16"], strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    return Pairs({name: statistics.median(values) for name, values in counted.items()}, middle, (low, high))


@torch.no_grad()
def apart(session: Session, name: str) -> float:
    """The largest distance between new and old log-probabilities, both in this number format."""
    _, net = policy_of(session)
    with in_format(net, name):
        batch = acted(session, STEPS)
        return float((evaluated(net, batch)[0] - batch.log_prob).abs().max())


def timing(words: list[str], num_envs: int, device: str, seconds: float) -> Timing:
    """A network of PPO."""
    common = ["agent=ppo", "agent.num_minibatches=1", f"num_envs={num_envs}", f"device={device}", "threads=1"]
    session = assemble(composed("train", [*words, *common]))
    _, net = policy_of(session)
    for parameter in net.parameters():  # a head that starts at zero would pass no gradient to its body
        torch.nn.init.normal_(parameter, std=0.05)
    batch = acted(session, STEPS)

    def passed(name: str) -> None:
        with in_format(net, name):
            one_pass(net, batch)

    passes = in_turn({name: partial(passed, name) for name in FORMATS}, session.device, seconds, least=5)
    return Timing(net.kind, STEPS * num_envs, passes, {name: apart(session, name) for name in FORMATS})


def training(words: list[str], num_envs: int, device: str, precision: str) -> Callable[[], None]:
    """A function that goes on with a training for `STEPS` batched steps, which end with an update."""
    common = [f"num_envs={num_envs}", f"device={device}", "threads=1", f"precision={precision}"]
    session = assemble(composed("train", [*words, *common]))
    loop = Loop(session)

    def go_on() -> None:
        for _ in range(STEPS):
            loop.renew(*loop.play())

    return go_on


def measure(call: Call) -> None:
    seconds, device = call.pick(float(call.settings["seconds"]), 0.1), call.settings["device"]
    rows: list[Row] = [[
        "network", "kind", "rows", "float32, ms", "bfloat16, ms", "bfloat16 / float32 (quartiles)",
        "new − old log p, float32", "bfloat16",
    ]]  # fmt: skip
    ratios: dict[str, list[float]] = {}
    farthest = 0.0
    for name, words in NETWORKS.items():
        for num_envs in call.pick(SIZES, (2, 4)):
            found = timing([*words, *small(call, words)], num_envs, device, seconds)
            ratios.setdefault(found.kind, []).append(found.passes.ratio)
            farthest = max(farthest, found.apart["bfloat16"])
            distances = (f"{found.apart[number]:.2g}" for number in FORMATS)
            rows.append([name, found.kind, found.rows, *found.passes.cells(), *distances])
            print(*rows[-1], flush=True)
    whole: list[Row] = [["training", "float32, ms", "bfloat16, ms", "bfloat16 / float32 (quartiles)"]]
    for name in call.pick(list(TRAININGS), ["DQN, mlp", "PPO, lstm"]):
        words = [*TRAININGS[name], *small(call, TRAININGS[name])]
        actions = {number: training(words, call.pick(32, 4), device, number) for number in FORMATS}
        found_pairs = in_turn(actions, torch.device(device), call.pick(4 * seconds, 0.0), least=call.pick(5, 2))
        whole.append([name, *found_pairs.cells()])
        print(*whole[-1], flush=True)
    paying = [kind for kind, found_ratios in ratios.items() if max(found_ratios) < FASTER]
    within = "within" if farthest < CLIP_RANGE else "beyond"
    write(call, "Precision", [
        f"{summary(__doc__)} One thread; {STEPS} steps of each environment in a pass, at the default sizes of the "
        f"networks, on {device}{processor(device)}.",
        table(rows),
        f"Faster by more than 5 % at both sizes: {', '.join(paying) or 'none'}. New and old log-probabilities in "
        f"bfloat16 are at most {farthest:.2g} apart, {within} PPO's clip of {CLIP_RANGE}.",
        f"{STEPS} steps of {call.pick(32, 4)} environments with the updates that fall into them, at the defaults of "
        "the agents (DQN with maps: 64 rows a batch):",
        table(whole),
    ])  # fmt: skip


def small(call: Call, words: list[str]) -> list[str]:
    """What a quick run has beside."""
    pictures = ["env.size=12"] if "env=pixel" in words else []
    batch = ["agent.batch_size=16"] if "agent=dqn" in words else []
    return call.pick([], [*pictures, *batch])


def processor(device: str) -> str:
    """What matters of it, for a reader on another machine."""
    if device != "cpu":
        return ""
    path = Path("/proc/cpuinfo")
    flags = set(path.read_text().split()) if path.is_file() else set()
    able = [name for name in ("avx512_bf16", "amx_bf16") if name in flags]
    return f" ({' and '.join(able) or 'a processor without instructions for bfloat16'})"


def main(arguments: list[str]) -> None:
    run("precision", measure, arguments, device="cpu", seconds="4")


if __name__ == "__main__":
    main(sys.argv[1:])
