"""Each YAML composes and binds to its signature, and each class reads every key its YAML gives."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from rlgen_cli.config.locate import choices as names
from rlgen_cli.config.locate import config_folder
from rlgen_cli.runs.assemble import assemble
from tests.conftest import (
    compose,
    small,
    write_chorales,
    write_clip,
    write_idx,
    write_note_rnn,
    write_oracle,
    write_picture,
    write_tunes,
)
from tests.test_generator_from_file import saved


def data_for(name: str, tmp_path: Path) -> list[str]:
    """What a dataset needs to be had without a network, and the environment that takes it."""
    music = ["env=music", "~data.count", "~env.bar"]
    if name == "folder":
        from PIL import Image

        (tmp_path / "images").mkdir()
        for i in range(20):
            Image.new("L", (20, 20), 10 * i).save(tmp_path / "images" / f"{i}.png")
        return [f"data.path={tmp_path / 'images'}", "~data.per_class"]
    if name in ("glyphs", "pixel", "tiny", "latent_gan"):
        return []
    if name in ("melodies", "music"):
        return ["env=music"]
    if name == "latent_music":
        return ["env=latent_music"]
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


@pytest.mark.parametrize("name", names("env"))
def test_env(name):
    assemble(compose(*small(f"env={name}")))


@pytest.mark.parametrize("name", names("encoding"))
def test_encoding(name):
    reward = "sequence_novelty" if name != "chorale" else "harmony"
    built = assemble(compose(*small("env=music", f"encoding={name}", f"reward={reward}")))
    assert built.data is not None
    assert len(built.data.train.tokens) > 0


def for_agent(name: str) -> list[str]:
    if name in ("best_of", "cem", "gradient", "pathwise"):
        return ["brush=stroke"]
    return ["env=music"] if name == "maximum_likelihood" else []


@pytest.mark.parametrize("name", names("agent"))
def test_agent(name):
    assemble(compose(*small(f"agent={name}", *for_agent(name))))


# What each group of an agent's components needs beside it.
COMPONENTS = {"replay": "dqn", "backup": "dqn", "exploration": "dqn", "target_update": "dqn", "optimizer": "ppo"}
COMPONENTS |= {"baseline": "policy_gradient"}
WARM = ["agent.temperature.start=0.1", "agent.temperature.end=0.1"]


@pytest.mark.parametrize(("group", "name"), [(group, name) for group in COMPONENTS for name in names(group)])
def test_component_of_an_agent(group, name, tmp_path):
    words = [f"agent={COMPONENTS[group]}", f"{group}={name}"]
    if group == "backup" and name != "max":
        words += WARM
    if name == "g":
        note_rnn = write_note_rnn(tmp_path / "note_rnn.npz")
        words += [
            "env=music",
            f"agent.prior.source={note_rnn}",
            "network=note_rnn",
            "+network@agent.prior.network=note_rnn",
        ]
        words = [word for word in small(*words) if ".network.body.width" not in word and ".channels=" not in word]
        assemble(compose(*words, "env.history=1"))
        return
    more = ["agent.baseline.group_size=2"] if name == "group" else []
    assemble(compose(*small(*words), *more))


@pytest.mark.parametrize("name", names("brush"))
def test_brush(name):
    assemble(compose(*small(f"brush={name}", "agent=random")))


@pytest.mark.parametrize("name", names("start"))
def test_start(name):
    assemble(compose(*small(f"start={name}", "agent=random")))


@pytest.mark.parametrize("name", names("steering"))
@pytest.mark.parametrize("env", ["latent_gan", "latent_music"])
def test_steering(name, env):
    assemble(compose(*small(f"env={env}", f"steering={name}", "agent=random")))


@pytest.mark.parametrize("agent", ["ppo", "dqn"])
@pytest.mark.parametrize("name", names("network"))
def test_network(name, agent):
    env = "music" if name in ("lstm", "note_rnn") else "pixel"
    words = [word for word in small(f"agent={agent}", f"network={name}", f"env={env}") if "agent.network" not in word]
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


def for_reward(name: str, tmp_path: Path) -> list[str]:
    """The environment that a reward judges, and what it needs."""
    kinds = {"harmony": ["env=music", "encoding=chorale"], "function": ["reward.terms.function.path=mine:ink"]}
    if name in ("rl_tuner", "prior"):
        return ["env=music", f"reward.terms.prior.source={write_note_rnn(tmp_path / 'note_rnn.npz')}", "env.history=1"]
    if name == "clip":
        return [f"reward.terms.clip.model={write_clip(tmp_path / 'clip')}", "reward.terms.clip.prompt=a star"]
    if name in ("palette", "style"):
        picture = write_picture(tmp_path / "reference.png")
        return ["env=latent_gan", f"reward.terms.{name}.reference={picture}"]
    if name in ("latent_gan", "steer", "diversity", "sharpness", "symmetry", "jpeg_size"):
        return ["env=latent_gan"]
    if name == "latent_music":
        return ["env=latent_music"]
    if name == "colourfulness":
        return ["env=latent_gan", "env.channels=3"]
    if name in ("reconstruction", "consistency"):
        return ["env=latent_gan", "damage=centre_hole"]
    pictures = (
        "pixel",
        "tiny",
        "coverage",
        "target",
        "adversarial",
        "classifier",
        "adversarial_classifier",
        "ink_cost",
    )
    return kinds.get(name, [] if name in pictures else ["env=music"])


@pytest.mark.parametrize("name", names("reward"))
def test_reward(name, tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text("def ink(x):\n    return x.mean((1, 2, 3))\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    words = [f"reward={name}", *for_reward(name, tmp_path)]
    built = assemble(compose(*small(*words)))
    assert set(built.reward.terms) == set(compose(*words).reward.terms)


@pytest.mark.parametrize("name", names("reward/term"))
def test_adding_a_term_is_one_override(name):
    base = "target" if name == "coverage" else "coverage"
    terms = set(compose(f"reward={base}", f"+reward/term={name}").reward.terms)
    file = (config_folder() / "reward" / "term" / f"{name}.yaml").read_text()
    several = file.startswith("# @package reward.terms\n")  # a YAML of terms that belong together
    assert terms == {base} | (set(OmegaConf.create(file)) if several else {name})


@pytest.mark.parametrize("name", names("generator"))
def test_generator(name, tmp_path):
    if name == "file":  # more of it in test_generator_from_file.py
        words = [f"env.generator.path={saved(tmp_path / 'own')}", "reward=sharpness"]
        built = assemble(compose(*small("env=latent_gan", "generator=file", *words)))
        assert built.source is not None
        assert built.source.generator.latent == 6
        return
    env = "latent_music" if name == "melody" else "latent_gan"
    built = assemble(compose(*small(f"env={env}", f"generator={name}")))
    assert [stage.name for stage in built.stages] == ["generator"]


@pytest.mark.parametrize("name", names("damage"))
def test_damage(name):
    built = assemble(compose(*small("env=latent_gan", f"damage={name}", "reward=reconstruction")))
    assert {"damaged", "known_mask", "target"} <= built.envs["train"].spec.context.keys()


@pytest.mark.parametrize("name", names("task"))
def test_task(name, tmp_path):
    words = ["reward.terms.style.reference=" + str(write_picture(tmp_path / "a.png"))] if name == "style" else []
    assemble(compose(*small("env=latent_gan", f"task={name}", *words)))
