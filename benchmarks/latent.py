"""Repair by a generator of MNIST digits: policies beside search at its price, and beside what needs no generator.

python -m benchmarks.latent [tasks=inpaint,denoise,watermark] [names=REINFORCE,DQN,pathwise] [seed=1]
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.judge import SHARED
from benchmarks.report import RESULTS, new_run, table, write
from rlgen_cli.runs.assemble import Session, build
from rlgen_cli.cli.main import composed, register_resolvers
from rlgen_cli.evaluation.media.raster import enlarge, write_png
from rlgen_cli.evaluation.media.pictures import psnr, repaired, sheet
from rlgen_cli.domains.latent.repair_scores import Truth
from rlgen_cli.evaluation.rollout import rollout
from rlgen_cli.core.seeding import stream
from rlgen_cli.runs.trainer import train
from rlgen_cli.core.types import View

COUNT = 200  # test pictures, the first
SEARCH = {"best of 1 024": ("best_of", 16, 64), "cross-entropy method, 20 × 64": ("cem", 20, 64),
          "gradient, 4 × 200": ("gradient", 200, 4)}  # agent, rounds, tries at once  # fmt: skip
# What each makes, by experiment; the reward of all but the last is not differentiated.
POLICIES = {"REINFORCE": "repair", "DQN": "repair_dqn", "pathwise": "repair_pathwise"}


def session(words: list[str], seed: int) -> Session:
    return build(composed("train", [*words, f"data.root={SHARED / 'mnist'}", f"seed={seed}"]))


def damaged(built: Session) -> View:
    """The first test pictures, the same damage for every method."""
    env = built.envs["test"]
    return env.view(env.begin(torch.arange(COUNT), stream(0, "repair", built.device)))  # type: ignore[attr-defined]


def score(view: View, made: Tensor) -> list[str]:
    """Peak signal-to-noise ratio of the whole picture and of what was damaged."""
    assert view.context.target is not None
    shown = view._replace(sample=made)
    error, whole = -Truth()(shown), psnr(repaired(shown), view.context.target)
    return [f"{whole:.2f}", f"{-10 * error.clamp(min=1e-10).log10().mean():.2f}"]


def timed(make: Callable[[], Tensor]) -> tuple[Tensor, str]:
    """What it makes, and milliseconds a picture."""
    began = time.perf_counter()
    made = make()
    return made, f"{1000 * (time.perf_counter() - began) / COUNT:.2g}"


def median(x: Tensor) -> Tensor:
    """Of 3 × 3 pixels."""
    around = F.unfold(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3)
    return around.median(1).values.view_as(x)


def nearest(view: View, pictures: Tensor) -> Tensor:
    """The picture that fits best where the damaged one is as it was, or all of it where nothing is known."""
    given, known = view.context.given, view.context.known
    assert given is not None
    assert known is not None
    counted = (known | ~known.flatten(1).any(1).view(-1, 1, 1, 1)).float().flatten(1)
    flat, seen = pictures.flatten(1), given.flatten(1)
    away = counted @ flat.square().T - 2 * (counted * seen) @ flat.T
    return pictures[away.argmin(1)]


def act(built: Session) -> Tensor:
    """What the session's agent makes of the damaged pictures."""
    env: Any = built.envs["test"]
    rng = stream(0, "repair", built.device)
    states = env.begin(torch.arange(COUNT), rng)
    return env.view(rollout(env, built.agent, states, rng).final).sample


def learned(task: str, name: str, seed: int) -> tuple[Session, Path, float]:
    """A policy, trained; its folder; minutes."""
    built, folder = session([f"experiment={POLICIES[name]}", f"task={task}"], seed), new_run(f"repair_{task}")
    began = time.perf_counter()
    train(built, folder)
    return built, folder, (time.perf_counter() - began) / 60


def rows_of(task: str, names: list[str], seed: int) -> list[list[object]]:
    rows: list[list[object]] = []
    search = ["env=latent_gan", "data=mnist", f"task={task}", "reward=fit", "env.action=place", "env.max_steps=1"]
    plain = session([*search, "agent=random"], seed)
    view, data = damaged(plain), plain.data
    assert data is not None
    assert view.context.given is not None
    pictures = data.train.images.float() / 255

    def add(name: str, made: Tensor, cost: str, calls: object, minutes: str = "") -> None:
        rows.append([name, *score(view, made), cost, calls, minutes])
        print(task, *rows[-1], flush=True)

    add("as given", view.context.given, "", 0)
    if task != "inpaint":
        add("median filter", *timed(lambda: median(view.context.given)), 0)  # type: ignore[arg-type]
    add("mean of the training pictures", pictures.mean(0, keepdim=True).expand(COUNT, -1, -1, -1), "", 0)
    add("nearest of 5 000 training pictures", *timed(lambda: nearest(view, pictures[:5000])), 0)
    for name in [name for name in SEARCH if name in names]:
        agent, rounds, tries = SEARCH[name]
        words = [f"agent={agent}", f"agent.rounds={rounds}", f"agent.samples={tries}"]
        built = session([*search, *words], seed)
        add(name, *timed(lambda built=built: act(built)), rounds * tries)
    for name in [name for name in POLICIES if name in names]:
        built, folder, minutes = learned(task, name, seed)
        made, cost = timed(lambda built=built: act(built))
        add(name, made, cost, built.envs["test"].spec.max_steps, f"{minutes:.1f}")
        if name == next(name for name in POLICIES if name in names):
            write_png(RESULTS / f"{title(task, names)}.png", enlarge(sheet(view._replace(sample=made), 64)))
        if name == "pathwise":
            words = ["agent=gradient", f"agent.guide={folder}", "agent.samples=1", "agent.rounds=20", "agent.rate=0.02"]
            built = session([*search, *words], seed)
            add("pathwise, then 20 gradient steps", *timed(lambda built=built: act(built)), 21)
    return rows


def title(task: str, names: list[str]) -> str:
    """What the results are called."""
    return f"repair_{task}" + ("" if set(names) >= set(POLICIES) else "_" + "_".join(names).lower())


def main(tasks: list[str], names: list[str], seed: int) -> None:
    register_resolvers()
    head: list[object] = [
        "",
        "PSNR, dB",
        "of what was damaged",
        "ms a picture",
        "generator calls",
        "minutes of training",
    ]
    for task in tasks:
        rows = rows_of(task, names, seed)
        write(title(task, names), f"Repairing MNIST digits through a generator: {task}", [
            f"`python -m benchmarks.latent tasks={task}`, seed {seed}, the first {COUNT} test pictures, the same "
            "damage for every row. What is known for certain is put over what is made. Search sees the damaged picture "
            "alone (`reward=fit`); policies had the truth of training pictures as their reward, and see the damaged "
            "picture alone when they act; the reward is differentiated for pathwise alone. REINFORCE and DQN "
            "steer a generator with 16 latents, the others one with 64. Pictures: given, the first policy's, truth; "
            "the first 64, unselected.",
            table([head, *rows]), f"![]({title(task, names)}.png)",
        ])  # fmt: skip


if __name__ == "__main__":
    given = dict(argument.split("=") for argument in sys.argv[1:])
    chosen = given["names"].split(",") if "names" in given else [*SEARCH, *POLICIES]
    main(given.get("tasks", "inpaint,denoise,watermark").split(","), chosen, int(given.get("seed", "1")))
