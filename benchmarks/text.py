"""Text, character by character, after this project's own pages: a sequence model, and PPO on it for a discriminator.

python -m benchmarks.text
"""

import re
import sys
from itertools import pairwise
from typing import NamedTuple

from benchmarks.harness import ROOT, Call, run
from benchmarks.parts import QUICK, opened, pretrained, seconds_until, trained, updates_of, with_planner
from benchmarks.report import Row, table, write
from benchmarks.rollouts import samples
from rlgen_cli.domains.music.encodings import Tokens
from rlgen_cli.evaluation.evaluate import unique
from rlgen_cli.runs.assemble import Session

LENGTH, SHOWN = 40, 6
WORD = re.compile(r"[A-Za-z]+")
SMALL_MODEL = ["eval_episodes=4", "epochs=1", "agent.network.recurrent.width=8"]
SMALL = [*QUICK, "total_steps=640", "agent.network.recurrent.width=8"]


class Written(NamedTuple):
    """What a model writes."""

    lines: list[str]
    different: float  # share


def written(session: Session, count: int) -> Written:
    """`count` lines."""
    encoding = session.envs["test"].spec.sequence().encoding
    assert isinstance(encoding, Tokens)
    sample = samples(session, count, "text").sample
    return Written(encoding.text(sample), unique(sample))


def row(name: str, made: Written, text: str, cost: Row) -> Row:
    """Share of whole words, and of neighbouring pairs of them, that occur in the text."""
    known, pairs = set(WORD.findall(text)), set(pairwise(WORD.findall(text)))
    inner = [WORD.findall(line)[1:-1] for line in made.lines]  # the first and the last may be cut
    words = [word for line in inner for word in line]
    both = [pair for line in inner for pair in pairwise(line)]
    right = sum(word in known for word in words) / max(len(words), 1)
    in_pairs = sum(pair in pairs for pair in both) / max(len(both), 1)
    return [name, f"{right:.1%}", f"{in_pairs:.1%}", f"{made.different:.1%}", *cost]


def pages(call: Call) -> str:
    """The project's pages in one line, as they were when the benchmark began; a quick run takes the README alone."""
    path = call.parts / "pages.txt"
    if not path.exists():
        files = [*call.pick(sorted((ROOT / "docs").glob("*.md")), []), ROOT / "README.md"]
        files += call.pick([ROOT / "CHANGELOG.md"], [])
        text = " ".join(" ".join(file.read_text(encoding="utf-8") for file in files).split())
        path.write_text(text[: call.pick(None, 3000)], encoding="utf-8")
    return path.read_text(encoding="utf-8")


def measure(call: Call) -> None:
    text, count = pages(call), call.pick(1000, 20)
    path = call.parts / "pages.txt"
    words = ["env=music", "data=text", f"data.path={path}", "encoding=tokens", f"env.length={LENGTH}", "env.prime=none"]
    prior = pretrained(call.parts / "prior", [*words, *call.pick([], SMALL_MODEL)])
    learning = ["agent=ppo_tune", "network=lstm", "reward=adversarial_sequence", f"agent.anchor.prior={prior}"]
    tuned = trained(call.parts / "ppo", [*words, *learning, "total_steps=400000", *call.pick([], SMALL)])
    chance = with_planner([*words, "reward=adversarial_sequence"], "random")
    real = [text[i : i + LENGTH] for i in range(0, len(text) - LENGTH, len(text) // count)]
    made = {"the text itself": Written(real, 1.0), "random": written(chance, count),
            "maximum likelihood": written(opened(prior), count),
            "PPO for a discriminator": written(opened(tuned), count)}  # fmt: skip
    costs: dict[str, Row] = {
        "maximum likelihood": ["", f"{seconds_until(prior, stage='model') / 60:.1f}"],
        "PPO for a discriminator": [f"{updates_of(tuned):,}", f"{seconds_until(tuned) / 60:.1f}"],
    }
    rows: list[Row] = [["", "words that occur", "pairs of words that occur", "different", "updates", "minutes"]]
    rows += [row(name, part, text, costs.get(name, ["", ""])) for name, part in made.items()]
    shown = "\n".join(
        f"{name}:\n" + "\n".join(f"    {line}" for line in part.lines[:SHOWN]) for name, part in list(made.items())[1:]
    )
    write(call, "Text after this project's own pages", [
        f"`python -m benchmarks.text`: {len(text)} characters of docs, README and changelog; {count} samples of "
        f"{LENGTH} characters, one seed. Whole words inside a sample, and pairs of neighbours, looked up in the text.",
        table(rows), "The first six of each, unselected:", f"```\n{shown}\n```",
    ])  # fmt: skip


def main(arguments: list[str]) -> None:
    run("text", measure, arguments)


if __name__ == "__main__":
    main(sys.argv[1:])
