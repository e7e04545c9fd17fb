"""Melodies after a folder of MIDI files and after Bach's sopranos: whether they keep key and metre as the examples do.

python -m benchmarks.tunes                   trains DQN twice by the defaults (about ten minutes on one core)
python -m benchmarks.tunes folder=FOLDER     goes on in FOLDER, or only reports it
"""

import sys
from pathlib import Path

import torch
from omegaconf import OmegaConf
from torch import Tensor

from benchmarks.judge import SHARED
from benchmarks.report import RESULTS, finished, new_run, seconds_until, table, write
from rlgen_cli.core import checkpoint
from rlgen_cli.runs.assemble import Session, build
from rlgen_cli.cli.main import composed, register_resolvers
from rlgen_cli.evaluation.evaluate import unique
from rlgen_cli.domains.music.midi import write_midi
from rlgen_cli.evaluation.media.raster import write_png
from rlgen_cli.evaluation.media.registry import medium
from rlgen_cli.evaluation.media.music import Music
from rlgen_cli.domains.music.notes import MAJOR
from rlgen_cli.domains.music.scores import Groove, Novelty, ScaleConsistency
from rlgen_cli.evaluation.rollout import rollout
from rlgen_cli.core.seeding import stream
from rlgen_cli.runs.trainer import train
from rlgen_cli.core.types import Context, View

SETS = {
    "nottingham": ["data=midi", f"data.path={SHARED / 'nottingham'}"],
    "jsb": ["data=jsb", f"data.path={SHARED / 'jsb' / 'Jsb16thSeparated.json'}"],
}
COUNT, KEPT = 1000, 3


@torch.no_grad()
def made(session: Session, agent: object) -> View:
    """`COUNT` pieces of an agent."""
    env, rng = session.envs["test"], stream(0, "tunes")
    return env.view(rollout(env, agent, env.reset(COUNT, rng), rng).final)  # type: ignore[arg-type]


def row(session: Session, what: str, sample: Tensor) -> list[object]:
    env = session.envs["test"]
    view = View(sample, Context(), torch.full((len(sample),), sample.shape[1]))
    onset = env.encoding.roll(sample).onset.any(2).float().sum(0)  # [S]
    share = onset / onset.sum()
    in_scale = torch.tensor([p % 12 in MAJOR for p in range(128)])
    roll = env.encoding.roll(sample)
    home = in_scale[roll.pitch[roll.onset]].float().mean()
    scores = [score(view).mean() for score in (ScaleConsistency(spec=env.spec), Groove(spec=env.spec))]
    far = Novelty(real=session.data.train, limit=20_000)(view).mean()
    numbers = [float(home), *(float(score) for score in scores), float(share[::4].sum()), float(share[::2].sum())]
    return [what, *(f"{number:.3f}" for number in numbers), f"{float(far):.2f}", f"{100 * unique(sample):.0f}"]


def main() -> None:
    register_resolvers()
    given = dict(argument.split("=", 1) for argument in sys.argv[1:])
    folder = Path(given["folder"]) if "folder" in given else new_run("tunes")
    parts = [" ".join(str(__doc__).split("\n\n")[0].split("\n"))]
    for name, words in SETS.items():
        run = folder / name
        if not finished(run):
            train(build(composed("train", ["env=music", *words, "threads=1", "total_steps=150000"])), run)
        session = build(OmegaConf.load(run / "config.yaml"), fresh=False)
        session.agent.load_state_dict(checkpoint.load_newest(run, "cpu", frozenset(["agent"]))["agent"])
        view = made(session, session.agent)
        rows: list[list[object]] = [[
            name, "notes of C major", "scale consistency", "groove", "notes on beats", "on eighths",
            "distance to the data", "different, %",
        ]]  # fmt: skip
        rows.append(row(session, "the data, held out", session.data.test.tokens))
        rows.append(row(session, "DQN", view.sample))
        chance = build(composed("train", ["env=music", *words, "agent=random", "threads=1"]))
        rows.append(row(session, "random", made(chance, chance.agent).sample))
        shown = medium(session.envs["test"])
        assert isinstance(shown, Music)
        write_png(RESULTS / f"tunes_{name}.png", shown.sheet(view))
        for i, piece in enumerate(shown.pieces(view.sample)[:KEPT]):
            write_midi(RESULTS / f"tunes_{name}_{i}.mid", piece)
        files = ", ".join(f"[{i}](tunes_{name}_{i}.mid)" for i in range(KEPT))
        parts += [
            table(rows),
            f"{seconds_until(run, 10**9) / 60:.1f} minutes. MIDI: {files}.",
            f"![{name}](tunes_{name}.png)",
        ]
    write("tunes", "Melodies after examples", parts)


if __name__ == "__main__":
    main()
