"""Every value of every group that `rlgen list` shows, with the defaults of everything else: it can be trained as it
stands, or it says in one sentence what the user has to give.

What goes with a choice is in its YAML (`# Goes with: …`). The choices that need something of the user's, which is all
that is refused, are listed here and in docs/choices.md.
"""

import re
import shlex
from pathlib import Path

import pytest
import yaml

from rlgen_cli.cli import main as cli
from rlgen_cli.cli.listing import GROUPS
from rlgen_cli.config import goes_with
from rlgen_cli.config.locate import choices, config_folder
from tests.conftest import SMALL, Rlgen, write_clip, write_diffusers, write_idx, write_picture, write_tunes
from tests.test_generator_from_file import saved

CHOICES = [
    f"{'+' if group == 'reward/term' else ''}{group}={name}" for group in GROUPS.values() for name in choices(group)
]
AS_REWARDS = {f"={name}" for name in choices("reward")}
CLIP = "reward.terms.clip.prompt=star reward.terms.clip.model=clip"
GIVEN = r": must be given\.$"
PUBLISHED = r"paths\.data: names no folder, so \S+ was not found; give paths\.data=FOLDER"
# What the user has to give, and what is said where it is missing.
NEEDS = {
    "agent=ppo_tune": ("agent.anchor.prior=start", GIVEN),
    "reward=clip": (CLIP, GIVEN),
    "+reward/term=clip": (CLIP, GIVEN),
    "reward=function": ("reward.terms.function.path=score.py:ink", GIVEN),
    "+reward/term=function": ("reward.terms.function.path=score.py:ink", GIVEN),
    "reward=palette": ("reward.terms.palette.reference=picture.png", GIVEN),
    "+reward/term=palette": ("reward.terms.palette.reference=picture.png", GIVEN),
    "reward=style": ("reward.terms.style.reference=picture.png", GIVEN),
    "+reward/term=style": ("reward.terms.style.reference=picture.png", GIVEN),
    "task=style": ("reward.terms.style.reference=picture.png", GIVEN),
    "+reward/term=prior": ("reward.terms.prior.source=published/rl_tuner/note_rnn.npz env.history=1", GIVEN),
    "reward=rl_tuner": ("paths.data=published env.history=1", PUBLISHED),
    "data=folder": ("data.path=pictures", GIVEN),
    "data=midi": ("data.path=tunes", GIVEN),
    "data=text": ("data.path=score.py", GIVEN),
    "data=jsb": ("paths.data=published", PUBLISHED),
    "data=oracle": ("paths.data=published data.count=20", PUBLISHED),
    "generator=file": ("env.generator.path=own reward=sharpness env.steering.directions=4 env.size=16", GIVEN),
    "generator=diffusers": ("env.generator.path=model env.size=16", GIVEN),
    "backup=g": (
        "agent.prior.source=published/rl_tuner/note_rnn.npz +network@agent.prior.network=note_rnn network=note_rnn "
        "env.history=1",
        r"agent\.prior\.source: must name a pretrained run",
    ),
    "experiment=rl_tuner": ("paths.data=published", PUBLISHED),
    "experiment=seqgan": ("paths.data=published agent.anchor.prior=none data.count=20", PUBLISHED),
    "experiment=seqgan_mle": ("paths.data=published data.count=20", PUBLISHED),
    "experiment=sprites": ("paths.data=published", PUBLISHED),
    "experiment=painter_fine": (
        "agent.anchor.prior=none data.count=20", r"agent\.anchor\.prior: must be none, start, the folder of a run",
    ),
    "experiment=organ": ("agent.anchor.prior=start", r"agent\.anchor\.prior: must be none, start, the folder of a run"),
}  # fmt: skip
# Pictures that are downloaded where they are not found.
DOWNLOADED = ("data=mnist", "data=fashion_mnist", "data=kmnist", "experiment=")


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch, published: Path) -> None:
    """A folder with what a user may give; a training ends where everything is built."""
    Path("score.py").write_text("def ink(x):\n    return x.mean((1, 2, 3))\n" * 20)
    Path("published").symlink_to(published)
    write_idx(Path("idx/mnist"))
    write_tunes(Path("tunes"))
    Path("pictures").mkdir()
    for i in range(12):
        write_picture(Path(f"pictures/{i}.png"), side=12 + i)
    write_picture(Path("picture.png"))
    monkeypatch.delenv("RLGEN_DATA", raising=False)
    monkeypatch.setattr(cli, "trainer", lambda command: lambda session, folder: "finished")


