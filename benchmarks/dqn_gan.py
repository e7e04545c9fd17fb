"""DQN-GAN beside the same GAN without a policy, trained alone for as many updates.

python -m benchmarks.dqn_gan [seeds=1]
"""

import sys
import time

import torch

from benchmarks.judge import SHARED
from benchmarks.report import new_run, table, write
from benchmarks.steer import BARE, COUNT, Judge, made_by, show, slug, spread
from rlgen_cli.runs.assemble import build
from rlgen_cli.cli.main import composed, register_resolvers
from rlgen_cli.evaluation.distances import frechet, neighbourhoods
from rlgen_cli.runs.trainer import train
from rlgen_cli.core.types import Context, View


def main(seeds: list[int]) -> None:
    register_resolvers()
    judge = Judge()
    rows: list[list[object]] = [[
        "", "seed", "GAN updates", "reward (log p, own classifier)", "p, fixed judge", "Fréchet distance", "coverage",
        "Vendi in a label", "minutes",
    ]]  # fmt: skip
    for seed in seeds:
        common = [f"data.root={SHARED / 'mnist'}", f"seed={seed}"]
        joint = build(composed("train", ["experiment=dqn_gan", *common]))
        assert joint.data is not None
        term, real = joint.reward.terms["classifier"].score, judge.features(joint.data.test.images.float() / 255)
        began = time.perf_counter()
        train(joint, new_run("dqn_gan"))
        minutes = (time.perf_counter() - began) / 60
        alone = build(composed("train", [*BARE, "agent=random", f"env.gan.steps={joint.gan.updates}", *common]))
        for name, built in (("GAN alone", alone), ("DQN-GAN", joint)):
            samples, label = made_by(built)
            features = judge.features(samples)
            worth = float(term(View(samples, Context(label=label), torch.ones_like(label))).mean())
            near = neighbourhoods(real[:COUNT], features)
            rows.append([
                name, seed, built.gan.updates, f"{worth:.2f}", f"{judge.confidence(features, label).mean():.3f}",
                f"{frechet(features, real):.1f}", f"{near['coverage']:.2f}", f"{spread(features, label)[0]:.2f}",
                f"{minutes:.1f}" if built is joint else "",
            ])  # fmt: skip
            print(*rows[-1], flush=True)
            if seed == seeds[0]:
                show(f"dqn_gan_{slug(name)}", samples, label)
    write("dqn_gan", "DQN-GAN beside the GAN alone", [
        f"`python -m benchmarks.dqn_gan`: `experiment=dqn_gan`, {COUNT} samples, labels as in the test split; the GAN "
        "alone is the same one, trained without a policy for as many updates, with random latents. A row of the "
        "pictures is a label.",
        table(rows), "GAN alone: ![](dqn_gan_gan_alone.png)", "DQN-GAN: ![](dqn_gan_dqn_gan.png)",
    ])  # fmt: skip


if __name__ == "__main__":
    given = dict(argument.split("=") for argument in sys.argv[1:])
    main([int(seed) for seed in given.get("seeds", "1").split(",")])
