"""A flow model of coloured shapes that reads captions, tuned by a rule that checks them: the share of samples that show
what is asked for, by task as in GenEval, for captions of the training and for captions that were never trained on.

python -m benchmarks.captions [methods=reward_weighted,policy_gradient] [seeds=1] [updates=15000] \
    [precision=auto]
"""

import sys
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks.generators import slug
from benchmarks.harness import Call, run
from benchmarks.judge import mean
from benchmarks.parts import QUICK_TRAINING, data_of, final_views, opened, prepared, remembered, seconds_until, trained
from benchmarks.report import Row, table, with_interval, write
from rlgen_cli.core.specs import View
from rlgen_cli.core.stages import Helpers
from rlgen_cli.data.captions import TASKS, scenes
from rlgen_cli.data.images import Images
from rlgen_cli.evaluation.distances import frechet, vendi
from rlgen_cli.evaluation.judge import Judge, judge_of
from rlgen_cli.evaluation.media.pictures import captioned_sheet
from rlgen_cli.evaluation.media.raster import write_png
from rlgen_cli.runs.assemble import Session
from rlgen_cli.runs.stages import fit_cached

SPLITS = {"train": "trained on", "test": "held out"}  # captions
# At a rate of 3e-4 it spent a hundred nats a step in the first windows, and made no caption's picture from then on.
GROUPS = [
    "agent=policy_gradient", "baseline=group", "agent.baseline.group_size=16", "agent.gamma=1",
    "agent.num_minibatches=4", "agent.optimizer.learning_rate.start=1e-5", "num_envs=256", "total_steps=200000",
]  # fmt: skip
NFT = ["agent=nft", "agent.group_size=16", "agent.epochs=4", "num_envs=256"]
LONGER = [*NFT, "agent.num_minibatches=4", "total_steps=400000"]
METHODS = {
    "reward_weighted": [
        "agent=reward_weighted",
        "agent.kl_coef=0.2",
        "agent.updates=20",
        "num_envs=256",
        "total_steps=300000",
    ],
    "nft": [*NFT, "total_steps=200000"],
    "nft_longer": LONGER,
    "nft_longer_at_a_price": [*LONGER, "agent.kl_coef=1e-3"],
    "policy_gradient": [*GROUPS, "agent.anchor.kl_coef=0.2"],
    "policy_gradient_without_price": [*GROUPS, "agent.anchor.prior=none"],
}
QUICK = [
    "threads=1", "env.size=24", "data.per_class=2", "env.generator.updates=2", "env.generator.batch_size=4",
    "env.generator.network.width=4", "env.max_steps=2", "env.solver_steps=1",
]  # fmt: skip
SHOWN = 4  # samples of each task


class Made(NamedTuple):
    """Samples and what was asked for."""

    samples: Tensor  # float [N, 3, H, W] in [0, 1]
    label: Tensor  # int64 [N]


class Reference(NamedTuple):
    """What samples are compared with, on the same captions."""

    judge: Judge
    features: dict[str, Tensor]  # of real pictures, by split


def words_of(call: Call) -> list[str]:
    """What all runs have in common."""
    common = [
        "env=diffusion", "data=captions", "reward=caption", "env.size=32", "env.channels=3", "env.condition=label",
        "env.generator.conditional=true", "env.generator.label_encoding=words",
        f"env.generator.updates={call.settings['updates']}", "env.generator.seed=1",
        f"precision={call.settings['precision']}", "eval_interval=100000", "checkpoint_interval=250000",
    ]  # fmt: skip
    return [*common, *call.pick([], QUICK)]


def made_by(session: Session, split: str, count: int, seed: int) -> Made:
    """So many samples for captions of a split."""
    views = final_views(session, split, count, seed)
    return Made(torch.cat([view.sample for view in views]), torch.cat([view.context["label"] for view in views]))


def drawn_from(data: Images, count: int, seed: int) -> Made:
    """So many real pictures."""
    index = torch.randint(len(data.images), (count,), generator=torch.Generator().manual_seed(seed))
    index = index.to(data.images.device)
    return Made(data.images[index].float() / 255, data.labels[index])


def reference_of(call: Call, session: Session) -> Reference:
    """A judge that takes no part in any training, and what it sees in real pictures."""
    helpers, data = Helpers(), data_of(session)
    judge = judge_of(data.train, call.pick(3000, 2), helpers)
    fit_cached(helpers.stages[0], session)
    some = {split: drawn_from(getattr(data, split), call.pick(4000, 200), 5).samples for split in SPLITS}
    return Reference(judge, {split: judge.features(samples) for split, samples in some.items()})


@torch.no_grad()
def accepted_of(session: Session, made: Made) -> Tensor:
    """1 for each sample that shows what is asked for, else 0: [N]."""
    score = session.reward.terms["caption"].score
    pairs = zip(made.samples.split(500), made.label.split(500), strict=True)
    return torch.cat([score(View(sample, {"label": label}, {})) for sample, label in pairs])


