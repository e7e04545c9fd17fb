"""Steering a generator of MNIST digits to an asked label: policies, the prior and search, seen by the fixed judge.

python -m benchmarks.steer [seeds=1] [names=…]
"""

import sys
import time

import numpy as np
import torch
from torch import Tensor

from benchmarks.judge import SHARED, Features
from benchmarks.report import RESULTS, new_run, table, write
from rlgen_cli.runs.assemble import Session, build
from rlgen_cli.cli.main import composed, register_resolvers
from rlgen_cli.evaluation.distances import frechet, neighbourhoods, vendi
from rlgen_cli.evaluation.media.raster import enlarge, grid, write_png
from rlgen_cli.evaluation.rollout import rollout
from rlgen_cli.core.seeding import stream
from rlgen_cli.runs.trainer import train

COUNT = 4000
FREE = "reward.terms.latent_way.weight=0"
BARE = ["env=latent_gan", "data=mnist", "task=generate", "env.action=place", "env.max_steps=1"]
RUNS = {
    "prior, not steered": [*BARE, "agent=random"],
    "best of 16": [*BARE, "agent=best_of", "agent.samples=16", "agent.rounds=1", FREE],
    "REINFORCE": ["experiment=steer"],
    "PPO": ["experiment=steer_ppo"],
    "DQN": ["experiment=steer_dqn"],
    "REINFORCE, free to go anywhere": ["experiment=steer", FREE],
}  # fmt: skip


# What a policy says, and the best of 128 tries near it, by the reward's classifier: search where learning has led.
NEAR = [*BARE[:3], "env.action=move", "env.basis=learned", "env.directions=24", "env.stride=3", "env.max_steps=1",
        "agent=best_of", "agent.samples=128", "agent.rounds=1", "agent.spread=0.3",
        "reward.terms.classifier.weight=1", "reward.terms.classifier.temperature=0.5",
        "reward.terms.latent_way.weight=0.9"]  # fmt: skip
GUIDES = ("REINFORCE", "PPO")


class Judge:
    """The fixed net: features, and the probability of a label."""

    def __init__(self) -> None:
        self.features = Features()
        weights = np.load(SHARED / "judge" / "mnist28.npz")
        self.weight, self.bias = (torch.from_numpy(weights[f"f2.{part}"]) for part in ("weight", "bias"))

    def confidence(self, features: Tensor, label: Tensor) -> Tensor:
        """[N]."""
        return (features @ self.weight.T + self.bias).softmax(1).gather(1, label.unsqueeze(1)).squeeze(1)


@torch.no_grad()
def made_by(built: Session, at_once: int = 500) -> tuple[Tensor, Tensor]:
    """Samples and the labels that were asked for."""
    env, rng = built.envs["test"], stream(0, "steer", built.device)
    views = [env.view(rollout(env, built.agent, env.reset(at_once, rng), rng).final) for _ in range(COUNT // at_once)]
    return torch.cat([view.sample for view in views]), torch.cat([view.context.label for view in views])  # type: ignore[misc]


def spread(features: Tensor, label: Tensor) -> tuple[float, float]:
    """Vendi score of each label's samples: the mean over labels, and that of threes."""
    scores = [vendi(features[label == i]) for i in range(10)]
    return sum(scores) / 10, scores[3]


def slug(name: str) -> str:
    """A file's name."""
    return "".join(c if c.isalnum() else "_" for c in name.lower())


def show(name: str, samples: Tensor, label: Tensor) -> None:
    """A picture below docs/results, twelve samples of each label in a row."""
    of_each = [torch.nonzero(label == i)[:12, 0] for i in range(10)]
    write_png(RESULTS / f"{name}.png", enlarge(grid(samples[torch.cat(of_each)], columns=12), 400))


def main(seeds: list[int], names: list[str]) -> None:
    register_resolvers()
    judge = Judge()
    rows: list[list[object]] = [[
        "", "seed", "p of the asked label", "p of threes", "Vendi in a label", "Vendi of threes", "Fréchet distance",
        "coverage", "minutes",
    ]]  # fmt: skip
    real: Tensor | None = None
    shown: list[str] = []

    def add(name: str, seed: int, samples: Tensor, label: Tensor, minutes: float) -> None:
        assert real is not None
        features = judge.features(samples)
        p, (mean, threes) = judge.confidence(features, label), spread(features, label)
        near = neighbourhoods(real[:COUNT], features)
        rows.append([
            name, seed, f"{p.mean():.3f}", f"{p[label == 3].mean():.3f}", f"{mean:.2f}", f"{threes:.2f}",
            f"{frechet(features, real):.1f}", f"{near['coverage']:.2f}", f"{minutes:.1f}",
        ])  # fmt: skip
        print(*rows[-1], flush=True)
        if seed == seeds[0]:
            shown.append(name)
            show(f"steer_{slug(name)}", samples, label)

    for name in names:
        for seed in seeds:
            common = [f"data.root={SHARED / 'mnist'}", f"seed={seed}"]
            built = build(composed("train", [*RUNS[name], *common]))
            assert built.data is not None
            if real is None:
                real, label = judge.features(built.data.test.images.float() / 255), built.data.test.labels
                p, (mean, threes) = judge.confidence(real, label), spread(real, label)
                rows.append(["real pictures", "", f"{p.mean():.3f}", f"{p[label == 3].mean():.3f}", f"{mean:.2f}",
                             f"{threes:.2f}", "", "", ""])  # fmt: skip
            began, folder = time.perf_counter(), new_run(f"steer_{name.split(',')[0]}")
            if "=random" not in str(RUNS[name]) and "=best_of" not in str(RUNS[name]):
                train(built, folder)
            add(name, seed, *made_by(built), (time.perf_counter() - began) / 60)
            if name in GUIDES:
                search = build(composed("train", [*NEAR, f"agent.guide={folder}", *common]))
                add(f"{name}, and the best of 128 near it", seed, *made_by(search, 100), 0.0)
    some = "" if names == list(RUNS) else "_" + "_".join(names).lower()
    write(f"steer{some}", "Steering a generator to an asked label", [
        f"`python -m benchmarks.steer`: {COUNT} samples of each, labels as in the test split. p: the fixed judge's "
        "mean probability of the asked label; the reward's classifier is another one. Vendi: of the samples asked "
        "for one label, in the judge's features. The best of 128 near a policy's move (`agent.guide=RUN`) is chosen by "
        "the reward. Each row of the pictures is a label, unselected.",
        table(rows), *(f"{name}: ![](steer_{slug(name)}.png)" for name in shown),
    ])  # fmt: skip


if __name__ == "__main__":
    given = dict(argument.split("=", 1) for argument in sys.argv[1:])
    chosen = given.get("names", ";".join(RUNS)).split(";")
    main([int(seed) for seed in given.get("seeds", "1").split(",")], chosen)
