"""A flow model of MNIST digits tuned by r = p(class): every agent beside the exact posterior, prior · r.

The posterior is sampled by rejection: a sample of the model is kept with probability r. Distances are to one half of
what was kept, and the floor is the distance between the halves.

python -m benchmarks.diffusion [tasks=three,even] [methods=reward_weighted] [first=nft,policy_gradient] [seeds=1,2,3] \
    [precision=auto]

The methods run with every seed, and those of `first` with the first alone.
"""

import sys
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks.files import mnist
from benchmarks.generators import slug
from benchmarks.harness import Call, run
from benchmarks.judge import FixedJudge, mean
from benchmarks.parts import (
    QUICK_TRAINING,
    best_of_groups,
    final_views,
    opened,
    prepared,
    remembered,
    seconds_until,
    trained,
)
from benchmarks.report import Row, table, with_interval, write
from rlgen_cli.core.specs import View
from rlgen_cli.evaluation.distances import frechet, vendi
from rlgen_cli.evaluation.media.raster import enlarge, grid, write_png
from rlgen_cli.runs.assemble import Session

TASKS = {"three": [3], "even": [0, 2, 4, 6, 8]}
GROUPS = [
    "agent=policy_gradient", "baseline=group", "agent.baseline.group_size=64", "agent.gamma=1",
    "agent.num_minibatches=4", "agent.optimizer.learning_rate.start=3e-4", "num_envs=256", "total_steps=200000",
]  # fmt: skip
# Each agent's settings and the steps of its training, of which some cost more than others.
METHODS = {
    "reward_weighted": [
        "agent=reward_weighted", "agent.learning_starts=10000", "agent.updates=80", "agent.ema_decay=0.998",
        "agent.optimizer.learning_rate.start=1e-3", "num_envs=256", "total_steps=204800",
    ],
    "nft": ["agent=nft", "agent.group_size=64", "num_envs=256", "total_steps=200000"],
    "trajectory_balance": ["agent=trajectory_balance", "total_steps=100000"],
    "policy_gradient": [*GROUPS, "agent.anchor.kl_coef=1"],
    "policy_gradient_without_price": [*GROUPS, "agent.anchor.prior=none"],
    "pathwise": [
        "agent=pathwise", "agent.gamma=1", "agent.anchor.kl_coef=1", "agent.optimizer.learning_rate.start=2e-4",
        "num_envs=64", "total_steps=100000",
    ],
}  # fmt: skip
SEARCHES = {
    "500 particles": ["agent=particles"],
    "guided by the classifier's gradient": ["agent=gradient", "agent.samples=1", "agent.rounds=4"],
    "best of 4 noises at each step": ["agent=best_of", "agent.samples=4", "agent.rounds=1"],
}
QUICK = [
    "threads=1", "env.size=28", "env.generator.updates=2", "env.generator.batch_size=4",
    "env.generator.network.width=4", "reward.terms.classifier.updates=2", "env.max_steps=2", "env.eval_max_steps=2",
    "env.solver_steps=1",
]  # fmt: skip
SHOWN = 12


EDGES = torch.tensor([-8.0, -5.0, -3.0, -2.0, -1.0, -0.5, -0.1, -0.01])  # between classes of log r


class Posterior(NamedTuple):
    """Samples that were kept, in two halves, and what is known of them."""

    halves: tuple[Tensor, Tensor]  # [N, 1, 28, 28] each
    features: tuple[Tensor, Tensor]
    accepted: float  # share of the model's samples
    shares: Tensor  # of the classes of log r, [classes], from the whole pool with its weights
    best: Tensor  # [N, 1, 28, 28], each the best of as many samples of the model as rejection tries


def words_of(call: Call, task: str) -> list[str]:
    """What all runs of a task have in common."""
    labels = f"reward.terms.classifier.labels={TASKS[task]}".replace(" ", "")
    common = [
        "env=diffusion", *mnist(call), "env.condition=none", f"precision={call.settings['precision']}",
        "env.generator.updates=12000", "env.generator.ema_decay=0.9995", "env.generator.seed=1",
        "env.eval_max_steps=20",
        "reward.terms.classifier.weight=1", "reward.terms.classifier.temperature=1",
        "reward.terms.classifier.label_smoothing=0", "reward.terms.classifier.updates=4000", labels,
        "eval_interval=100000", "checkpoint_interval=250000",
    ]  # fmt: skip
    return [*common, *call.pick([], QUICK)]


