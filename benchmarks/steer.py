"""Steering a generator of MNIST digits to an asked label: policies, the prior and search, seen by the fixed judge.

    python -m benchmarks.steer [seeds=1] [names=NAME;NAME]

`names` are of the table's rows, separated by semicolons: prior, not steered; best of 16; REINFORCE; PPO; DQN;
pathwise; REINFORCE, free to go anywhere. REINFORCE and PPO are also where a search begins.
"""

import sys
from pathlib import Path

from torch import Tensor

from benchmarks.files import mnist
from benchmarks.generators import ANY_LATENT, SMALL_GAN, slug, write_labels
from benchmarks.harness import Call, run
from benchmarks.judge import FixedJudge, mean, pictures, vendi_in_label
from benchmarks.parts import (
    QUICK,
    data_of,
    opened,
    prepared,
    remembered,
    trained,
    training_cost,
    with_planner,
)
from benchmarks.report import Row, table, write
from benchmarks.rollouts import samples
from rlgen_cli.core.specs import View
from rlgen_cli.evaluation.distances import frechet, neighbourhoods

FREE = "reward.terms.latent_distance.weight=0"
FITTED = "reward.terms.classifier.updates=4000"  # the reward's classifier, as in experiment=steer
# Planners act on the GAN alone; policies are trained.
PLANNERS = {
    "prior, not steered": [*ANY_LATENT, "task=generate", "agent=random"],
    "best of 16": [*ANY_LATENT, "task=generate", "agent=best_of", "agent.samples=16", "agent.rounds=1", FREE, FITTED],
}
POLICIES = {
    "REINFORCE": ["experiment=steer"],
    "PPO": ["experiment=steer", "agent=ppo"],
    "DQN": ["experiment=steer", "agent=dqn"],
    "pathwise": ["experiment=steer", "agent=pathwise"],
    "REINFORCE, free to go anywhere": ["experiment=steer", FREE],
}
# Search where learning has led: the best of 128 tries near what a policy says, by the reward's classifier.
NEAR = [
    "env=latent_gan", "task=generate", "steering=continuous_step", "env.steering.directions=24",
    "env.steering.stride=3", "env.max_steps=1", "agent=best_of", "agent.samples=128", "agent.rounds=1",
    "agent.start.guide_std=0.3", "reward.terms.classifier.weight=1", "reward.terms.classifier.temperature=0.5", FITTED,
    "reward.terms.latent_distance.weight=0.9",
]  # fmt: skip
GUIDES = ("REINFORCE", "PPO", "pathwise")
HEAD: Row = ["", "seed", "p of the asked label", "p of threes", "Vendi in a label", "Vendi of threes",
             "Fréchet distance", "coverage", "updates", "minutes"]  # fmt: skip
SMALL = [*SMALL_GAN, "reward.terms.classifier.updates=10"]
SMALL_TRAINING = [*QUICK, *SMALL, "agent.network.body.width=16"]
SMALL_BY_NAME = {
    "PPO": ["num_envs=16"], "DQN": ["agent.batch_size=8", "agent.learning_starts=64", "agent.gradient_steps=1"],
}  # fmt: skip


def small(call: Call, name: str) -> list[str]:
    """What a quick run's training has beside."""
    groups = ["num_envs=16"] if name.startswith("REINFORCE") else SMALL_BY_NAME.get(name, [])
    return call.pick([], [*SMALL_TRAINING, *groups])


class Steered:
    """What samples are compared with: the test pictures, by the fixed judge."""

    def __init__(self, call: Call) -> None:
        self.call, self.judge, self.count = call, FixedJudge(call), call.pick(4000, 150)
        data = data_of(with_planner([*ANY_LATENT, *mnist(call)], "random"))
        self.real, self.label = self.judge(pictures(data.test)), data.test.labels.cpu()

    def of_labels(self, features: Tensor, label: Tensor) -> Row:
        """How sure the judge is of what was asked for, and how varied that is."""
        label = label.cpu()
        p, vendi = self.judge.confidence(features, label), vendi_in_label(features, label)
        return [f"{p.mean():.3f}", f"{p[label == 3].mean():.3f}", f"{mean(vendi.values()):.2f}", f"{vendi[3]:.2f}"]

    def row(self, name: str, seed: int, view: View, cost: Row) -> Row:
        """A line of the table, and a picture."""
        features, label = self.judge(view.sample), view.context["label"]
        near = neighbourhoods(self.real[: self.count], features)
        distances = (f"{frechet(features, self.real):.1f}", f"{near['coverage']:.2f}")
        write_labels(self.call, f"steer_{slug(name)}", view.sample, label)
        row: Row = [name, seed, *self.of_labels(features, label), *distances, *cost]
        print(*row, flush=True)
        return row

    def searched(self, name: str, seed: int, words: list[str], at_once: int) -> Row:
        """The line of a planner."""

        def found() -> Row:
            session = prepared(self.call.parts / f"{slug(name)}_{seed}", [*words, *self.common(seed)])
            return self.row(name, seed, samples(session, self.count, "steer", at_once), ["", ""])

        row: Row = remembered(self.call.parts / f"{slug(name)}_{seed}.json", found)
        return row

    def learned(self, name: str, seed: int) -> tuple[Row, Path]:
        """The line of a policy, and its run."""
        words = [*POLICIES[name], *mnist(self.call), f"seed={seed}", *small(self.call, name)]
        folder = trained(self.call.parts / f"{slug(name)}_{seed}", words)

        def found() -> Row:
            view = samples(opened(folder), self.count, "steer")
            return self.row(name, seed, view, training_cost(folder))

        return remembered(self.call.parts / f"{slug(name)}_{seed}.json", found), folder

    def common(self, seed: int) -> list[str]:
        """The words of every planner."""
        return [*mnist(self.call), f"seed={seed}", *self.call.pick([], SMALL)]


def measure(call: Call) -> None:
    steered = Steered(call)
    rows: list[Row] = [HEAD, ["real pictures", "", *steered.of_labels(steered.real, steered.label), "", "", "", ""]]
    asked = call.settings["names"]
    names = asked.split(";") if asked else [*PLANNERS, *POLICIES]
    for name in names:
        for seed in call.seeds():
            if name in PLANNERS:
                rows.append(steered.searched(name, seed, PLANNERS[name], 500))
                continue
            row, folder = steered.learned(name, seed)
            rows.append(row)
            if name in GUIDES:
                guided = [*NEAR, f"agent.start.guide={folder}", *call.pick([], ["agent.samples=4"])]
                rows.append(steered.searched(f"{name}, and the best of 128 near it", seed, guided, 100))
    some = f"_{slug('_'.join(name for name in names if name in POLICIES))}" if asked else ""
    shown = dict.fromkeys(str(row[0]) for row in rows[2:])
    write(call, "Steering a generator to an asked label", [
        f"`python -m benchmarks.steer`: {steered.count} samples of each, labels as in the test split. p: the fixed "
        "judge's mean probability of the asked label; the reward's classifier is another one. Vendi: of the samples "
        "asked for one label, in the judge's features. The best of 128 near a policy's move "
        "(`agent.start.guide=RUN`) is chosen by the reward. Minutes are of training. Each row of the pictures is a "
        "label, unselected.",
        table(rows), *(f"{name}: ![](steer_{slug(name)}.png)" for name in shown),
    ], f"steer{some}")  # fmt: skip


def main(arguments: list[str]) -> None:
    run("steer", measure, arguments, seeds="1", names="")


if __name__ == "__main__":
    main(sys.argv[1:])
