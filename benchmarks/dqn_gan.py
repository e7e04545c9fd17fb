"""DQN-GAN beside the same GAN without a policy, trained alone for as many updates.

python -m benchmarks.dqn_gan [seeds=1]
"""

import sys
from functools import partial

import torch

from benchmarks.files import mnist
from benchmarks.generators import ANY_LATENT, SMALL_GAN, slug, write_labels
from benchmarks.harness import Call, run
from benchmarks.judge import FixedJudge, mean, pictures, vendi_in_label
from benchmarks.parts import QUICK, data_of, opened, prepared, remembered, seconds_until, trained
from benchmarks.report import Row, table, write
from benchmarks.rollouts import samples
from rlgen_cli.core import checkpoint
from rlgen_cli.core.specs import View
from rlgen_cli.evaluation.distances import frechet, neighbourhoods
from rlgen_cli.runs.assemble import Session

SMALL = [*SMALL_GAN, "reward.terms.classifier.updates=10"]
SMALL_TRAINING = [
    *QUICK, *SMALL, "agent.network.body.width=16", "agent.batch_size=8", "agent.learning_starts=64",
    "agent.gradient_steps=1",
]  # fmt: skip
HEAD: Row = ["", "seed", "GAN updates", "reward (log p, own classifier)", "p, fixed judge", "Fréchet distance",
             "coverage", "Vendi in a label", "minutes"]  # fmt: skip


@torch.no_grad()
def row(call: Call, name: str, session: Session, judge: FixedJudge, scorer: Session) -> Row:
    """What the session's samples are worth to the classifier of `scorer`, and to the judge."""
    count = call.pick(4000, 150)
    view, real = samples(session, count, "steer"), judge(pictures(data_of(session).test))
    label = view.context["label"]
    reward = scorer.reward.terms["classifier"].score(View(view.sample, {"label": label}, {})).mean()
    features = judge(view.sample)
    write_labels(call, f"dqn_gan_{slug(name)}", view.sample, label)
    return [
        f"{reward:.2f}", f"{judge.confidence(features, label).mean():.3f}", f"{frechet(features, real):.1f}",
        f"{neighbourhoods(real[:count], features)['coverage']:.2f}",
        f"{mean(vendi_in_label(features, label).values()):.2f}",
    ]  # fmt: skip


def measure(call: Call) -> None:
    judge, rows = FixedJudge(call), [HEAD]
    for seed in call.seeds():
        common = [*mnist(call), f"seed={seed}"]
        folder = trained(call.parts / f"joint_{seed}", ["experiment=dqn_gan", *common, *call.pick([], SMALL_TRAINING)])
        training = checkpoint.load(checkpoint.newest(folder), "training", "cpu")
        updates, joint = training["generator"]["gan"]["updates_done"], opened(folder)
        words = [*ANY_LATENT, "task=generate", "agent=random", *common, *call.pick([], SMALL)]
        alone = prepared(call.parts / f"alone_{seed}", [*words, f"env.generator.updates={updates}"])
        minutes = {"GAN alone": "", "DQN-GAN": f"{seconds_until(folder) / 60:.1f}"}
        for name, session in (("GAN alone", alone), ("DQN-GAN", joint)):
            cells = remembered(
                call.parts / f"{slug(name)}_{seed}.json", partial(row, call, name, session, judge, joint)
            )
            rows.append([name, seed, updates, *cells, minutes[name]])
            print(*rows[-1], flush=True)
    write(call, "DQN-GAN beside the GAN alone", [
        f"`python -m benchmarks.dqn_gan`: `experiment=dqn_gan`, {call.pick(4000, 150)} samples, labels as in the test "
        "split; the GAN alone is the same one, trained without a policy for as many updates, with random latents. A "
        "row of the pictures is a label.",
        table(rows), "GAN alone: ![](dqn_gan_gan_alone.png)", "DQN-GAN: ![](dqn_gan_dqn_gan.png)",
    ])  # fmt: skip


def main(arguments: list[str]) -> None:
    run("dqn_gan", measure, arguments, seeds="1")


if __name__ == "__main__":
    main(sys.argv[1:])