def line(word: str, *more: str) -> list[str]:
    """The command with a choice."""
    command = "pretrain" if word.endswith(("=maximum_likelihood", "=seqgan_mle")) else "train"
    return [command, word, "device=cpu", "threads=1", *more]


@pytest.mark.parametrize(
    "word",
    [
        # A term that makes up a reward of the same name was built there.
        pytest.param(word, marks=[pytest.mark.slow] if word.removeprefix("+reward/term") in AS_REWARDS else [])
        for word in CHOICES
    ],
)
@pytest.mark.mostly_slow(4)
def test_a_choice_runs_with_the_defaults_of_all_others(word: str, rlgen: Rlgen, place: None) -> None:
    more = shlex.split(NEEDS.get(word, ("", ""))[0])
    if word.startswith(DOWNLOADED) and "paths.data=published" not in more:
        more.append(f"data.root={write_idx(Path('idx/mnist'))}" if word.startswith("data=") else "paths.data=published")
    if "clip" in word:
        write_clip(Path("clip"))
    if word == "generator=file":
        saved(Path("own"))
    if word == "generator=diffusers":
        write_diffusers(Path("model"), size=16)
    if word == "generator/network=unet2d":
        pytest.importorskip("diffusers")
    code, out, err = rlgen(*line(word, *more))
    assert code == 0, err
    assert "finished" in out


@pytest.mark.parametrize("word", NEEDS)
@pytest.mark.mostly_slow(3)
def test_a_choice_says_what_it_needs(word: str, rlgen: Rlgen, place: None) -> None:
    code, _, err = rlgen(*line(word))
    assert code == 2
    assert len(err.strip().splitlines()) == 1, err
    assert re.search(NEEDS[word][1], err.strip()), err


def test_what_was_not_chosen_is_said(rlgen: Rlgen, place: None) -> None:
    _, out, _ = rlgen("train", "damage=noise", "agent=cem", "data.per_class=2", "threads=1")
    assert out.splitlines()[:3] == [
        "env=latent_gan is taken, since it goes with damage=noise",
        "reward=reconstruction is taken, since it goes with damage=noise",
        "steering=set_latent is taken, since it goes with agent=cem",
    ]


def test_what_is_chosen_stands() -> None:
    folders = [config_folder()]
    found = goes_with.companions(["brush=stroke", "agent=random"], folders, {"env": "pixel", "agent": "dqn"}, [])
    assert found == {}
    assert (
        goes_with.companions(["experiment=resketch", "agent=cem"], folders, {"env": "pixel", "agent": "dqn"}, []) == {}
    )
    assert (
        goes_with.companions(
            ["backup=soft", "agent.temperature.start=1"], folders, {"env": "pixel", "agent": "dqn"}, []
        )
        == {}
    )
    assert goes_with.companions(["agent=cem", "brush=stroke_grid"], folders, {"env": "pixel", "agent": "dqn"}, []) == {}


@pytest.mark.slow
def test_each_job_of_a_sweep_has_its_environments_reward_and_data(rlgen: Rlgen) -> None:
    words = ["env=pixel,music", "agent=random", *SMALL, "total_steps=4", "hydra.sweep.dir=sweep"]
    code, _, err = rlgen("train", "-m", *words)
    assert code == 0, err
    configs = [yaml.safe_load(Path(f"sweep/{job}/config.yaml").read_text()) for job in range(2)]
    assert [(next(iter(node["reward"]["terms"])), node["data"]["_target_"].rpartition(".")[2]) for node in configs] == [
        ("target", "Glyphs"),
        ("adversarial_sequence", "Melodies"),
    ]


def test_every_companion_is_a_choice_or_a_key() -> None:
    for path in sorted(config_folder().rglob("*.yaml")):
        group = path.parent.relative_to(config_folder()).as_posix()
        for word in goes_with.said(group, path.stem, [config_folder()]):
            key, _, value = word.partition("=")
            assert "." in key or value in choices(key), f"{path.name}: {word}"
