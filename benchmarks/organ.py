"""ORGAN's sweep: fifths between successive notes (tonality) against sounding like the data, for each share λ of the
discriminator.

    python -m benchmarks.organ [fractions=0.0,0.2,0.4,0.6,0.8,1.0]

By hand: rlgen train -m experiment=organ reward.adversarial_fraction=0,0.2,0.4,0.6,0.8,1
"""

import sys

import torch

from benchmarks.harness import Call, run
from benchmarks.parts import QUICK, data_of, opened, pretrained, seconds_until, trained
from benchmarks.report import Row, summary, table, write
from benchmarks.rollouts import samples
from rlgen_cli.domains.music.scores import RatioOfSteps, SequenceNovelty, Tonality
from rlgen_cli.evaluation.evaluate import unique
from rlgen_cli.evaluation.media.raster import write_png
from rlgen_cli.evaluation.media.registry import medium
from rlgen_cli.runs.assemble import Session

# The authors' logs: λ 0 (pure RL) .630 with 56 % different, .2 .777, .4 .443, .6 .450, maximum likelihood .053.
PUBLISHED = {"prior": ".053", "0.0": ".630 (56 % different)", "0.2": ".777", "0.4": ".443", "0.6": ".450"}
PRIOR = ["encoding=tokens", "env.prime=none", "env.length=36", "data.bars=16", "threads=1"]
SMALL_PRIOR = ["eval_episodes=4", "epochs=1", "data.count=40", "agent.network.recurrent.width=8"]
SMALL = [*QUICK, "total_steps=288", "data.count=40", "agent.network.recurrent.width=8"]


@torch.no_grad()
def row(call: Call, session: Session, name: str, minutes: float) -> Row:
    """Scores of many samples, and a picture of the first."""
    env, view = session.envs["test"], samples(session, call.pick(4000, 50), "organ")
    write_png(call.results / f"organ_{name}.png", medium(env).sheet(view, 12))
    fifths, steps = Tonality(spec=env.spec)(view).mean(), RatioOfSteps(spec=env.spec)(view).mean()
    away = SequenceNovelty(real=data_of(session).train, limit=2000)(view).mean()
    share = torch.bincount(view.sample.flatten(), minlength=36).float() / view.sample.numel()
    notes = float((-(share * share.clamp(min=1e-9).log()).sum()).exp())
    return [
        name, f"{float(fifths):.3f}", PUBLISHED.get(name, ""), f"{100 * unique(view.sample):.1f}", view.sample.shape[1],
        f"{float(steps):.3f}", f"{float(away):.2f}", f"{notes:.1f}", f"{minutes:.1f}",
    ]  # fmt: skip


def measure(call: Call) -> None:
    prior = pretrained(call.parts / "prior", [*PRIOR, *call.pick([], SMALL_PRIOR)])
    rows: list[Row] = [[
        "λ", "tonality", "authors' tonality", "different, %", "length", "ratio of steps", "distance to the data",
        "notes in use", "minutes",
    ]]  # fmt: skip
    rows.append(row(call, opened(prior), "prior", seconds_until(prior, stage="model") / 60))
    fractions = call.each("fractions")[: call.pick(None, 2)]
    for fraction in fractions:
        words = ["experiment=organ", f"agent.anchor.prior={prior}", "threads=1"]
        words += [f"reward.adversarial_fraction={fraction}", *call.pick([], SMALL)]
        folder = trained(call.parts / f"fraction_{fraction}", words)
        rows.append(row(call, opened(folder), fraction, seconds_until(folder) / 60))
    write(call, "ORGAN's sweep", [
        summary(__doc__),
        "Melodies of 36 notes of equal length out of 36 pitches, from the embedded generator (not the authors' folk "
        f"tunes); {call.pick(4000, 50)} samples a row, one seed. «Notes in use» is the exponential of the pitches' "
        "entropy.",
        table(rows),
        *(f"λ {name}: ![λ {name}](organ_{name}.png)" for name in ("prior", *fractions)),
    ])  # fmt: skip


def main(arguments: list[str]) -> None:
    run("organ", measure, arguments, fractions="0.0,0.2,0.4,0.6,0.8,1.0")


if __name__ == "__main__":
    main(sys.argv[1:])
