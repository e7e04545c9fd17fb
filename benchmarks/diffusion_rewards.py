"""Models of pictures tuned by rewards that rules give, at several prices: what the reward gains, and what of the
pictures is lost for it. Sprites that make small or large JPEGs, or have many colours; and digits that are restored.

python -m benchmarks.diffusion_rewards [tasks=compressible,inpaint] [methods=nft_1e-3,pathwise] [updates=5000] \
    [precision=auto]
"""

import sys
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks.files import SPRITES, mnist, published
from benchmarks.harness import Call, run
from benchmarks.judge import pictures
from benchmarks.parts import (
    QUICK_TRAINING,
    best_of_groups,
    data_of,
    final_views,
    opened,
    prepared,
    remembered,
    seconds_until,
    trained,
)
from benchmarks.report import Row, table, write
from rlgen_cli.core.specs import View
from rlgen_cli.core.stages import Helpers
from rlgen_cli.evaluation.distances import frechet, vendi
from rlgen_cli.evaluation.judge import Judge, judge_of
from rlgen_cli.evaluation.media.pictures import psnr, repaired
from rlgen_cli.evaluation.media.raster import enlarge, grid, write_png
from rlgen_cli.runs.assemble import Session
from rlgen_cli.runs.stages import fit_cached

# What each task's rewards are, and the name of their one term.
TASKS = {
    "compressible": (["reward=[jpeg_size]"], "jpeg_size"),
    "incompressible": (["reward=[jpeg_size]", "reward.terms.jpeg_size.aim=large"], "jpeg_size"),
    "colourful": (["reward=[colourfulness]"], "colourfulness"),
    "inpaint": (["task=inpaint"], "hidden_region_error"),
    "denoise": (["task=denoise"], "hidden_region_error"),
}
REPAIRS = ("inpaint", "denoise")
SCORES = {
    "compressible": "kilobytes below a blank JPEG's", "incompressible": "kilobytes beyond a blank JPEG's",
    "colourful": "colourfulness", "inpaint": "PSNR, dB, known pixels put over", "denoise": "PSNR, dB",
}  # fmt: skip
WITHOUT_GRADIENT = ("compressible", "incompressible")
NFT = ["agent=nft", "agent.group_size=32", "num_envs=256", "total_steps=100000"]
METHODS = {
    "nft": NFT,
    "nft_1e-3": [*NFT, "agent.kl_coef=1e-3"],
    "nft_1e-2": [*NFT, "agent.kl_coef=1e-2"],
    "pathwise": [
        "agent=pathwise", "agent.gamma=1", "agent.entropy_coef.start=0", "agent.entropy_coef.end=0",
        "agent.anchor.prior=none", "agent.optimizer.learning_rate.start=1e-4", "num_envs=64", "total_steps=60000",
    ],
}  # fmt: skip
QUICK = [
    "threads=1", "env.generator.updates=2", "env.generator.batch_size=4", "env.generator.network.width=4",
    "env.max_steps=2", "env.solver_steps=1",
]  # fmt: skip
BEST_OF = 8
SHOWN = 12


class Made(NamedTuple):
    """Samples with what they are to be judged by."""

    view: View
    score: Tensor  # [N], the task's


class Reference(NamedTuple):
    """What samples are compared with."""

    judge: Judge
    features: Tensor  # of the data's pictures


def words_of(call: Call, task: str) -> list[str]:
    """What all runs of a task have in common."""
    sprites = ["data=folder", f"data.path={published(call, SPRITES)}", "env.size=32", "env.channels=3"]
    common = [
        "env=diffusion", *(mnist(call) if task in REPAIRS else sprites), *TASKS[task][0], "env.condition=none",
        f"env.generator.updates={call.settings['updates']}", "env.generator.seed=1",
        f"precision={call.settings['precision']}", "eval_interval=100000", "checkpoint_interval=250000",
    ]  # fmt: skip
    return [*common, *call.pick([], QUICK)]


def reference_of(call: Call, session: Session) -> Reference:
    """A judge that takes no part in any training, and what it sees in all of the data's pictures."""
    helpers, data = Helpers(), data_of(session)
    judge = judge_of(data.train, call.pick(2000, 2), helpers)
    fit_cached(helpers.stages[0], session)
    real = torch.cat([pictures(part)[: call.pick(2000, 20)] for part in (data.train, data.test)])
    return Reference(judge, judge.features(real))


