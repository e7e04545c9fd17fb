"""Speed: environment steps/s alone and while training, and how much of the loop is not the networks' own passes.

    python -m benchmarks.speed

Task: 16 × 16 canvas, pen on a 16 × 16 grid (512 actions), a small CNN, 64 environments, batch 128, one update per 64
steps. Ratios within one run are what counts; absolute numbers are the machine's.
"""

import statistics
import sys
import time
from collections.abc import Callable

import torch

from benchmarks.harness import Call, run
from benchmarks.report import Row, table, write
from rlgen_cli.agents.dqn import DQN
from rlgen_cli.config.compose import composed
from rlgen_cli.core.acting import decide
from rlgen_cli.core.tree import select
from rlgen_cli.policies.actor import no_start
from rlgen_cli.runs.assemble import Session, assemble
from rlgen_cli.runs.stepper import Stepper

TASK = [
    "env=pixel", "env.size=16", "brush=pen_grid", "env.brush.grid=16", "env.brush.margin=0", "env.brush.widths=[1.5]",
    "env.brush.patch_size=0", "env.max_steps=16",
]  # fmt: skip
LEARNER = [
    "agent=dqn", "agent.batch_size=128", "agent.replay.buffer_size=20000", "agent.learning_starts=64",
    "agent.network.maps.channels=16", "agent.network.maps.depth=2",
]  # fmt: skip
TIMINGS = 5


def per_second(action: Callable[[], None], items: int, seconds: float) -> float:
    """Items a second: the median of five timings, which together take at least `seconds`."""
    for _ in range(TIMINGS):
        action()  # warm
    rates = []
    for _ in range(TIMINGS):
        began, calls = time.perf_counter(), 0
        while time.perf_counter() - began < seconds / TIMINGS:
            action()
            calls += 1
        synchronise()
        rates.append(calls * items / (time.perf_counter() - began))
    return statistics.median(rates)


def synchronise() -> None:
    """Wait for what was asked of a GPU."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def alone(session: Session, seconds: float) -> float:
    """Steps a second of random actions, with the reset of what is done."""
    env, rng, n = session.envs["train"], session.streams["env"], session.settings.num_envs
    state = env.reset(n, rng)

    def step() -> None:
        nonlocal state
        after = env.step(state, env.spec.action.sample(n, rng, session.device))
        state = select(env.done(after), env.reset(n, rng), after)

    return per_second(step, n, seconds)


def training(session: Session, seconds: float) -> tuple[float, float]:
    """Steps a second of the whole loop, and of nothing but its network passes on the same shapes."""
    env, agent, n = session.envs["train"], session.agent, session.settings.num_envs
    assert isinstance(agent, DQN)
    stepper = Stepper(
        env=env,
        reward=session.reward,
        learners=session.learners,
        rng=session.streams["env"],
        num_envs=n,
        group_size=1,
        together=True,
    )
    stepper.enter(stepper.fresh())

    def whole() -> None:
        decision = decide(agent.policy, env, stepper.state, None, explore=True, rng=session.streams["policy"])
        stepper.renew(stepper.step(decision, None, 0.5).done)

    loop = per_second(whole, n, seconds)
    few = env.observe(stepper.state)
    many = env.observe(env.reset(agent.batch_size, session.streams["env"]))

    def passes() -> None:
        with torch.no_grad():
            agent.policy.net(few, None, no_start(few))
            agent.target(many, None, no_start(many))
        loss = agent.policy.net(many, None, no_start(many)).q.square().mean()
        agent.optimizer.step(loss, 0.5)

    return loop, per_second(passes, n, seconds)


def measure(call: Call) -> None:
    seconds = call.pick(3.0, 0.1)
    rows: list[Row] = [["environment alone", "steps/s"]]
    for n in call.pick((64, 1024), (8, 16)):
        session = assemble(composed("train", [*TASK, "agent=random", f"num_envs={n}"]))
        rows.append([f"{n} environments", f"{alone(session, seconds):,.0f}"])
    num_envs = call.pick(64, 8)
    loops: list[Row] = [
        [f"training, {num_envs} environments", "steps/s", "bare network passes, steps/s", "share outside the networks"]
    ]
    for precision in ("float32", "bfloat16"):
        words = [*TASK, *LEARNER, f"num_envs={num_envs}", f"precision={precision}", *call.pick([], ["threads=1"])]
        whole, bare = training(assemble(composed("train", words)), seconds)
        loops.append([f"DQN, {precision}", f"{whole:,.0f}", f"{bare:,.0f}", f"{1 - whole / bare:.0%}"])
    write(call, "Speed", [
        "16 × 16 canvas, pen on a grid (512 actions), small CNN (16 channels), batch 128, one update per 64 steps. "
        "For orientation, measured elsewhere on two other cores (shared targets of the project, not this run): "
        "Gymnasium with a DummyVecEnv 31 000 steps/s alone, Stable-Baselines3's DQN 1 259 steps/s while training.",
        table(rows), table(loops),
    ])  # fmt: skip


def main(arguments: list[str]) -> None:
    run("speed", measure, arguments)


if __name__ == "__main__":
    main(sys.argv[1:])
