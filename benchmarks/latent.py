"""Repair by a generator of MNIST digits: policies beside search at its price, and beside what needs no generator.

    python -m benchmarks.latent [tasks=inpaint,denoise,watermark] [names=NAME;NAME] [seeds=1]

`names` are of policies and searches, separated by semicolons: REINFORCE; PPO; DQN; pathwise; best of 16;
cross-entropy method, 2 × 8; best of 1 024; cross-entropy method, 20 × 64; gradient, 4 × 200. Without it, all. A
table for each task. Every row steers a generator with 16 latents, one for each seed; searches are measured with the
first seed.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.files import mnist
from benchmarks.generators import SMALL_GAN, slug
from benchmarks.harness import Call, run
from benchmarks.judge import pictures
from benchmarks.parts import QUICK, data_of, opened, prepared, remembered, trained, training_cost
from benchmarks.report import Row, table, write
from benchmarks.rollouts import copies, starts_from
from rlgen_cli.core.seeding import stream
from rlgen_cli.core.specs import View
from rlgen_cli.core.tree import join, map_tensors
from rlgen_cli.evaluation.media.pictures import psnr, repaired, sheet
from rlgen_cli.evaluation.media.raster import enlarge, write_png
from rlgen_cli.evaluation.novelty import nearest_known
from rlgen_cli.rewards.restoration import HiddenRegionError
from rlgen_cli.runs.assemble import Session


class Search(NamedTuple):
    """A planner, and what it costs."""

    agent: str
    rounds: int
    samples: int  # tries at once


SEARCHES = {
    "best of 16": Search("best_of", 1, 16),
    "cross-entropy method, 2 × 8": Search("cem", 2, 8),
    "best of 1 024": Search("best_of", 16, 64),
    "cross-entropy method, 20 × 64": Search("cem", 20, 64),
    "gradient, 4 × 200": Search("gradient", 200, 4),
}
# By agent; the reward of all but the last is not differentiated.
POLICIES = {"REINFORCE": "policy_gradient", "PPO": "ppo", "DQN": "dqn", "pathwise": "pathwise"}
POLISHED = "pathwise, then 20 gradient steps"
LATENTS = "env.generator.latent=16"
SEARCHING = ["env=latent_gan", "reward=consistency", "steering=set_latent", "env.max_steps=1"]
AT_ONCE = 200  # pictures that are repaired together
HEAD: Row = ["", "seed", "PSNR, dB", "of what was damaged", "ms a picture", "generator calls", "updates", "minutes"]
SMALL = [*QUICK, *SMALL_GAN, "agent.network.body.width=16"]
SMALL_DQN = ["agent.batch_size=8", "agent.learning_starts=64", "agent.gradient_steps=1"]


def batches(count: int) -> list[Tensor]:
    """The first test pictures, by index, in parts that are repaired together."""
    return list(torch.arange(count).split(AT_ONCE))


def damaged(session: Session, count: int) -> View:
    """The first test pictures, with the same damage for every method."""
    env, views = session.envs["test"], []
    for i, index in enumerate(batches(count)):
        rng = stream(0, f"repair/{i}", session.device)
        views.append(env.view(starts_from(env).start_from(index.to(session.device), rng)))
    return join(*views)


def score(view: View, made: Tensor) -> Row:
    """Peak signal-to-noise ratio of the whole picture and of what was damaged."""
    shown = view._replace(sample=made)
    error, whole = -HiddenRegionError()(shown), psnr(repaired(shown), view.context["target"])
    return [f"{whole:.2f}", f"{-10 * error.clamp(min=1e-10).log10().mean():.2f}"]


def median(x: Tensor) -> Tensor:
    """Of 3 × 3 pixels."""
    around = F.unfold(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3)
    return around.median(1).values.view_as(x)


def nearest(view: View, candidates: Tensor) -> Tensor:
    """The picture that fits best where the damaged one is as it was, or all of it where nothing is known."""
    return candidates[nearest_known(view.context["damaged"], view.context["known_mask"], candidates)]


class Repair:
    """A task with a seed: damaged pictures, and rows of its table."""

    def __init__(self, call: Call, task: str, names: list[str], seed: int) -> None:
        self.call, self.task, self.names, self.seed, self.count = call, task, names, seed, call.pick(2000, 8)
        plain = self.planner("random", [])
        self.view, self.candidates = damaged(plain, self.count), pictures(data_of(plain).train)

    def words(self) -> list[str]:
        """Of every session of this task."""
        return [f"task={self.task}", LATENTS, *mnist(self.call), f"seed={self.seed}"]

    def planner(self, agent: str, words: list[str]) -> Session:
        """A session whose planner searches a generator that is trained already."""
        small = self.call.pick([], SMALL_GAN)
        folder = self.call.parts / f"{self.task}_generator_{self.seed}"
        return prepared(folder, [*SEARCHING, *self.words(), f"agent={agent}", *words, *small])

    def add(self, name: str, make: Callable[[], Tensor], calls: int, run: Path | None = None) -> Row:
        """A row of what `make` makes of the damaged pictures, by a policy that a run trained, perhaps."""

        def measured() -> Row:
            began = time.perf_counter()
            made = make()
            cost = 1000 * (time.perf_counter() - began) / self.count
            if name in POLICIES:
                write_png(self.call.results / f"repair_{self.task}_{slug(name)}.png", self.picture(made))
            learned = ["", ""] if run is None else training_cost(run)
            return [name, self.seed, *score(self.view, made), f"{cost:.2g}", calls, *learned]

        row: Row = remembered(self.call.parts / f"{self.task}_{slug(name)}_{self.seed}.json", measured)
        print(self.task, *row, flush=True)
        return row

    def picture(self, made: Tensor) -> Tensor:
        """The first repairs, beside what was given and the truth."""
        first = map_tensors(lambda field: field[:64], self.view._replace(sample=made))
        return enlarge(sheet(first, 64))

    def made_by(self, session: Session) -> Callable[[], Tensor]:
        """What the session's agent makes of the damaged pictures."""
        parts = batches(self.count)
        return lambda: torch.cat(
            [copies(session, index, f"repair/{i}", at_once=AT_ONCE).sample for i, index in enumerate(parts)]
        )

    def without_generator(self) -> list[Row]:
        """Rows of what needs no generator."""
        given = self.view.context["damaged"]
        average = self.candidates.mean(0, keepdim=True)
        return [
            self.add("as given", lambda: given, 0),
            *([self.add("median filter", lambda: median(given), 0)] if self.task != "inpaint" else []),
            self.add("mean of the training pictures", lambda: average.expand(self.count, -1, -1, -1), 0),
            self.add("nearest of 5 000 training pictures", lambda: nearest(self.view, self.candidates[:5000]), 0),
        ]

    def search(self, name: str) -> Row:
        """The row of a planner."""
        agent, rounds, samples = SEARCHES[name]
        if self.call.quick:
            rounds, samples = 2, 8
        words = [f"agent.rounds={rounds}", f"agent.samples={samples}"]
        words += [f"agent.elite={max(2, samples // 8)}"] if agent == "cem" else []
        session = self.planner(agent, words)
        return self.add(name, self.made_by(session), rounds * samples)

    def learn(self, name: str) -> list[Row]:
        """The row of a policy, and of a few gradient steps from where pathwise led."""
        small = self.call.pick([], [*SMALL, *(SMALL_DQN if name == "DQN" else [])])
        words = ["experiment=repair", f"agent={POLICIES[name]}", *self.words(), *small]
        folder = trained(self.call.parts / f"{self.task}_{name}_{self.seed}", words)
        session = opened(folder)
        row = self.add(name, self.made_by(session), session.envs["test"].spec.max_steps, folder)
        return [row, self.polish(folder)] if name == "pathwise" else [row]

    def polish(self, folder: Path) -> Row:
        """The row of a few gradient steps from where a policy led."""
        words = [f"agent.start.guide={folder}", "agent.samples=1", "agent.rounds=20", "agent.learning_rate=0.02"]
        return self.add(POLISHED, self.made_by(self.planner("gradient", words)), 21)


