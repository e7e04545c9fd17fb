"""Speed of composing: environment steps a second with all rules of RL Tuner, actions drawn at random.

python -m benchmarks.music
"""

import sys
import time

import torch

from benchmarks.harness import Call, run
from benchmarks.report import Row, summary, table, write
from rlgen_cli.config.compose import composed
from rlgen_cli.core.tree import select
from rlgen_cli.runs.assemble import assemble

WORDS = ["env=music", "reward=music_theory", "agent=random", "env.bar=8", "env.history=1"]
WARM = 5  # steps that are not timed


@torch.no_grad()
def rate(num_envs: int, rules: bool, seconds: float) -> float:
    """Environment steps a second of `num_envs` melodies of 32 steps, with resets, and with the reward if `rules`."""
    session = assemble(composed("train", [*WORDS, f"num_envs={num_envs}"]))
    env, streams = session.envs["train"], session.streams
    state = env.reset(num_envs, streams["env"])
    view, steps, began = env.view(state), -WARM, time.perf_counter()
    while steps < 1 or time.perf_counter() - began < seconds:
        if steps == 0:
            began = time.perf_counter()
        after = env.step(state, env.spec.action.sample(num_envs, streams["policy"], session.device))
        seen, done = env.view(after), env.done(after)
        if rules:
            session.reward(view, seen, done)
        state = select(done, env.reset(num_envs, streams["env"]), after)
        view, steps = env.view(state), steps + 1
    return steps * num_envs / (time.perf_counter() - began)


def measure(call: Call) -> None:
    seconds = call.pick(8.0, 0.1)
    rows: list[Row] = [["melodies side by side", "steps/s", "with all 11 rules"]]
    for num_envs in call.pick((64, 1024, 4096, 16384), (8, 64)):
        without, full = (f"{rate(num_envs, rules, seconds):,.0f}" for rules in (False, True))
        rows.append([f"{num_envs:,}", without, full])
    aim = "The aim was 200 000 steps/s with all rules; a per-environment Python version does some 500 in training."
    write(call, "Speed of composing", [summary(__doc__), table(rows), aim], "music_speed")


def main(arguments: list[str]) -> None:
    run("music", measure, arguments)


if __name__ == "__main__":
    main(sys.argv[1:])
