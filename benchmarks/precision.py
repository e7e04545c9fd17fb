"""Precision: forward and backward passes of each kind of network in float32 and in bfloat16, on this machine.

    python -m benchmarks.precision [device=cpu] [seconds=4]

Both are timed in turn, many times; the ratio of each pair is what counts, and its median is given with the quartiles.
A kind pays where every network of it is faster by more than 5 % at both batch sizes. Beside it, how far the
log-probabilities of what a policy did, evaluated anew in one batch as PPO does, are from those when it acted.
"""

import contextlib
import statistics
import sys
import time
from collections.abc import Iterator
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

PICTURES = ["env=pixel", "reward=target", "data=glyphs", "data.per_class=4"]
MELODIES = ["env=music", "reward=music_theory", "data.count=40"]
NETWORKS = {
    "mlp": [*PICTURES, "network=mlp", "agent.network.head=plain"],
    "maps": [*PICTURES, "brush=pixel", "network=mlp"],
    "convolutions": [*PICTURES, "network=convolutions"],
    "lstm": [*MELODIES, "network=lstm"],
    "gru": [*MELODIES, "network=gru"],
    "transformer": [*MELODIES, "network=transformer"],
}
STEPS = 16  # of each environment, in one pass
SIZES = {"small": 4, "large": 32}  # environments: 64 and 512 rows
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


class Timing(NamedTuple):
    """A network at a batch size."""

    rows: int
    milliseconds: dict[str, float]  # of a pass, by format
    ratio: float  # bfloat16's time over float32's, the median of pairs
    quartiles: tuple[float, float]
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


def timed(net: PolicyNetwork, batch: Batch, name: str) -> float:
    """Milliseconds of a pass."""
    with in_format(net, name):
        began = time.perf_counter()
        one_pass(net, batch)
        synchronise()
        return 1000 * (time.perf_counter() - began)


@torch.no_grad()
def apart(session: Session, name: str) -> float:
    """The largest distance between new and old log-probabilities, both in this number format."""
    _, net = policy_of(session)
    with in_format(net, name):
        batch = acted(session, STEPS)
        return float((evaluated(net, batch)[0] - batch.log_prob).abs().max())


def timing(words: list[str], num_envs: int, device: str, seconds: float) -> tuple[str, Timing]:
    """The kind of a network, and how long it takes."""
    common = ["agent=ppo", "agent.num_minibatches=1", f"num_envs={num_envs}", f"device={device}", "threads=1"]
    session = assemble(composed("train", [*words, *common]))
    _, net = policy_of(session)
    for parameter in net.parameters():  # a head that starts at zero would pass no gradient to its body
        torch.nn.init.normal_(parameter, std=0.05)
    batch = acted(session, STEPS)
    times: dict[str, list[float]] = {name: [] for name in FORMATS}
    began = time.perf_counter()
    while len(times["float32"]) < WARM + 5 or time.perf_counter() - began < seconds:
        for name in FORMATS:
            times[name].append(timed(net, batch, name))
    times = {name: values[WARM:] for name, values in times.items()}
    ratios = [half / full for full, half in zip(times["float32"], times["bfloat16"], strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    milliseconds = {name: statistics.median(values) for name, values in times.items()}
    agreement = {name: apart(session, name) for name in FORMATS}
    return net.kind, Timing(STEPS * num_envs, milliseconds, middle, (low, high), agreement)


def measure(call: Call) -> None:
    seconds = call.pick(float(call.settings["seconds"]), 0.1)
    rows: list[Row] = [[
        "network", "kind", "rows", "float32, ms", "bfloat16, ms", "bfloat16 / float32 (quartiles)",
        "new − old log p, float32", "bfloat16",
    ]]  # fmt: skip
    ratios: dict[str, list[float]] = {}
    farthest = 0.0
    for name, words in NETWORKS.items():
        for num_envs in call.pick(tuple(SIZES.values()), (2, 4)):
            kind, found = timing(words, num_envs, call.settings["device"], seconds)
            ratios.setdefault(kind, []).append(found.ratio)
            farthest = max(farthest, found.apart["bfloat16"])
            low, high = found.quartiles
            times = (f"{found.milliseconds[number]:.2f}" for number in FORMATS)
            distances = (f"{found.apart[number]:.2g}" for number in FORMATS)
            ratio = f"{found.ratio:.2f} ({low:.2f} to {high:.2f})"
            rows.append([name, kind, found.rows, *times, ratio, *distances])
            print(*rows[-1], flush=True)
    paying = [kind for kind, found in ratios.items() if max(found) < FASTER]
    within = "within" if farthest < CLIP_RANGE else "beyond"
    write(call, "Precision", [
        f"{summary(__doc__)} One thread; {STEPS} steps of each environment in a pass, at the default sizes of the "
        f"networks, on {call.settings['device']}. `precision=auto` takes bfloat16 for the kinds of which every "
        "network is faster by more than 5 % at both sizes (`rlgen_cli/policies/precision.py`).",
        table(rows),
        f"By this run: {', '.join(paying) or 'none'}. New and old log-probabilities in bfloat16 are at most "
        f"{farthest:.2g} apart, {within} PPO's clip of {CLIP_RANGE}.",
    ])  # fmt: skip


def main(arguments: list[str]) -> None:
    run("precision", measure, arguments, device="cpu", seconds="4")


if __name__ == "__main__":
    main(sys.argv[1:])
