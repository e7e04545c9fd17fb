"""ORGAN's sweep: fifths between successive notes (tonality) against sounding like the data, for each share λ of the
discriminator.

python -m benchmarks.organ                    trains the prior and six agents (about a quarter of an hour on one core)
python -m benchmarks.organ folder=FOLDER      goes on in FOLDER, or only reports it

By hand: rlgen train -m experiment=organ reward.share=0,0.2,0.4,0.6,0.8,1
"""

import sys
from pathlib import Path

import torch
from omegaconf import OmegaConf

from benchmarks.report import RESULTS, finished, new_run, seconds_until, table, write
from rlgen_cli.core import checkpoint
from rlgen_cli.runs.assemble import Session, build
from rlgen_cli.cli.main import composed, register_resolvers
from rlgen_cli.evaluation.evaluate import unique
from rlgen_cli.evaluation.media.raster import write_png
from rlgen_cli.evaluation.media.registry import medium
from rlgen_cli.runs.pretrain import pretrain
from rlgen_cli.domains.music.scores import Novelty, RatioOfSteps, Tonality
from rlgen_cli.evaluation.rollout import rollout
from rlgen_cli.core.seeding import stream
from rlgen_cli.runs.trainer import train

SHARES = ("0.0", "0.2", "0.4", "0.6", "0.8", "1.0")
COUNT = 4000
# The authors' logs: λ 0 (pure RL) .630 with 56 % different, .2 .777, .4 .443, .6 .450, maximum likelihood .053.
PUBLISHED = {"prior": ".053", "0.0": ".630 (56 % different)", "0.2": ".777", "0.4": ".443", "0.6": ".450"}


def loaded(run: Path) -> Session:
    session = build(OmegaConf.load(run / "config.yaml"), fresh=False)
    session.agent.load_state_dict(checkpoint.load_newest(run, session.device, frozenset(["agent"]))["agent"])
    return session


@torch.no_grad()
def row(session: Session, name: str, minutes: float) -> list[object]:
    """Scores of `COUNT` samples, and a picture of the first."""
    env, rng = session.envs["test"], stream(0, "organ")
    view = env.view(rollout(env, session.agent, env.reset(COUNT, rng), rng).final)
    write_png(RESULTS / f"organ_{name}.png", medium(env).sheet(view, 12))
    fifths, steps = Tonality(spec=env.spec)(view).mean(), RatioOfSteps(spec=env.spec)(view).mean()
    far = Novelty(real=session.data.train, limit=2000)(view).mean()
    entropy = torch.bincount(view.sample.flatten(), minlength=36).float() / view.sample.numel()
    spread = float((-(entropy * entropy.clamp(min=1e-9).log()).sum()).exp())
    return [
        name, f"{float(fifths):.3f}", PUBLISHED.get(name, ""), f"{100 * unique(view.sample):.1f}", view.sample.shape[1],
        f"{float(steps):.3f}", f"{float(far):.2f}", f"{spread:.1f}", f"{minutes:.1f}",
    ]  # fmt: skip


def main() -> None:
    register_resolvers()
    given = dict(argument.split("=", 1) for argument in sys.argv[1:])
    folder = Path(given["folder"]) if "folder" in given else new_run("organ")
    prior = folder / "prior"
    if not finished(prior):
        words = ["encoding=tokens", "env.prime=none", "env.length=36", "data.bars=16", "threads=1"]
        pretrain(build(composed("pretrain", words)), prior)
    rows: list[list[object]] = [[
        "λ", "tonality", "authors' tonality", "different, %", "length", "ratio of steps", "distance to the data",
        "notes in use", "minutes",
    ]]  # fmt: skip
    rows.append(row(loaded(prior), "prior", seconds_until(prior, 10**9) / 60))
    for share in SHARES:
        run = folder / f"share_{share}"
        if not finished(run):
            words = ["experiment=organ", f"agent.anchor.prior={prior}", "threads=1"]
            train(build(composed("train", [*words, f"reward.share={share}"])), run)
        rows.append(row(loaded(run), share, seconds_until(run, 10**9) / 60))
    parts = [
        " ".join(str(__doc__).split("\n\n")[0].split("\n")),
        "Melodies of 36 notes of equal length out of 36 pitches, from the embedded generator (not the authors' folk "
        f"tunes); {COUNT} samples a row, one seed. «Notes in use» is the exponential of the pitches' entropy.",
        table(rows),
        *(f"λ {name}: ![λ {name}](organ_{name}.png)" for name in ("prior", *SHARES)),
    ]
    write("organ", "ORGAN's sweep", parts)


if __name__ == "__main__":
    main()
