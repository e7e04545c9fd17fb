"""Text, character by character, after this project's own pages: a sequence model at several temperatures, and PPO on it
for a discriminator.

    python -m benchmarks.text [seeds=1,2,3]

Words and pairs of neighbouring words that a model writes are looked up in the text. Sampling at a lower temperature
gives more known words and a worse likelihood of held-out text, so PPO gains only where its curve lies above that of the
model that it began with.
"""

import re
import sys
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import torch

from benchmarks.harness import ROOT, Call, run
from benchmarks.parts import (
    QUICK,
    data_of,
    likelihood_cost,
    likelihood_model,
    opened,
    pretrained,
    trained,
    training_cost,
    with_planner,
)
from benchmarks.report import Line, Row, curves, summary, table, write
from benchmarks.rollouts import samples
from rlgen_cli.agents.maximum_likelihood import MaximumLikelihood
from rlgen_cli.core.seeding import stream
from rlgen_cli.domains.music.encodings import Tokens
from rlgen_cli.runs.assemble import Session

LENGTH, SHOWN = 40, 6
TEMPERATURES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)
WORD = re.compile(r"[A-Za-z]+")
PRIOR, PPO = "maximum likelihood", "PPO for a discriminator"
LEARNED = ["agent=ppo_tune", "network=lstm", "reward=adversarial_sequence", "total_steps=400000"]
HEAD: Row = ["", "seed", "temperature", "nats a held-out character", "words that occur, %", "pairs that occur, %",
             "different pairs", "different lines, %"]  # fmt: skip
SMALL_MODEL = ["eval_episodes=4", "epochs=1", "agent.network.recurrent.width=8"]
SMALL = [*QUICK, "total_steps=640", "agent.network.recurrent.width=8"]


class Written(NamedTuple):
    """What a model writes, measured."""

    words: float  # that occur in the text, percent
    pairs: float  # of neighbouring words that occur in it, percent
    different_pairs: int
    different: float  # lines, percent

    def cells(self) -> Row:
        """Of a line of the table."""
        return [f"{self.words:.1f}", f"{self.pairs:.1f}", f"{self.different_pairs:,}", f"{self.different:.1f}"]


class Known:
    """Words of a text, and neighbouring pairs of them, which others are looked up in."""

    def __init__(self, text: str) -> None:
        words = WORD.findall(text)
        self.words, self.pairs = set(words), set(pairwise(words))

    def __call__(self, lines: list[str]) -> Written:
        """Without the first and last word of each line, which may be cut."""
        inner = [WORD.findall(line)[1:-1] for line in lines]
        words = [word for line in inner for word in line]
        pairs = [pair for line in inner for pair in pairwise(line)]
        right = sum(word in self.words for word in words) / max(len(words), 1)
        in_pairs = sum(pair in self.pairs for pair in pairs) / max(len(pairs), 1)
        return Written(100 * right, 100 * in_pairs, len(set(pairs)), 100 * len(set(lines)) / len(lines))


def lines_of(session: Session, count: int) -> list[str]:
    """What a session writes."""
    encoding = session.envs["test"].spec.sequence().encoding
    assert isinstance(encoding, Tokens)
    return encoding.text(samples(session, count, "text").sample)


@torch.no_grad()
def held_out(session: Session, agent: MaximumLikelihood) -> float:
    """−log p of a character of held-out text."""
    tokens, rng = data_of(session).test.tokens, stream(0, "text likelihood")
    return float(torch.cat([agent.nll(part, rng).mean(0) for part in tokens.split(250)]).mean())


