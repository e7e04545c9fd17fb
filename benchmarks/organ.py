"""ORGAN's sweep: fifths between successive notes (tonality) against sounding like the data, for each share λ of the
discriminator.

    python -m benchmarks.organ [fractions=0.0,0.2,0.4,0.6,0.8,1.0] [seeds=1,2,3]

By hand: rlgen train -m experiment=organ reward.adversarial_fraction=0,0.2,0.4,0.6,0.8,1
"""

import sys
from pathlib import Path
from typing import TypeAlias

import torch

from benchmarks.harness import Call, run
from benchmarks.judge import mean
from benchmarks.parts import (
    QUICK,
    data_of,
    opened,
    pretrained,
    records,
    remembered,
    seconds_until,
    trained,
    updates_of,
)
from benchmarks.report import Row, summary, table, with_interval, write
from benchmarks.rollouts import samples
from rlgen_cli.domains.music.scores import RatioOfSteps, SequenceNovelty, Tonality
from rlgen_cli.evaluation.evaluate import unique
from rlgen_cli.evaluation.media.raster import write_png
from rlgen_cli.evaluation.media.registry import medium
from rlgen_cli.runs.assemble import Session

# The authors' logs: λ 0 (pure RL) .630 with 56 % different, .2 .777, .4 .443, .6 .450, maximum likelihood .053.
PUBLISHED = {"prior": ".053", "0.0": ".630 (56 % different)", "0.2": ".777", "0.4": ".443", "0.6": ".450"}
PRIOR = ["encoding=tokens", "env.prime=none", "env.length=36", "data.bars=16", "threads=1"]
Scores: TypeAlias = dict[str, float]
SMALL_PRIOR = ["eval_episodes=4", "epochs=1", "data.count=40", "agent.network.recurrent.width=8"]
SMALL = [*QUICK, "total_steps=288", "data.count=40", "agent.network.recurrent.width=8"]


@torch.no_grad()
def scores(session: Session, count: int) -> Scores:
    """Scores of many samples."""
    env, view = session.envs["test"], samples(session, count, "organ")
    share = torch.bincount(view.sample.flatten(), minlength=36).float() / view.sample.numel()
    return {
        "tonality": float(Tonality(spec=env.spec)(view).mean()),
        "different": 100 * unique(view.sample),
        "steps": float(RatioOfSteps(spec=env.spec)(view).mean()),
        "distance": float(SequenceNovelty(real=data_of(session).train, limit=2000)(view).mean()),
        "notes": float((-(share * share.clamp(min=1e-9).log()).sum()).exp()),
    }


@torch.no_grad()
def shown(call: Call, name: str, session: Session) -> None:
    """Piano rolls of twelve samples."""
    write_png(call.results / f"organ_{name}.png", medium(session.envs["test"]).sheet(samples(session, 12, "organ"), 12))


def row(name: str, found: list[Scores]) -> Row:
    """A line of the table: means over seeds."""
    each = [
        with_interval([one[key] for one in found]) for key in ("tonality", "different", "steps", "distance", "notes")
    ]
    updates = f"{found[0]['updates']:,.0f}"
    return [name, each[0], PUBLISHED.get(name, ""), *each[1:], updates, f"{mean(one['minutes'] for one in found):.1f}"]


def measure(call: Call) -> None:
    count, fractions = call.pick(4000, 50), call.each("fractions")[: call.pick(None, 2)]
    found: dict[str, list[Scores]] = {name: [] for name in ("prior", *fractions)}
    for seed in call.seeds():
        prior = pretrained(call.parts / f"prior_{seed}", [*PRIOR, f"seed={seed}", *call.pick([], SMALL_PRIOR)])
        runs = {"prior": prior}
        for fraction in fractions:
            words = ["experiment=organ", f"agent.anchor.prior={prior}", "threads=1", f"seed={seed}"]
            words += [f"reward.adversarial_fraction={fraction}", *call.pick([], SMALL)]
            runs[fraction] = trained(call.parts / f"fraction_{fraction}_{seed}", words)
        for name, run_folder in runs.items():
            stage = "model" if name == "prior" else None
            updates = records(run_folder, stage)[-1]["step"] if stage else updates_of(run_folder)

            def measured(run_folder: Path = run_folder, updates: int = updates, stage: str | None = stage) -> Scores:
                cost = {"updates": updates, "minutes": seconds_until(run_folder, stage=stage) / 60}
                return scores(opened(run_folder), count) | cost

            found[name].append(remembered(call.parts / f"{name}_{seed}.json", measured))
            if seed == call.seeds()[0]:
                shown(call, name, opened(run_folder))
    head: Row = [
        "λ", "tonality", "authors' tonality", "different, %", "ratio of steps", "distance to the data", "notes in use",
        "updates", "minutes",
    ]  # fmt: skip
    write(call, "ORGAN's sweep", [
        summary(__doc__),
        "Melodies of 36 notes of equal length out of 36 pitches, from the embedded generator (not the authors' folk "
        f"tunes); {count} samples a run, means over the seeds {call.settings['seeds']}, each with a prior of its own, "
        "with half the width of the 95 % interval. «Notes in use» is the exponential of the pitches' entropy. The "
        "bonus for entropy was chosen among .02, .05 and .1 with seed 11, at λ = .2.",
        table([head, *(row(name, each) for name, each in found.items())]),
        *(f"λ {name}: ![λ {name}](organ_{name}.png)" for name in ("prior", *fractions)),
    ])  # fmt: skip


def main(arguments: list[str]) -> None:
    run("organ", measure, arguments, fractions="0.0,0.2,0.4,0.6,0.8,1.0", seeds="1,2,3")


if __name__ == "__main__":
    main(sys.argv[1:])