def made_by(session: Session, count: int, seed: int) -> Tensor:
    """So many samples [N, 1, 28, 28]."""
    return torch.cat([view.sample for view in final_views(session, "test", count, seed)])


@torch.no_grad()
def log_r(session: Session, samples: Tensor) -> Tensor:
    """log p(class) of samples, [N]."""
    score = session.reward.terms["classifier"].score
    return torch.cat([score(View(part, {}, {})) for part in samples.split(500)])


def posterior_of(call: Call, session: Session, judge: FixedJudge) -> tuple[Posterior, Tensor]:
    """The posterior by rejection, and samples of the model as it is."""
    pool = made_by(session, call.pick(20000, 60), 1)
    r = log_r(session, pool).exp()
    kept = torch.rand(len(pool), generator=torch.Generator().manual_seed(2)) < r
    kept[: call.pick(0, 4)] = True  # a quick run's model makes nothing that would be kept
    samples = pool[kept]
    half = min(len(samples) // 2, call.pick(2000, 20))
    halves = samples[:half], samples[half : 2 * half]
    shares = torch.bincount(torch.bucketize(r.log(), EDGES), weights=r, minlength=len(EDGES) + 1) / r.sum()
    tries = max(2, min(round(1 / float(r.mean())), len(pool) // 2))
    best = pool[best_of_groups(r, tries)][:half]
    features = judge(halves[0]), judge(halves[1])
    return Posterior(halves, features, float(r.mean()), shares, best), pool[:half]


def matched(log_r: Tensor, shares: Tensor) -> Tensor:
    """Which samples stay, bool [N], if each class of log r is to be as frequent as in the posterior; the class that is
    too rare by the largest factor stays whole."""
    place = torch.bucketize(log_r, EDGES)
    found = torch.bincount(place, minlength=len(EDGES) + 1) / len(log_r)
    factor = torch.where(found > 0, shares / found.clamp(min=1e-9), 0.0)
    rng = torch.Generator().manual_seed(4)
    return torch.rand(len(log_r), generator=rng) < (factor / factor.max())[place]


def measured(session: Session, judge: FixedJudge, posterior: Posterior, samples: Tensor) -> dict[str, Any]:
    """How samples compare with the posterior."""
    features, values = judge(samples), log_r(session, samples)
    first, second = posterior.features
    return {
        "log_r": float(values.mean()), "p": float(values.exp().mean()), "distance": frechet(features, second),
        "floor": frechet(first, second), "vendi": vendi(features) / vendi(second),
        "shown": (255 * samples[:SHOWN]).round().int().tolist(),
    }  # fmt: skip


def of_method(call: Call, task: str, method: str, seed: int, posterior: Posterior, judge: FixedJudge) -> dict[str, Any]:
    """A training's samples beside the posterior, and its time."""
    words = [*words_of(call, task), *METHODS[method], f"seed={seed}", *call.pick([], QUICK_TRAINING)]
    words += call.pick([], [f"{key}={value}" for key, value in quick_sizes(method).items()])
    folder = trained(call.parts / f"{task}_{method}_{seed}", words)
    session = opened(folder)
    count = len(posterior.halves[0])
    samples, minutes = made_by(session, 4 * count, 3), seconds_until(folder) / 60
    kept = matched(log_r(session, samples), posterior.shares)
    kept[: call.pick(0, 4)] = True
    again = measured(session, judge, posterior, samples[kept][:count])
    again |= {"minutes": minutes, "tries": len(kept) / float(kept.sum())}
    return measured(session, judge, posterior, samples[:count]) | {"minutes": minutes, "again": again}


def quick_sizes(method: str) -> dict[str, int]:
    """What a training of seconds has beside QUICK_TRAINING."""
    if method == "reward_weighted":
        return {"agent.learning_starts": 8, "agent.buffer_size": 16, "agent.batch_size": 4, "agent.updates": 1}
    if method == "nft":
        return {"agent.group_size": 4}
    if method == "trajectory_balance":
        return {"agent.buffer_size": 16, "agent.batch_size": 4, "agent.updates": 1}
    return {"agent.baseline.group_size": 4, "agent.num_minibatches": 2} if method.startswith("policy") else {}


def of_search(call: Call, task: str, name: str, posterior: Posterior, judge: FixedJudge) -> dict[str, Any]:
    """What search makes beside the posterior."""
    session = prepared(call.parts / f"{task}_search", [*words_of(call, task), *SEARCHES[name], "num_envs=8"])
    return measured(session, judge, posterior, made_by(session, call.pick(500, 8), 3)) | {"minutes": 0.0}


def compared_in(call: Call, task: str) -> dict[str, list[dict[str, Any]]]:
    """What is known of each row of a task's table, for each of its seeds."""
    judge = FixedJudge(call)
    session = prepared(call.parts / f"{task}_model", [*words_of(call, task), "agent=random"])
    posterior, unchanged = posterior_of(call, session, judge)
    given = {
        "the model, unchanged": unchanged,
        f"the posterior ({posterior.accepted:.1%} kept)": posterior.halves[0],
        "the best of as many samples": posterior.best,
    }
    compared = {
        name: [measured(session, judge, posterior, made) | {"minutes": 0.0}] for name, made in given.items()
    }  # fmt: skip
    for name in SEARCHES:
        path = call.parts / f"{task}_{slug(name)}.json"
        compared[name] = [remembered(path, partial(of_search, call, task, name, posterior, judge))]
    every, first = call.seeds(), call.seeds()[:1]
    for method, seeds in [(name, every) for name in call.each("methods")] + [(m, first) for m in call.each("first")]:
        found = [
            remembered(
                call.parts / f"{task}_{method}_{seed}.json",
                partial(of_method, call, task, method, seed, posterior, judge),
            )
            for seed in seeds
        ]
        again = [one["again"] for one in found]
        tries = mean(one["tries"] for one in again)
        compared |= {method: found, f"{method}, drawn again ({tries:.1f} tries a sample)": again}
    return compared


def measure(call: Call) -> None:
    for task in call.each("tasks"):
        compared = compared_in(call, task)
        rows: list[Row] = [
            ["", "E[log r]", "p(class)", "distance", "over the floor", "Vendi score, share", "minutes", "seeds"]
        ]
        for name, found in compared.items():
            over = [one["distance"] / one["floor"] for one in found]
            columns = [[one[key] for one in found] for key in ("log_r", "p", "distance", "vendi", "minutes")]
            columns.insert(3, over)
            rows.append([name, *map(with_interval, columns), len(found)])
        shown = torch.cat([torch.tensor(found[0]["shown"])[:SHOWN] for found in compared.values()]) / 255
        write_png(call.results / f"diffusion_{task}.png", enlarge(grid(shown, columns=SHOWN), 400))
        said = " ".join(f"{key}={call.settings[key]}" for key in ("methods", "first", "seeds", "precision"))
        write(call, f"A flow model of digits tuned by p(class): {task}", [
            f"`python -m benchmarks.diffusion tasks={task} {said}`: model and steps are those of `env=diffusion`, with "
            "20 steps for what is measured; r is the classifier of `reward=classifier` at temperature 1. The posterior "
            "is sampled by rejection from 20 000 samples of the model; distances are Fréchet's in the fixed judge's "
            "features to one of its halves, and the floor is that of the other half; Vendi scores in the same "
            "features, as shares of the posterior's. Means over seeds, with half the width of the 95 % interval. Drawn "
            "again: of a training's samples, those stay that make each class of log r as frequent as among the "
            "posterior's. A row of the picture is a row of the table.",
            table(rows), f"![](diffusion_{task}.png)",
        ], f"diffusion_{task}")  # fmt: skip


def main(arguments: list[str]) -> None:
    run(
        "diffusion", measure, arguments, tasks="three,even", methods="reward_weighted",
        first=",".join(method for method in METHODS if method != "reward_weighted"), seeds="1,2,3", precision="auto",
    )  # fmt: skip


if __name__ == "__main__":
    main(sys.argv[1:])