class Text:
    """The pages that models are fitted to, and the words that all of them are trained with."""

    def __init__(self, call: Call) -> None:
        self.call, self.count = call, call.pick(1000, 20)
        path = pages(call)
        self.text = path.read_text(encoding="utf-8")
        self.known = Known(self.text)
        size = f"env.length={LENGTH}"
        self.words = ["env=music", "data=text", f"data.path={path}", "encoding=tokens", size, "env.prime=none"]
        self.small_model = call.pick([], SMALL_MODEL)

    def likely(self, seed: int) -> Path:
        """The run of a model by maximum likelihood."""
        return pretrained(self.call.parts / f"prior_{seed}", [*self.words, f"seed={seed}", *self.small_model])

    def tuned(self, seed: int) -> Path:
        """The run of PPO that begins with it."""
        learning = [*LEARNED, f"agent.anchor.prior={self.likely(seed)}", f"seed={seed}", *self.call.pick([], SMALL)]
        return trained(self.call.parts / f"ppo_{seed}", [*self.words, *learning])

    def at_temperatures(self, folder: Path) -> list[tuple[float, float, Written]]:
        """Temperature, nats a held-out character and what the run's policy writes."""
        session, agent = likelihood_model([*self.words, *self.small_model], folder)
        found = []
        for temperature in TEMPERATURES:
            agent.temperature = agent.policy.temperature = temperature
            found.append((temperature, held_out(session, agent), self.known(lines_of(session, self.count))))
        return found


def pages(call: Call) -> Path:
    """The project's pages in one line, as they were when the benchmark began; a quick run takes the README alone."""
    path = call.parts / "pages.txt"
    if not path.exists():
        files = [*call.pick(sorted((ROOT / "docs").glob("*.md")), []), ROOT / "README.md"]
        files += call.pick([ROOT / "CHANGELOG.md"], [])
        text = " ".join(" ".join(file.read_text(encoding="utf-8") for file in files).split())
        path.write_text(text[: call.pick(None, 3000)], encoding="utf-8")
    return path


def measure(call: Call) -> None:
    text = Text(call)
    real = [text.text[i : i + LENGTH] for i in range(0, len(text.text) - LENGTH, len(text.text) // text.count)]
    shown = {"random": lines_of(with_planner([*text.words, "reward=adversarial_sequence"], "random"), text.count)}
    rows: list[Row] = [HEAD, ["the text itself", "", "", "", *text.known(real).cells()]]
    rows.append(["random", "", "", "", *text.known(shown["random"]).cells()])
    cost: list[Row] = [["", "seed", "updates", "minutes"]]
    words: dict[str, Line] = {}
    pairs: dict[str, Line] = {}
    for seed in call.seeds():
        for name, folder in ((PRIOR, text.likely(seed)), (PPO, text.tuned(seed))):
            found = text.at_temperatures(folder)
            words[f"{name}, seed {seed}"] = [(nats, made.words) for _, nats, made in found]
            pairs[f"{name}, seed {seed}"] = [(nats, made.pairs) for _, nats, made in found]
            rows += [[name, seed, f"{t:g}", f"{nats:.3f}", *made.cells()] for t, nats, made in found]
            cost.append([name, seed, *(likelihood_cost(folder) if name == PRIOR else training_cost(folder))])
            shown[name] = lines_of(opened(folder), text.count)
    panels = {"words that occur, %": words, "pairs that occur, %": pairs}
    curves(call.results / "text.png", panels, "nats a held-out character")
    examples = "\n".join("\n    ".join([f"{name}:", *lines[:SHOWN]]) for name, lines in shown.items())
    write(call, "Text after this project's own pages", [
        f"{summary(__doc__)} {len(text.text):,} characters of docs, README and changelog, of which the last tenth is "
        f"held out; {text.count} samples of {LENGTH} characters a row. Further left and higher is better.",
        "![curves](text.png)", table(rows), table(cost),
        f"The first {SHOWN} of each, unselected, at temperature 1:", f"```\n{examples}\n```",
    ])  # fmt: skip


def main(arguments: list[str]) -> None:
    run("text", measure, arguments, seeds="1,2,3")


if __name__ == "__main__":
    main(sys.argv[1:])
