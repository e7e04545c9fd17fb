"""Speed: environment steps/s alone and while training, and how much of the loop is not the networks' own passes.

Task: 16 × 16 canvas, pen on a 16 × 16 grid (512 actions), a small CNN, 64 environments, batch 128, one update per
64 steps. Ratios within one run are what counts; absolute numbers are the machine's.
"""

import time
from collections.abc import Callable

import torch

from benchmarks.report import table, write
from rlgen_cli.runs.assemble import Session, build
from rlgen_cli.cli.main import composed, register_resolvers
from rlgen_cli.core.tree import select
from rlgen_cli.core.types import Transition

TASK = "env.size=16 env.action=pen env.pen=grid env.grid=16 env.margin=0 env.widths=[1.5] env.max_steps=16 env.patch=0"
LEARNER = "agent.batch_size=128 agent.capacity=20000 agent.warmup=64 agent.network.channels=16 agent.network.depth=2"


def per_second(action: Callable[[], None], items: int, least: float = 3.0) -> float:
    """Median of five timings of at least `least` / 5 seconds each."""
    for _ in range(5):
        action()
    rates = []
    for _ in range(5):
        began, calls = time.perf_counter(), 0
        while time.perf_counter() - began < least / 5:
            action()
            calls += 1
        _synchronise()
        rates.append(calls * items / (time.perf_counter() - began))
    return sorted(rates)[2]


def alone(session: Session, n: int) -> float:
    """Random actions, step, and reset of what is done."""
    env, rng = session.envs["train"], session.streams["env"]
    state = env.reset(n, rng)

    def step() -> None:
        nonlocal state
        after = env.step(state, env.spec.action.sample(n, rng))
        state = select(env.done(after), env.reset(n, rng), after)

    return per_second(step, n)


def training(session: Session) -> tuple[float, float]:
    """Steps/s of the whole loop, and of nothing but its network passes on the same shapes."""
    env, agent, reward, n = session.envs["train"], session.agent, session.reward, session.config.num_envs
    state = env.reset(n, session.streams["env"])

    def whole() -> None:
        nonlocal state
        action = agent.act(env, state, None, explore=True, rng=session.streams["policy"]).action
        after = env.step(state, action)
        done = env.done(after)
        scored = reward(env.view(state), env.view(after), done)
        agent.observe(Transition(state, action, scored.total, scored.settled, after, done))
        agent.update(0.5)
        state = select(done, env.reset(n, session.streams["env"]), after)

    loop = per_second(whole, n)
    few, many = env.observe(state), env.observe(env.reset(agent.batch_size, session.streams["env"]))

    def bare() -> None:
        with torch.no_grad(), agent.precision():
            agent.online(few)
            agent.target(many)
        with agent.precision():
            loss = agent.online(many).square().mean()
        agent.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        agent.optimizer.step()

    return loop, per_second(bare, n)


def _synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def main() -> None:
    register_resolvers()
    rows: list[list[object]] = [["environment alone", "steps/s"]]
    for n in (64, 1024):
        session = build(composed("train", [*TASK.split(), "agent=random", f"num_envs={n}"]))
        rows.append([f"{n} environments", f"{alone(session, n):,.0f}"])
    loops: list[list[object]] = [
        ["training, 64 environments", "steps/s", "bare network passes, steps/s", "share outside the networks"]
    ]
    for precision in ("float32", "bfloat16"):
        session = build(composed("train", [*TASK.split(), *LEARNER.split(), "num_envs=64", f"precision={precision}"]))
        whole, bare = training(session)
        loops.append([f"DQN, {precision}", f"{whole:,.0f}", f"{bare:,.0f}", f"{1 - whole / bare:.0%}"])
    parts = [
        "16 × 16 canvas, pen on a grid (512 actions), small CNN (16 channels), batch 128, one update per 64 steps. "
        "For orientation, measured elsewhere on two other cores (shared targets of the project, not this run): "
        "Gymnasium with a DummyVecEnv 31 000 steps/s alone, Stable-Baselines3's DQN 1 259 steps/s while training.",
        table(rows), table(loops),
    ]  # fmt: skip
    write("speed", "Speed", parts)


if __name__ == "__main__":
    main()
