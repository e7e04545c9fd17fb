"""Each YAML composes and binds to its signature, and each class reads every key its YAML gives."""

import pytest
from omegaconf import OmegaConf

from rlgen_cli.build import build, config_folder
from tests.conftest import compose, small, write_idx


def names(group: str) -> list[str]:
    return sorted(file.stem for file in (config_folder() / group).glob("*.yaml"))


def data_for(name: str, tmp_path) -> list[str]:
    """What a dataset needs to be had without a network."""
    if name == "folder":
        from PIL import Image

        (tmp_path / "images").mkdir()
        for i in range(20):
            Image.new("L", (20, 20), 10 * i).save(tmp_path / "images" / f"{i}.png")
        return [f"data.path={tmp_path / 'images'}", "~data.per_class"]
    if name == "glyphs":
        return []
    return [f"data.root={write_idx(tmp_path / 'idx')}", "~data.per_class"]


def without(overrides: list[str]) -> list[str]:
    """`~key` removes the override of that key."""
    dropped = tuple(o[1:] for o in overrides if o.startswith("~"))
    return [o for o in overrides if not o.startswith("~") and not o.startswith(tuple(f"{d}=" for d in dropped) or "\0")]


@pytest.mark.parametrize("name", names("data"))
def test_data(name, tmp_path):
    assert build(compose(*without(small(f"data={name}", *data_for(name, tmp_path))))).data is not None


@pytest.mark.parametrize("name", names("env"))
def test_env(name):
    build(compose(*small(f"env={name}")))


@pytest.mark.parametrize("name", names("agent"))
def test_agent(name):
    build(compose(*small(f"agent={name}")))


@pytest.mark.parametrize("name", names("reward"))
def test_reward(name, tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text("def ink(x):\n    return x.mean((1, 2, 3))\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    extra = ["reward.terms.function.path=mine:ink"] if name == "function" else []
    built = build(compose(*small(f"reward={name}", *extra)))
    assert set(built.reward.terms) == set(compose(f"reward={name}", *extra).reward.terms)


@pytest.mark.parametrize("name", names("reward/term"))
def test_adding_a_term_is_one_override(name):
    config = compose("reward=coverage", f"+reward/term={name}")
    assert set(config.reward.terms) == {"coverage", name}


@pytest.mark.parametrize("name", names("experiment"))
def test_experiment(name, tmp_path):
    idx = write_idx(tmp_path / "idx")
    (tmp_path / "data").mkdir()
    config = compose(f"experiment={name}")
    kind = config.data._target_.rpartition(".")[2]
    where = {"IdxImages": [f"data.root={idx}"], "Folder": data_for("folder", tmp_path)}.get(kind, [])
    light = ["agent.capacity=4000"] if "capacity" in config.agent else []  # a small replay memory
    overrides = [f"experiment={name}", "threads=1", *light, *without(where)]
    built = build(compose(*overrides))
    assert built.config.total_steps > 0
    assert OmegaConf.is_config(built.config.env)
