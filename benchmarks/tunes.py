"""Melodies after a folder of MIDI files and after Bach's sopranos: whether they keep key and metre as the examples do.

    python -m benchmarks.tunes [steps=150000]

Trains DQN twice, with the defaults.
"""

import sys

import torch
from torch import Tensor

from benchmarks.files import CHORALES, NOTTINGHAM, published
from benchmarks.harness import Call, run
from benchmarks.parts import QUICK, data_of, music_of, opened, seconds_until, trained, with_planner
from benchmarks.report import Row, summary, table, write
from benchmarks.rollouts import samples
from rlgen_cli.core.specs import View
from rlgen_cli.domains.music.midi import write_midi
from rlgen_cli.domains.music.notes import MAJOR
from rlgen_cli.domains.music.scores import Groove, ScaleConsistency, SequenceNovelty, music_encoding
from rlgen_cli.evaluation.evaluate import unique
from rlgen_cli.evaluation.media.raster import write_png
from rlgen_cli.runs.assemble import Session

KEPT = 3  # pieces as MIDI
HEAD: Row = [
    "notes of C major", "scale consistency", "groove", "notes on beats", "on eighths", "distance to the data",
    "different, %",
]  # fmt: skip
SMALL = [*QUICK, "agent.batch_size=8", "agent.learning_starts=64", "agent.network.body.width=16"]


def row(session: Session, what: str, sample: Tensor) -> Row:
    """What is to be said of tokens [N, T, F]."""
    spec = session.envs["test"].spec
    view = View(sample, {}, {"num_tokens": torch.full((len(sample),), sample.shape[1])})
    roll = music_encoding(spec).roll(sample)
    onset = roll.onset.any(2).float().sum(0)  # [S]
    share = onset / onset.sum()
    in_scale = torch.tensor([pitch % 12 in MAJOR for pitch in range(128)])
    home = in_scale[roll.pitch[roll.onset]].float().mean()
    scale, groove = (score(view).mean() for score in (ScaleConsistency(spec=spec), Groove(spec=spec)))
    away = SequenceNovelty(real=data_of(session).train, limit=20_000)(view).mean()
    numbers = [float(home), float(scale), float(groove), float(share[::4].sum()), float(share[::2].sum())]
    return [what, *(f"{number:.3f}" for number in numbers), f"{float(away):.2f}", f"{100 * unique(sample):.0f}"]


def about(call: Call, name: str, words: list[str]) -> list[str]:
    """The paragraphs about one set of examples."""
    steps = f"total_steps={call.settings['steps']}"
    folder = trained(call.parts / name, ["env=music", *words, "threads=1", steps, *call.pick([], SMALL)])
    session, chance = opened(folder), with_planner(["env=music", *words, "threads=1"], "random")
    count = call.pick(1000, 20)
    made = samples(session, count, "tunes", at_once=1000)
    rows: list[Row] = [
        [name, *HEAD],
        row(session, "the data, held out", data_of(session).test.tokens),
        row(session, "DQN", made.sample),
        row(session, "random", samples(chance, count, "tunes", at_once=1000).sample),
    ]
    shown = music_of(session)
    write_png(call.results / f"tunes_{name}.png", shown.sheet(made))
    for i, piece in enumerate(shown.pieces(made.sample[:KEPT])):
        write_midi(call.results / f"tunes_{name}_{i}.mid", piece)
    files = ", ".join(f"[{i}](tunes_{name}_{i}.mid)" for i in range(KEPT))
    return [table(rows), f"{seconds_until(folder) / 60:.1f} minutes. MIDI: {files}.", f"![{name}](tunes_{name}.png)"]


def measure(call: Call) -> None:
    nottingham = about(call, "nottingham", ["data=midi", f"data.path={published(call, NOTTINGHAM)}"])
    chorales = about(call, "jsb", ["data=jsb", f"data.path={published(call, CHORALES)}"])
    write(call, "Melodies after examples", [summary(__doc__), *nottingham, *chorales])


def main(arguments: list[str]) -> None:
    run("tunes", measure, arguments, steps="150000")


if __name__ == "__main__":
    main(sys.argv[1:])
