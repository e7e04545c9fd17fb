"""Runs that leave their machine: as a folder, as ONNX, and over a hub."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import rlgen_cli
from rlgen_cli.agents.dqn import QPolicy
from rlgen_cli.core.errors import UserError
from rlgen_cli.core.pixels import as_unit
from rlgen_cli.core.protocols import Planner
from rlgen_cli.core.specs import Discrete
from rlgen_cli.policies.actor import NetworkPolicy
from rlgen_cli.runs import hub as runs_hub
from rlgen_cli.runs.onnx_policy import LOG_PROBS, MASK, Q_VALUES, write_onnx
from tests.conftest import session, small, write_idx, write_picture
from tests.hub import TOKEN, Hub, hub

onnxruntime = pytest.importorskip("onnxruntime")

POLICIES = {
    "dqn": ["env=pixel", "agent=dqn", "reward=target"],
    "a pixel at a time, which may stop": ["env=pixel", "brush=pixel", "env.stop=true", "agent=dqn", "reward=target"],
    "ppo": ["env=pixel", "brush=pen", "agent=ppo", "reward=target"],
    "several numbers": ["env=pixel", "brush=spiral_continuous", "agent=ppo", "reward=target"],
    "several choices": ["env=pixel", "brush=spiral", "env.brush.grid=4", "agent=policy_gradient", "reward=target"],
    "music": ["env=music", "agent=dqn", "reward=tonality", "agent.network.recurrent=null"],
    "a generator": ["env=latent_gan", "agent=dqn"],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("runs")
    rlgen_cli.train(*small("env=latent_gan", "agent=dqn"), folder=place / "run")
    return place / "run"


def test_an_export_opens_anywhere_and_makes_the_same(folder, rlgen, tmp_path, monkeypatch):
    before = rlgen_cli.open(folder).sample(5, seed=2)
    code, out, _ = rlgen("export", f"run={folder}", "to=mine", "n=4")
    assert (code, out) == (0, "export: mine\n")
    shutil.move("mine", tmp_path / "elsewhere")
    monkeypatch.setenv("RLGEN_CACHE", str(tmp_path / "empty"))  # where the generator is not
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert torch.equal(rlgen_cli.open(".").sample(5, seed=2).view.sample, before.view.sample)
    assert not list(Path().glob("checkpoints/*/training"))
    assert sum(path.stat().st_size for path in Path().rglob("*")) < 2e6
    code, _, err = rlgen("export", f"run={folder}", "to=.")
    assert code == 2
    assert "to: . is there already; name a new folder." in err


@pytest.mark.slow
def test_a_term_that_learned_goes_along(rlgen, tmp_path):
    run = rlgen_cli.train(*small("env=pixel", "agent=dqn", "reward=adversarial"), folder=tmp_path / "run")
    assert rlgen("export", "run=run", "to=mine", "n=2")[0] == 0
    assert rlgen_cli.open("mine").sample(5).record["scores"] == run.sample(5).record["scores"] != {}
    kept = {path.stem for path in Path().glob("mine/checkpoints/*/training/*.safetensors")}
    assert kept == {"adversarial"}  # of what only the training needs, nothing else


@pytest.mark.slow
def test_the_card_says_what_the_run_is(folder, rlgen, tmp_path):
    rlgen("export", f"run={folder}", "to=mine", "n=4")
    card = (tmp_path / "mine" / "README.md").read_text()
    head = yaml.safe_load(card.split("---\n")[1])
    assert (
        head == {"library_name": "rlgen", "tags": ["rlgen", "reinforcement-learning", "LatentWalk", "DQN"]}
        or head["tags"]
    )
    assert "Trained by rlgen for 160 environment steps" in card
    assert "Glyphs: drawn by rlgen in Pillow's own font" in card
    assert (tmp_path / "mine" / "samples" / "final" / "grid.png").exists()
    assert str(tmp_path) not in card
    rlgen("export", f"run={folder}", "to=other", "n=4", "data_licence=CC0 1.0")
    assert "Glyphs: CC0 1.0." in (tmp_path / "other" / "README.md").read_text()


@pytest.mark.slow
def test_the_lines_of_the_card_run(folder, rlgen, tmp_path, monkeypatch):
    rlgen("export", f"run={folder}", "to=mine", "n=4")
    card = (tmp_path / "mine" / "README.md").read_text()
    monkeypatch.chdir(tmp_path / "mine")
    exec(card.split("```python\n")[1].split("```")[0], {})
    assert Path("pictures/grid.png").exists()


def test_published_files_are_not_named_by_their_place_on_this_machine(rlgen, tmp_path):
    write_idx(tmp_path / "published" / "mnist")
    words = small("env=pixel", "brush=pen", "agent=random", "reward=target", "data=mnist", "paths.data=published")
    run = rlgen_cli.train(*[word for word in words if "per_class" not in word], folder=tmp_path / "run")
    assert run.config.data.root == "published/mnist"
    assert rlgen("export", "run=run", "to=mine", "n=2")[0] == 0
    config = yaml.safe_load((tmp_path / "mine" / "config.yaml").read_text())
    assert (config["data"]["root"], config["paths"]["data"]) == (None, None)
    opened = rlgen_cli.open("mine", changes={"data.root": "published/mnist"})
    assert torch.equal(opened.sample(2).view.sample, run.sample(2).view.sample)


def test_the_card_says_what_the_run_needs_besides(rlgen, tmp_path):
    (tmp_path / "pictures").mkdir()
    for i in range(12):
        write_picture(tmp_path / "pictures" / f"{i}.png", side=12 + i)
    words = small("env=pixel", "agent=random", "reward=target", "data=folder", "data.path=pictures")
    rlgen_cli.train(*[word for word in words if "per_class" not in word], folder=tmp_path / "run")
    assert rlgen("export", "run=run", "to=mine", "n=2")[0] == 0
    card = (tmp_path / "mine" / "README.md").read_text()
    assert 'changes={"data.path": "WHERE YOUR COPY OF THE DATA LIES"}' in card
    assert "its terms are those of whoever made it" in card
    assert "There is no `policy.onnx`: a planner tries actions out in the environment, and has no network." in card


@pytest.mark.parametrize("words", POLICIES.values(), ids=POLICIES.keys())
@pytest.mark.slow
def test_onnx_gives_the_actions_of_torch(words, tmp_path):
    built = session(*small(*words), "precision=float32")
    env, rng = built.envs["test"], torch.Generator().manual_seed(0)
    write_onnx(tmp_path / "policy.onnx", env, built.actor, rng)
    running = onnxruntime.InferenceSession(str(tmp_path / "policy.onnx"))
    outputs = [part.name for part in running.get_outputs()]
    assert outputs[0] == "action"
    if isinstance(built.actor, NetworkPolicy):
        built.actor.evaluate = "mode"
    for n in (1, 7):
        state = env.reset(n, rng)
        for _ in range(2):
            observation, mask = env.observe(state), env.action_mask(state)
            given = {name: as_unit(part) if part.dtype == torch.uint8 else part for name, part in observation.items()}
            if mask is not None:
                given[MASK] = mask
            assert {part.name for part in running.get_inputs()} == given.keys()
            action, *more = running.run(None, {name: part.numpy() for name, part in given.items()})
            assert not isinstance(built.actor, Planner)
            decided = built.actor.act(observation, mask, None, explore=False, rng=rng).action
            np.testing.assert_allclose(action, decided.numpy(), atol=1e-5)
            if isinstance(env.spec.action, Discrete):
                assert outputs[1:] == [Q_VALUES if isinstance(built.actor, QPolicy) else LOG_PROBS]
                assert more[0].shape == (n, env.spec.action.n)
                assert (more[0].argmax(1) == action).all()
            state = env.step(state, decided)


def test_what_cannot_be_onnx_says_why(tmp_path):
    built = session(*small("env=music", "agent=ppo", "reward=tonality", "network=gru"))
    rng = torch.Generator().manual_seed(0)
    with pytest.raises(UserError, match="the network has a memory"):
        write_onnx(tmp_path / "policy.onnx", built.envs["test"], built.actor, rng)
    built = session(*small("env=pixel", "agent=cem", "reward=target"))
    with pytest.raises(UserError, match="a planner tries actions out"):
        write_onnx(tmp_path / "policy.onnx", built.envs["test"], built.actor, rng)


def test_without_the_packages_there_is_no_onnx_and_a_line_says_so(folder, rlgen, monkeypatch, tmp_path):
    monkeypatch.setattr("rlgen_cli.runs.onnx_policy.find_spec", lambda name: None)
    code, out, _ = rlgen("export", f"run={folder}", "to=mine", "n=2")
    assert code == 0
    assert out.splitlines()[0] == "there is no policy.onnx: that needs pip install 'rlgen[export]'"
    assert not (tmp_path / "mine" / "policy.onnx").exists()


def on_the_hub(address: str, *words: str) -> subprocess.CompletedProcess[str]:
    """The command line with the real client, which reads its address when it is imported."""
    told = {"HF_ENDPOINT": address, "HF_TOKEN": TOKEN, "HF_HOME": "hub_cache", "HF_HUB_DISABLE_TELEMETRY": "1"}
    told |= {"PYTHONPATH": str(Path(__file__).parent.parent), "OMP_NUM_THREADS": "1", "HF_HUB_DISABLE_XET": "1"}
    command = [sys.executable, "-m", "rlgen_cli.cli.main", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env={**os.environ, **told}, check=False)


@pytest.mark.slow
def test_a_run_goes_to_the_hub_and_comes_back(folder, tmp_path):
    expected = rlgen_cli.open(folder).sample(3, seed=1).record["scores"]
    with hub() as address:
        pushed = on_the_hub(address, "push", f"run={folder}", "repo=ann/steered", "n=2")
        assert pushed.returncode == 0, pushed.stderr
        assert pushed.stdout.splitlines()[-1] == "pushed: hf://ann/steered"
        assert Hub.private == {"ann/steered": True}
        assert {"README.md", "config.yaml", "policy.onnx"} <= Hub.repos["ann/steered"].keys()
        Hub.strange["virus.py"] = b"print('nobody asked for me')"
        sampled = on_the_hub(address, "sample", "run=hf://ann/steered", "n=3", "seed=1", "out=made")
        assert sampled.returncode == 0, sampled.stderr
        place = tmp_path / "outputs" / "hub" / "ann" / "steered" / "main"
        assert (place / "config.yaml").exists()
        assert not (place / "virus.py").exists()
        assert json.loads((tmp_path / "made" / "scores.json").read_text())["scores"] == expected
        latest = on_the_hub(address, "sample", "run=latest", "n=2")
        assert "there is no run below outputs/ yet" in latest.stderr  # none of one's own
        gone = on_the_hub(address, "sample", "run=hf://ann/gone", "n=2")
        assert gone.returncode == 2
        assert gone.stderr.startswith("rlgen: run: the hub does not give hf://ann/gone (")
        assert len(gone.stderr.splitlines()) == 1
    offline = on_the_hub(address, "push", f"run={folder}", "repo=ann/steered", "n=2")
    assert offline.returncode == 2
    assert offline.stderr.splitlines()[-1].startswith("rlgen: repo: the hub does not give ann/steered (")


@pytest.mark.parametrize("name", ["hf://", "hf://ann", "hf://../../etc", "hf://ann/../x", "hf://ann/steered@../../x"])
def test_no_name_leads_out_of_the_hubs_folder(name, rlgen, tmp_path):
    code, _, err = rlgen("sample", f"run={name}", "n=2")
    assert code == 2
    assert err.startswith("rlgen: run: ")
    assert not (tmp_path / "outputs").exists()


def test_a_file_that_would_lie_elsewhere_is_refused():
    class Listed:
        filename, file_size = "../../bashrc", 10

    with pytest.raises(UserError, match="which would lie elsewhere"):
        runs_hub.check([Listed()], "hf://ann/bad")
    Listed.filename, Listed.file_size = "checkpoints/huge", 5 << 32
    with pytest.raises(UserError, match="MiB, more than 4,096; fetch it by hand"):
        runs_hub.check([Listed()], "hf://ann/huge")


def test_the_hub_needs_its_package(folder, rlgen, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    code, _, err = rlgen("push", f"run={folder}", "repo=ann/steered")
    assert code == 2
    assert "pip install 'rlgen[hub]'" in err
