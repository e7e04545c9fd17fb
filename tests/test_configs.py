"""Data and components in places other than the default ones; test_every_choice.py has each choice by itself."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from rlgen_cli.config.locate import choices as names
from rlgen_cli.config.locate import config_folder
from rlgen_cli.core.errors import UserError
from rlgen_cli.runs.assemble import assemble
from tests.conftest import (
    compose,
    small,
    write_chorales,
    write_idx,
    write_oracle,
    write_tunes,
)


def data_for(name: str, tmp_path: Path) -> list[str]:
    """What a dataset needs to be had without a network, and the environment that takes it."""
    music = ["env=music", "~data.count", "~env.bar"]
    if name == "folder":
        from PIL import Image

        (tmp_path / "images").mkdir()
        for i in range(20):
            Image.new("L", (20, 20), 10 * i).save(tmp_path / "images" / f"{i}.png")
        return [f"data.path={tmp_path / 'images'}", "~data.per_class"]
    if name == "glyphs":
        return []
    if name == "leaves":
        return ["data.count=20", "~data.per_class"]
    if name == "captions":
        return ["env=diffusion", "agent=random", "reward=[symmetry]"]
    if name == "melodies":
        return ["env=music"]
    if name == "midi":
        return [*music, f"data.path={write_tunes(tmp_path / 'tunes')}"]
    if name == "jsb":
        path = write_chorales(tmp_path / "chorales.json")
        return [*music, f"data.path={path}", "encoding=chorale", "reward=harmony"]
    if name == "text":
        (tmp_path / "text.txt").write_text("the quick brown fox jumps over the lazy dog " * 9)
        return [*music, f"data.path={tmp_path / 'text.txt'}", "encoding=tokens", "reward=adversarial_sequence"]
    if name == "oracle":
        path = write_oracle(tmp_path / "oracle.npz")
        return ["env=music", f"data.path={path}", "encoding=tokens", "reward=adversarial_sequence", "data.count=20"]
    return [f"data.root={write_idx(tmp_path / 'idx')}", "~data.per_class"]


def without(overrides: list[str]) -> list[str]:
    """`~key` removes the override of that key."""
    dropped = tuple(o[1:] for o in overrides if o.startswith("~"))
    return [o for o in overrides if not o.startswith("~") and not o.startswith(tuple(f"{d}=" for d in dropped) or "\0")]


@pytest.mark.parametrize("name", names("data"))
def test_data(name, tmp_path):
    built = assemble(compose(*without(small(f"data={name}", *data_for(name, tmp_path)))))
    assert built.data is not None
    assert all(len(split[0]) for split in built.data)


@pytest.mark.parametrize("name", names("encoding"))
def test_encoding(name):
    reward = "sequence_novelty" if name != "chorale" else "harmony"
    built = assemble(compose(*small("env=music", f"encoding={name}", f"reward={reward}")))
    assert built.data is not None
    assert len(built.data.train.tokens) > 0


@pytest.mark.parametrize("name", names("steering"))
@pytest.mark.parametrize("env", ["latent_gan", "latent_music"])
def test_steering(name, env):
    assemble(compose(*small(f"env={env}", f"steering={name}", "agent=random")))


@pytest.mark.parametrize("agent", ["ppo", "dqn"])
@pytest.mark.parametrize("name", names("network"))
def test_network(name, agent):
    env = {"lstm": "music", "note_rnn": "music", "denoiser": "diffusion"}.get(name, "pixel")
    words = [word for word in small(f"agent={agent}", f"network={name}", f"env={env}") if "agent.network" not in word]
    if (name, agent) == ("denoiser", "dqn"):
        with pytest.raises(UserError, match="agent: DQN cannot act in this environment"):
            assemble(compose(*words))
        return
    more = ["agent.network.body.updates=2"] if name == "vae" else []
    assemble(compose(*words, *more))


@pytest.mark.parametrize("name", names("network/body"))
def test_body(name):
    env = "music" if name == "last_token" else "pixel"
    words = [w for w in small("agent=ppo", f"network/body={name}", f"env={env}") if "agent.network" not in w]
    assemble(compose(*words, "agent.network.maps=null"))


@pytest.mark.parametrize("name", names("network/recurrent"))
@pytest.mark.parametrize("agent", ["ppo", "dqn"])
def test_recurrent(name, agent):
    assemble(compose(*small(f"agent={agent}", f"network/recurrent={name}"), "agent.network.maps=null"))


@pytest.mark.parametrize("name", names("reward/term"))
def test_adding_a_term_is_one_override(name):
    base = "target" if name == "coverage" else "coverage"
    terms = set(compose(f"reward={base}", f"+reward/term={name}").reward.terms)
    file = (config_folder() / "reward" / "term" / f"{name}.yaml").read_text()
    several = file.startswith("# @package reward.terms\n")  # a YAML of terms that belong together
    assert terms == {base} | (set(OmegaConf.create(file)) if several else {name})
