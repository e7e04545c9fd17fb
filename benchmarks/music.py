"""Speed of composing: environment steps a second with all rules of RL Tuner, actions drawn at random.

python -m benchmarks.music
"""

import time

import torch

from benchmarks.report import table, write
from rlgen_cli.runs.assemble import build
from rlgen_cli.cli.main import composed, register_resolvers
from rlgen_cli.core.tree import select

SECONDS = 8.0


@torch.no_grad()
def rate(num_envs: int, rules: bool) -> float:
    """Environment steps a second of `num_envs` melodies of 32 steps, with resets, and with the reward if `rules`."""
    words = ["env=music", "reward=music_theory", "agent=random", "env.bar=8", "env.history=1"]
    session = build(composed("train", [*words, f"num_envs={num_envs}"]))
    env, streams = session.envs["train"], session.streams
    state = env.reset(num_envs, streams["env"])
    view = env.view(state)
    for i in range(10**9):
        if i == 5:  # warm
            began = time.perf_counter()
        if i > 5 and time.perf_counter() - began > SECONDS:
            break
        after = env.step(state, env.spec.action.sample(num_envs, streams["policy"]))
        seen, done = env.view(after), env.done(after)
        if rules:
            session.reward(view, seen, done)
        state = select(done, env.reset(num_envs, streams["env"]), after)
        view = env.view(state)
    return (i - 5) * num_envs / (time.perf_counter() - began)


def main() -> None:
    register_resolvers()
    rows: list[list[object]] = [["melodies side by side", "steps/s", "with all 11 rules"]]
    for num_envs in (64, 1024, 4096, 16384):
        rows.append([f"{num_envs:,}", f"{rate(num_envs, False):,.0f}", f"{rate(num_envs, True):,.0f}"])
    aim = "The aim was 200 000 steps/s with all rules; a per-environment Python version does some 500 in training."
    write("music_speed", "Speed of composing", [str(__doc__).split("\n", 1)[0], table(rows), aim])


if __name__ == "__main__":
    main()