def rows_of(call: Call, task: str, names: list[str]) -> list[Row]:
    """All rows: what needs no training with the first seed, and each policy with every seed."""
    repairs = [Repair(call, task, names, seed) for seed in call.seeds()]
    first = [*repairs[0].without_generator(), *(repairs[0].search(name) for name in SEARCHES if name in names)]
    learned = [row for name in POLICIES if name in names for repair in repairs for row in repair.learn(name)]
    return [HEAD, *first, *learned]


def measure(call: Call) -> None:
    asked = call.settings["names"]
    names = asked.split(";") if asked else [*SEARCHES, *POLICIES]
    for task in call.each("tasks")[: call.pick(None, 2)]:
        rows = rows_of(call, task, names)
        title = f"repair_{task}" + ("" if set(names) >= set(POLICIES) else f"_{slug('_'.join(names))}")
        shown = [name for name in POLICIES if name in names]
        write(call, f"Repairing MNIST digits through a generator: {task}", [
            f"`python -m benchmarks.latent tasks={task} seeds={call.settings['seeds']}`: "
            f"the first {call.pick(2000, 8):,} test pictures, the same "
            "damage for every row. What is known for certain is put over what is made. Search sees the damaged picture "
            "alone (`reward=consistency`); policies had the truth of training pictures as their reward, and see the "
            "damaged picture alone when they act; the reward is differentiated for pathwise alone. Every row steers a "
            "generator with 16 latents, one for each seed. Pictures, of the last seed: given, repaired, truth; the "
            "first 64, unselected.",
            table(rows), *(f"{name}: ![](repair_{task}_{slug(name)}.png)" for name in shown),
        ], title)  # fmt: skip


def main(arguments: list[str]) -> None:
    run("latent", measure, arguments, tasks="inpaint,denoise,watermark", names="", seeds="1")


if __name__ == "__main__":
    main(sys.argv[1:])
