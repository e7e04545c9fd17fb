"""Text, character by character, after this project's own pages: a sequence model, and PPO on it for a discriminator.

python -m benchmarks.text
"""

import re
import sys
from itertools import pairwise
from pathlib import Path

import torch

from benchmarks.report import new_run, seconds_until, table, write
from rlgen_cli.runs.assemble import Session, build
from rlgen_cli.cli.main import composed, register_resolvers
from rlgen_cli.evaluation.evaluate import unique
from rlgen_cli.runs.pretrain import pretrain
from rlgen_cli.evaluation.rollout import rollout
from rlgen_cli.core.seeding import stream
from rlgen_cli.runs.trainer import train

COUNT, LENGTH = 1000, 40
PAGES = sorted([*Path("docs").glob("*.md"), Path("README.md"), Path("CHANGELOG.md")])
WORD = re.compile(r"[A-Za-z]+")


@torch.no_grad()
def lines(session: Session) -> tuple[list[str], float]:
    """What the agent writes, and the share of it that is different."""
    env, rng = session.envs["test"], stream(0, "text", session.device)
    sample = env.view(rollout(env, session.agent, env.reset(COUNT, rng), rng).final).sample
    return env.encoding.text(sample), unique(sample)  # type: ignore[attr-defined]


def row(name: str, written: list[str], different: float, text: str, minutes: str) -> list[object]:
    """Share of whole words, and of neighbouring pairs of them, that occur in the text."""
    known = set(WORD.findall(text))
    pairs = set(pairwise(WORD.findall(text)))
    inner = [WORD.findall(line)[1:-1] for line in written]  # the first and the last may be cut
    words = [word for line in inner for word in line]
    both = [pair for line in inner for pair in pairwise(line)]
    right = sum(word in known for word in words) / max(len(words), 1)
    in_pairs = sum(pair in pairs for pair in both) / max(len(both), 1)
    return [name, f"{right:.1%}", f"{in_pairs:.1%}", f"{different:.1%}", minutes]


def main() -> None:
    register_resolvers()
    folder = new_run("text")
    folder.mkdir(parents=True)
    path = folder / "pages.txt"
    text = " ".join(" ".join(page.read_text(encoding="utf-8") for page in PAGES).split())
    path.write_text(text, encoding="utf-8")
    words = ["env=music", "data=text", f"data.path={path}", "encoding=tokens", f"env.length={LENGTH}", "env.prime=none"]
    model, prior = build(composed("pretrain", words)), folder / "prior"
    pretrain(model, prior)
    tuned = build(composed("train", [
        *words, "agent=ppo", "network=lstm", "reward=adversarial_sequence", f"agent.anchor.prior={prior}",
        "total_steps=400000",
    ]))  # fmt: skip
    train(tuned, folder / "ppo")
    chance = build(composed("train", [*words, "agent=random", "reward=adversarial_sequence"]))
    real = [text[i : i + LENGTH] for i in range(0, len(text) - LENGTH, len(text) // COUNT)]
    parts = {name: lines(session) for name, session in
             {"random": chance, "maximum likelihood": model, "PPO for a discriminator": tuned}.items()}  # fmt: skip
    minutes = {
        "maximum likelihood": f"{seconds_until(prior, sys.maxsize) / 60:.1f}",
        "PPO for a discriminator": f"{seconds_until(folder / 'ppo', sys.maxsize) / 60:.1f}",
    }
    rows: list[list[object]] = [["", "words that occur", "pairs of words that occur", "different", "minutes"]]
    rows.append(row("the text itself", real, 1.0, text, ""))
    rows += [row(name, *part, text, minutes.get(name, "")) for name, part in parts.items()]
    shown = "\n".join(f"{name}:\n" + "\n".join(f"    {line}" for line in part[0][:6]) for name, part in parts.items())
    write("text", "Text after this project's own pages", [
        f"`python -m benchmarks.text`: {len(text)} characters of docs, README and changelog; {COUNT} samples of "
        f"{LENGTH} characters, one seed. Whole words inside a sample, and pairs of neighbours, looked up in the text.",
        table(rows), "The first six of each, unselected:", f"```\n{shown}\n```",
    ])  # fmt: skip


if __name__ == "__main__":
    main()
