"""Every two choices of the shipped groups together: `python -m tests.combinations` goes through all of them, in about an
hour; test_combinations.py has those of environment, agent and network, and a sample of the others.

A command line with two choices (and what goes with them) is composed, made small, built, and stepped once. It works, or
it is refused in one sentence that begins with the key that is wrong. Everything else is a fault of the program.
"""

import itertools
import os
import re
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf

from benchmarks import files
from rlgen_cli.cli.listing import GROUPS
from rlgen_cli.config.compose import composed
from rlgen_cli.config.locate import choices
from rlgen_cli.core.errors import UserError
from rlgen_cli.runs.assemble import Session
from rlgen_cli.runs.trainer import Loop
from tests import shipped
from tests.conftest import write_chorales, write_clip, write_diffusers, write_idx, write_oracle, write_tunes

BUILT = "built"
SENTENCE = re.compile(r"^[^\s:]+: [^\n]+[.?…]$|^\S+: [^\n]+FOLDER\.?$")  # the key, and one line
# What Hydra, OmegaConf and torch say, and a list of choices that came out empty.
FOREIGN = re.compile(r"hydra\.cc|Could not override|full_key|mismatched input|Traceback|=\.$")
# What the user has to give with a choice, as far as no other choice follows from it.
GIVEN = {
    "agent=ppo_tune": ["agent.anchor.prior=start"],
    "reward=clip": ["reward.terms.clip.prompt=star", "reward.terms.clip.model=clip"],
    "+reward/term=clip": ["reward.terms.clip.prompt=star", "reward.terms.clip.model=clip"],
    "reward=function": ["reward.terms.function.path=mine:with_torch"],
    "+reward/term=function": ["reward.terms.function.path=mine:with_torch"],
    "reward=palette": ["reward.terms.palette.reference=a.png"],
    "+reward/term=palette": ["reward.terms.palette.reference=a.png"],
    "reward=style": ["reward.terms.style.reference=a.png"],
    "+reward/term=style": ["reward.terms.style.reference=a.png"],
    "task=style": ["reward.terms.style.reference=a.png"],
    "+reward/term=prior": ["reward.terms.prior.source=note_rnn.npz", "env.history=1"],
    "reward=rl_tuner": ["reward.terms.prior.source=note_rnn.npz", "env.history=1"],
    "data=folder": ["data.path=pictures"],
    "data=midi": ["data.path=tunes"],
    "data=text": ["data.path=text.txt"],
    "data=jsb": ["data.path=chorales.json"],
    "data=oracle": ["data.path=oracle.npz"],
    "data=mnist": ["data.root=idx"],
    "data=kmnist": ["data.root=idx"],
    "data=fashion_mnist": ["data.root=idx"],
    "generator=file": ["env.generator.path=generator"],
    "generator=diffusers": ["env.generator.path=diffusion"],
    "backup=g": ["agent.prior.source=note_rnn.npz", "+network@agent.prior.network=note_rnn", "env.history=1"],
}  # fmt: skip


# Published files stand below paths.data, for experiments and data that read them.
PUBLISHED = ("experiment=",)


def words_of(group: str) -> list[str]:
    """The choices of a group as words of a command line."""
    return [f"{'+' if group == 'reward/term' else ''}{group}={name}" for name in choices(group)]


def pairs() -> Iterator[tuple[str, ...]]:
    """Every two choices of different groups."""
    for one, other in itertools.combinations(GROUPS.values(), 2):
        yield from itertools.product(words_of(one), words_of(other))


def triples(*groups: str) -> Iterator[tuple[str, ...]]:
    """Every choice of some groups with every other."""
    return itertools.product(*map(words_of, groups))


def every_pair_of_three(*groups: str) -> list[tuple[str, ...]]:
    """Some of `triples`, so few that every two choices still come together."""
    missing = {pair for row in triples(*groups) for pair in itertools.combinations(row, 2)}
    chosen = []
    for enough in (3, 2, 1):  # pairs that a row brings, the richest rows first
        for row in triples(*groups):
            new = missing.intersection(itertools.combinations(row, 2))
            if len(new) >= enough:
                missing -= new
                chosen.append(row)
    return chosen


def write_place(folder: Path) -> None:
    """The files that choices read, by the names in GIVEN."""
    shipped.write_files(folder)
    for name, write in files.STAND_INS.items():
        (folder / "published" / name).parent.mkdir(parents=True, exist_ok=True)
        write(folder / "published" / name)
    write_idx(folder / "idx")
    write_tunes(folder / "tunes")
    write_chorales(folder / "chorales.json")
    write_oracle(folder / "oracle.npz")
    write_clip(folder / "clip")
    write_diffusers(folder / "diffusion", size=8)
    (folder / "text.txt").write_text("the quick brown fox jumps over the lazy dog " * 9)
    (folder / "pictures").mkdir()
    for i in range(12):
        shipped.write_picture(folder / "pictures" / f"{i}.png", side=12 + i)


def given(words: tuple[str, ...]) -> list[str]:
    """The command line with what the user has to give."""
    more = dict.fromkeys(more for word in words for more in GIVEN.get(word, []))
    return [*words, *more, *(["paths.data=published"] if any(word.startswith(PUBLISHED) for word in words) else [])]


def outcome(action: Callable[[], object]) -> str:
    """`BUILT`, the sentence that refuses it, or the traceback."""
    try:
        action()
    except UserError as error:
        return str(error)
    except Exception:
        return traceback.format_exc()
    return BUILT


def built(words: list[str]) -> None:
    """Compose a command line, made small, build it and step it once."""
    whole = unlocked(composed("train", words))
    step_once(shipped.build(shipped.small(whole, []) if "reward" in whole else whole))


def unlocked(whole: DictConfig) -> DictConfig:
    OmegaConf.set_struct(whole, False)
    return whole


def step_once(session: Session) -> None:
    """Act once in every environment, and let everything learn."""
    loop = Loop(session)
    loop.renew(*loop.play())


def fault(words: list[str]) -> str | None:
    """What is wrong with how a command line ends, if anything is."""
    return wrong(outcome(lambda: built(words)))


def fault_of(whole: DictConfig) -> str | None:
    """The same of a config that is small already."""
    return wrong(outcome(lambda: step_once(shipped.build(whole))))


def wrong(said: str) -> str | None:
    """An outcome that is a fault of the program: a traceback, or a refusal that is no sentence of ours."""
    if said == BUILT or (SENTENCE.match(said) and not FOREIGN.search(said)):
        return None
    return said


def faults(rows: Iterable[tuple[str, ...]]) -> list[str]:
    """The faults of several command lines, each with its line."""
    found = []
    for row in rows:
        words = given(row)
        said = fault(words)
        if said is not None:
            found.append(f"{' '.join(words)}: {said}")
    return found


def main() -> None:
    """All pairs, in a folder of their own; what is wrong is printed as it is found."""
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        sys.path.append(folder)
        os.environ["RLGEN_CACHE"] = f"{folder}/cache"
        torch.set_num_threads(1)
        write_place(Path(folder))
        rows = list(pairs())
        for i, row in enumerate(rows):
            for said in faults([row]):
                print(f"{i} of {len(rows)}: {said}", flush=True)


if __name__ == "__main__":
    main()