def made_by(call: Call, task: str, session: Session) -> Made:
    """Samples for held-out data, and the task's score of each."""
    views = final_views(session, "test", call.pick(2000, 40), 3)
    context = {name: torch.cat([view.context[name] for view in views]) for name in views[0].context}
    view = View(torch.cat([view.sample for view in views]), context, {})
    return Made(view, session.reward.terms[TASKS[task][1]].score(view))


def best_of(made: Made) -> Made:
    """Of each few samples the one with the highest score."""
    index = best_of_groups(made.score, BEST_OF)
    context = {name: value[index] for name, value in made.view.context.items()}
    return Made(View(made.view.sample[index], context, {}), made.score[index])


def measured(task: str, reference: Reference, made: Made) -> dict[str, Any]:
    """What samples are worth, and some of them."""
    view = made.view
    sample = repaired(view) if task in REPAIRS else view.sample
    features = reference.judge.features(sample)
    score = psnr(sample, view.context["target"]) if task in REPAIRS else float(made.score.mean())
    return {
        "score": score, "distance": frechet(features, reference.features), "vendi": vendi(features),
        "shown": (255 * sample[:SHOWN]).round().int().tolist(),
    }  # fmt: skip


def given(task: str, reference: Reference, view: View) -> dict[str, Any]:
    """Damaged pictures beside the same."""
    return measured(task, reference, Made(view._replace(sample=view.context["damaged"]), torch.zeros(0)))


def of_method(call: Call, task: str, method: str, reference: Reference) -> dict[str, Any]:
    """What a training makes, and its time."""
    words = [*words_of(call, task), *METHODS[method], *call.pick([], QUICK_TRAINING)]
    few = {"nft": ["agent.group_size=4"]}.get(method.partition("_")[0], [])
    folder = trained(call.parts / f"{task}_{method}", [*words, *call.pick([], few)])
    found = measured(task, reference, made_by(call, task, opened(folder)))
    return found | {"minutes": seconds_until(folder) / 60}


def compared_in(call: Call, task: str) -> dict[str, dict[str, Any]]:
    """What is known of each row of a task's table."""
    session = prepared(call.parts / f"{task}_model", [*words_of(call, task), "agent=random"])
    reference, made = reference_of(call, session), made_by(call, task, session)
    compared = {"the model, unchanged": measured(task, reference, made)}
    if task in REPAIRS:
        compared = {"as given": given(task, reference, made.view)} | compared
    else:
        compared[f"the best of {BEST_OF} samples"] = measured(task, reference, best_of(made))
    for method in call.each("methods"):
        path = call.parts / f"{task}_{method}.json"
        if method != "pathwise" or task not in WITHOUT_GRADIENT:
            compared[method] = remembered(path, partial(of_method, call, task, method, reference))
    return compared


def measure(call: Call) -> None:
    for task in call.each("tasks"):
        compared = compared_in(call, task)
        rows: list[Row] = [["", SCORES[task], "distance", "Vendi score", "minutes"]]
        for name, found in compared.items():
            minutes = f"{found['minutes']:.1f}" if "minutes" in found else ""
            rows.append([name, *(f"{found[key]:.3g}" for key in ("score", "distance", "vendi")), minutes])
        shown = torch.cat([torch.tensor(found["shown"]) for found in compared.values()]) / 255
        write_png(call.results / f"diffusion_rewards_{task}.png", enlarge(grid(shown, columns=SHOWN), 900))
        said = " ".join(f"{key}={call.settings[key]}" for key in ("methods", "updates", "precision"))
        write(call, f"A model of pictures tuned by a rule's reward: {task}", [
            f"`python -m benchmarks.diffusion_rewards tasks={task} {said}`, seed 1; model and steps are those of "
            "`env=diffusion`. Distances are Fréchet's of 2 000 samples for held-out data to the data's pictures, in "
            "the features of a small judge, and Vendi scores are in the same features. The number after a method is "
            "`agent.kl_coef`. A row of the picture is a row of the table, unselected.",
            table(rows), f"![](diffusion_rewards_{task}.png)",
        ], f"diffusion_rewards_{task}")  # fmt: skip


def main(arguments: list[str]) -> None:
    run(
        "diffusion_rewards", measure, arguments, tasks=",".join(TASKS), methods=",".join(METHODS), updates="5000",
        precision="auto",
    )  # fmt: skip


if __name__ == "__main__":
    main(sys.argv[1:])
