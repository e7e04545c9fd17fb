"""`rlgen new`: what it writes works as it is, in every command and under Gymnasium, and keeps its contracts."""

import importlib
import json
import re
import sys
from pathlib import Path

import gymnasium
import pytest
import torch

import rlgen_cli.gymnasium as adapter
from rlgen_cli.testing import check_env, check_score
from tests.conftest import Rlgen

SHORT = [
    "num_envs=4", "total_steps=192", "log_interval=96", "eval_interval=192", "eval_episodes=4", "threads=1",
    "device=cpu", "agent.network.body.width=8",
]  # fmt: skip
RUN = "hydra.run.dir=run"


@pytest.fixture
def written(rlgen: Rlgen, monkeypatch: pytest.MonkeyPatch) -> str:
    """The three, in the folder `mine`; what they printed."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    printed = ""
    for words in (["env", "bars"], ["agent", "elite"], ["term", "smooth_rows"]):
        code, out, err = rlgen("new", *words)
        assert code == 0, err
        printed += out
    return printed


def test_all_three_run_together(written: str, rlgen: Rlgen) -> None:
    """With `--config-dir` alone: no reward to name, no path to set."""
    code, out, err = rlgen(
        "train", "--config-dir", "mine", "env=bars", "agent=elite", "+reward/term=smooth_rows", *SHORT, RUN
    )
    assert code == 0, err
    assert {"coverage", "smooth_rows"} == set(json.loads(Path("run/results.json").read_text())["scores"]["samples"])
    hint = re.search(r"rlgen (sample run=run .*)", out)
    assert hint is not None
    assert hint[1].endswith('--config-dir mine "trust=[bars,elite,smooth_rows]"')
    words = [*hint[1].replace('"', "").split(), "n=2"]
    code, _, err = rlgen(*[word for word in words if not word.startswith("trust")])
    assert code == 2
    assert "trust=[bars]" in err
    assert rlgen(*words)[0] == 0
    code, _, err = rlgen(
        "train", "--config-dir", "mine", "resume=run", "total_steps=384", "trust=[bars,elite,smooth_rows]"
    )
    assert code == 0, err


@pytest.mark.parametrize("words", [["env=bars", "agent=dqn", "agent.learning_starts=16"], ["agent=elite", "env.size=12", "env.max_steps=3"], ["+reward/term=smooth_rows", "env.size=12", "env.max_steps=3", "agent=ppo"], ["reward=[smooth_rows]", "env.size=12", "env.max_steps=3", "agent=ppo"]])  # fmt: skip
def test_each_goes_with_what_ships(words: list[str], written: str, rlgen: Rlgen) -> None:
    code, _, err = rlgen("train", "--config-dir", "mine", *words, *SHORT)
    assert code == 0, err


def test_what_is_printed_names_the_files_and_the_next_line(written: str) -> None:
    assert "mine/reward/term/smooth_rows.yaml" in written
    assert "use it:    rlgen train --config-dir mine +reward/term=smooth_rows" in written
    assert "class SmoothRows:" in Path("mine/smooth_rows.py").read_text()
    assert "class BarsState(NamedTuple):" in Path("mine/bars.py").read_text()


def test_lists_and_help_show_them(written: str, rlgen: Rlgen) -> None:
    assert "bars " in rlgen("list", "env", "--config-dir", "mine")[1]
    assert re.search(r"env\.width +12 +bars, and pixels a side", rlgen("list", "--config-dir", "mine", "env=bars")[1])
    _, out, _ = rlgen("train", "--help", "--config-dir", "mine", "env=bars", "agent=elite")
    assert re.search(r"agent\.elite_fraction +0\.1 ", out)
    assert "reward=coverage" in out


def test_an_environment_has_an_id_under_gymnasium(written: str) -> None:
    adapter.register("bars", config_dir="mine")
    envs = gymnasium.make_vec("rlgen/bars-v0", num_envs=3)
    observation, _ = envs.reset(seed=0)
    assert observation["heights"].shape == (3, 12)
    one = gymnasium.make(
        "rlgen/pixel-v0", overrides=["reward=[smooth_rows]", "env.size=12", "data.per_class=2"], config_dir="mine"
    )
    one.reset(seed=0)
    assert "term/smooth_rows" in one.step(one.action_space.sample())[4]
    del gymnasium.registry["rlgen/bars-v0"]


def test_the_templates_keep_their_contracts(written: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend("mine")
    for device in (torch.device("cpu"), torch.device("meta")):
        env = importlib.import_module("bars").Bars(device=device, width=5)
        check_env(env, device=device)
        check_score(importlib.import_module("smooth_rows").SmoothRows(within="rows"), env, device=device)


WRONG = {
    "new": r"new: takes env, agent or term, and a name, as in rlgen new term smooth",
    "new reward nice": r"new: takes env, agent or term",
    "new env pixel": r"new env pixel: there is env=pixel already",
    "new env My-Env": r"new env My-Env: must be lower case, as in my_env",
    "new term random": r"new term random: is the name of a Python module",
    "new env bars": r"new env bars: mine/bars\.py is there already",
}


@pytest.mark.parametrize("line", WRONG)
def test_wrong_names(line: str, written: str, rlgen: Rlgen) -> None:
    code, _, err = rlgen(*line.split())
    assert code == 2
    assert re.search(WRONG[line], err), err
