"""DQN, A2C, PPO and REINFORCE on one task, with one network, at the same number of environment steps.

python -m benchmarks.agents               trains each agent with seeds 1 to 5 (about twenty minutes on one core)
python -m benchmarks.agents seeds=1 steps=50000
python -m benchmarks.agents folder=FOLDER    goes on where a comparison in FOLDER stopped, or only reports it

The score is 1 + the target score on held-out digits: 0 for a blank canvas, 1 for a copy. Agents are compared by the
interquartile mean over seeds with 95 % intervals from a percentile bootstrap (Agarwal et al. 2021), at their last
evaluation and averaged over all of them (how fast they learn).
"""

import json
import sys
from pathlib import Path

import numpy as np

from benchmarks.judge import SHARED
from benchmarks.report import RESULTS, bands, new_run, table, write
from rlgen_cli.runs.assemble import build
from rlgen_cli.cli.main import composed, register_resolvers
from rlgen_cli.runs.trainer import train

TASK = [
    "env=pixel", "env.size=16", "env.action=pixel", "env.max_steps=40", "env.patch=0", "reward=target", "data=mnist",
    f"data.root={SHARED / 'mnist'}", "num_envs=64", "threads=1", "checkpoint_interval=1000000000",
]  # fmt: skip
NETWORK = ["agent.network.channels=16", "agent.network.depth=1"]
AGENTS = {
    "DQN": ["agent=dqn", "agent.batch_size=128"],
    "A2C": ["agent=actor_critic"],
    "PPO": ["agent=ppo"],
    "REINFORCE": ["agent=policy_gradient"],
}


def trained(folder: Path, name: str, seed: int, steps: int) -> list[tuple[int, float, float]]:
    """(step, score, seconds) at each evaluation of one training, which is run if it has not been."""
    run = folder / f"{name}_{seed}"
    if not (run / "status.json").is_file() or json.loads((run / "status.json").read_text())["status"] != "finished":
        every = [f"eval_interval={steps // 20}", f"log_interval={steps // 20}", "eval_episodes=500"]
        train(
            build(composed("train", [*TASK, *NETWORK, *AGENTS[name], *every, f"seed={seed}", f"total_steps={steps}"])),
            run,
        )
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [(r["step"], 1 + r["eval/target"], r["seconds"]) for r in lines if "eval/target" in r]


def interquartile_mean(scores: np.ndarray) -> np.ndarray:
    """The mean of the middle half along the last axis; the quartiles' own elements count by what lies inside."""
    ordered, n = np.sort(scores, -1), scores.shape[-1]
    low, high = n / 4, 3 * n / 4
    index = np.arange(n)
    weight = np.clip(np.minimum(index + 1, high) - np.maximum(index, low), 0, None)
    return (ordered * weight).sum(-1) / weight.sum()


def interval(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The 95 % percentile bootstrap interval of the interquartile mean over the last axis (seeds)."""
    draws = np.random.default_rng(0).integers(scores.shape[-1], size=(5000, scores.shape[-1]))
    means = interquartile_mean(np.moveaxis(scores[..., draws], -2, 0))  # [5000, …]
    return np.quantile(means, 0.025, 0), np.quantile(means, 0.975, 0)


def cell(scores: np.ndarray) -> str:
    low, high = interval(scores)
    return f"{interquartile_mean(scores):.3f} [{low:.3f}, {high:.3f}]"


def main() -> None:
    register_resolvers()
    given = dict(argument.split("=", 1) for argument in sys.argv[1:])
    seeds, steps = int(given.get("seeds", 5)), int(given.get("steps", 150_000))
    folder = Path(given["folder"]) if "folder" in given else new_run("agents")
    rows: list[list[object]] = [
        ["", "last score: IQM [95 %]", "each seed", "mean over training: IQM [95 %]", "seconds"]
    ]
    lines = {}
    for name in AGENTS:
        runs = [trained(folder, name, seed, steps) for seed in range(1, seeds + 1)]
        scores = np.array([[score for _, score, _ in run] for run in runs]).T  # [evaluations, seeds]
        each = ", ".join(f"{score:.3f}" for score in scores[-1])
        seconds = np.mean([run[-1][2] for run in runs])
        rows.append([name, cell(scores[-1]), each, cell(scores.mean(0)), f"{seconds:.0f}"])
        lines[name] = ([step for step, _, _ in runs[0]], interquartile_mean(scores), *interval(scores))
    bands(RESULTS / "agents.png", lines, "environment steps", "score on held-out digits")
    parts = [
        f"{__doc__.split(chr(10), 1)[0]} Task: copy MNIST digits pixel by pixel on a 16 × 16 canvas, 512 actions, 40 "
        f"steps, 64 environments, {steps:,} environment steps; one network for all, convolutional maps of 16 channels. "
        "Every agent has the defaults of its YAML but for that network and DQN's batch of 128. The policies' entropy "
        "bonus (lower ones end with a blank canvas), A2C's rollout, and the learning rates of A2C and REINFORCE were "
        "chosen in a few runs on this task with seed 1, PPO's other settings nowhere in particular, DQN's settings "
        "elsewhere. The score is 0 for a blank canvas and 1 for a perfect copy, which 40 pixels in pure white do not "
        "allow. One thread a training; the second core was busy, so seconds are rough.",
        table(rows),
        "![score against steps](agents.png)",
        "The interquartile mean of five seeds leaves out most of the best and the worst; intervals are a percentile "
        "bootstrap over seeds, which five seeds make coarse.",
    ]
    write("agents", "Agents compared", parts)


if __name__ == "__main__":
    main()