def measured(session: Session, reference: Reference, made: dict[str, Made]) -> dict[str, Any]:
    """What samples are worth, by split; and some of those for captions that are held out."""
    found: dict[str, Any] = {}
    task = torch.tensor([TASKS.index(scene.task) for scene in scenes()])
    for split, (samples, label) in made.items():
        accepted, asked = accepted_of(session, made[split]).cpu(), task[label.cpu()]
        features, real = reference.judge.features(samples), reference.features[split]
        found[split] = {
            "accepted": [float(accepted[asked == i].mean()) for i in range(len(TASKS))],
            "distance": frechet(features, real), "vendi": vendi(features) / vendi(real),
        }  # fmt: skip
    samples, label = made["test"]
    asked = task[label.cpu()]
    shown = torch.cat([torch.nonzero(asked == i)[:SHOWN, 0] for i in range(len(TASKS))]).to(samples.device)
    found["shown"] = (255 * samples[shown]).round().int().tolist()
    found["asked"] = label[shown].tolist()
    return found


def of_real(call: Call, session: Session, reference: Reference) -> dict[str, Any]:
    """Real pictures beside real pictures."""
    made = {split: drawn_from(getattr(data_of(session), split), call.pick(4000, 200), 4) for split in SPLITS}
    return measured(session, reference, made) | {"minutes": 0.0}


def of_session(call: Call, session: Session, reference: Reference) -> dict[str, Any]:
    """What a session makes."""
    return measured(
        session, reference, {split: made_by(session, split, call.pick(4000, 200), 3) for split in SPLITS}
    )  # fmt: skip


def of_method(call: Call, method: str, seed: int, reference: Reference) -> dict[str, Any]:
    """What a training makes, and its time."""
    words = [*words_of(call), *METHODS[method], f"seed={seed}", *call.pick([], QUICK_TRAINING)]
    words += call.pick([], [f"{key}={value}" for key, value in quick_sizes(method).items()])
    folder = trained(call.parts / f"{method}_{seed}", words)
    return of_session(call, opened(folder), reference) | {"minutes": seconds_until(folder) / 60}


def quick_sizes(method: str) -> dict[str, int]:
    """What a training of seconds has beside QUICK_TRAINING."""
    if method == "reward_weighted":
        return {"agent.learning_starts": 8, "agent.buffer_size": 16, "agent.batch_size": 4, "agent.updates": 1}
    if method.startswith("nft"):
        return {"agent.group_size": 4, "agent.epochs": 1}
    return {"agent.baseline.group_size": 4, "agent.num_minibatches": 2}


def measure(call: Call) -> None:
    session = prepared(call.parts / "model", [*words_of(call), "agent=random"])
    reference = reference_of(call, session)
    compared: dict[str, list[dict[str, Any]]] = {
        "real pictures": [remembered(call.parts / "real.json", partial(of_real, call, session, reference))],
        "the model, unchanged": [
            remembered(call.parts / "model.json", partial(of_session, call, session, reference)) | {"minutes": 0.0}
        ],
    }
    for method in call.each("methods"):
        compared[method] = [
            remembered(call.parts / f"{method}_{seed}.json", partial(of_method, call, method, seed, reference))
            for seed in call.seeds()
        ]
    rows: list[Row] = [
        ["", "captions", *TASKS, "mean of tasks", "distance", "Vendi score, share", "minutes"]
    ]  # fmt: skip
    for name, found in compared.items():
        for split, captions in SPLITS.items():
            ones = [one[split] for one in found]
            tasks = [with_interval([one["accepted"][i] for one in ones]) for i in range(len(TASKS))]
            rows.append([
                name, captions, *tasks, with_interval([mean(one["accepted"]) for one in ones]),
                with_interval([one["distance"] for one in ones]), with_interval([one["vendi"] for one in ones]),
                with_interval([one["minutes"] for one in found]),
            ])  # fmt: skip
        samples, label = torch.tensor(found[0]["shown"]) / 255, torch.tensor(found[0]["asked"])
        view = View(samples, {"label": label}, {})
        sheet = captioned_sheet(view, len(samples), session.envs["test"].spec.class_names, columns=SHOWN)
        write_png(call.results / f"captions_{slug(name)}.png", sheet)
    write(call, "A flow model that reads captions, tuned by a rule that checks them", [
        f"`python -m benchmarks.captions methods={call.settings['methods']} seeds={call.settings['seeds']} "
        f"updates={call.settings['updates']} precision={call.settings['precision']}`: "
        "pictures and captions are those of `data=captions`, the rule is that of "
        "`reward=caption`, the model and its steps are those of `env=diffusion` with the words of captions as labels. "
        "For each task the share of 4 000 samples that show what is asked for; for captions of the training, and for "
        "those that neither model nor agent was trained on. Distances are Fréchet's to real pictures of the same "
        "captions, in a small judge's features; Vendi scores in the same features, as shares of theirs. Means over "
        "seeds, with half the width of the 95 % interval. The pictures are samples for captions that are held out, a "
        "row for each task.",
        table(rows), *(f"{name}:\n\n![](captions_{slug(name)}.png)" for name in compared),
    ])  # fmt: skip


def main(arguments: list[str]) -> None:
    run("captions", measure, arguments, methods=",".join(METHODS), seeds="1", updates="15000", precision="auto")


if __name__ == "__main__":
    main(sys.argv[1:])
