"""Runs: their folders, exact resume, interruption, failure. Parametrised over everything that ships."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file

from rlgen_cli.core import checkpoint
from rlgen_cli.runs.assemble import build, config_folder
from rlgen_cli.core.errors import UserError
from rlgen_cli.runs.trainer import resume, train
from tests.conftest import compose, session, small

ACTIONS = {
    "pixel": ["env.action=pixel"],
    "pen": ["env.action=pen"],
    "pen grid": ["env.action=pen", "env.pen=grid", "env.grid=4"],
    "stroke_grid": ["env.action=stroke_grid", "env.grid=4", "env.bends=[-0.3,0,0.3]"],
    "brush": ["env.action=brush", "env.grid=4"],
    "stroke": ["env.action=stroke"],
    "brush_free": ["env.action=brush_free"],
}
SEARCHERS = ["best_of", "cem", "gradient"]  # of continuous actions
CANNOT = {"dqn": ("stroke", "brush_free"), "greedy": ("brush", "stroke", "brush_free")}
CANNOT |= {name: tuple(action for action in ACTIONS if action != "stroke") for name in SEARCHERS}
REWARDS = ["coverage", "target", "adversarial", "classifier", "adversarial_classifier"]
# What a reward is made of does not depend on how marks are made: beside the first two, rewards meet one action.
COMBINATIONS = [(action, reward) for action in ACTIONS for reward in ("target", "adversarial")]
COMBINATIONS += [("pen", reward) for reward in REWARDS if reward not in ("target", "adversarial")]
AGENTS = sorted(file.stem for file in (config_folder() / "agent").glob("*.yaml"))
DRAWERS = [agent for agent in AGENTS if agent != "likelihood"]  # pictures come with no actions to imitate


def overrides(agent: str, action: str, reward: str) -> list[str]:
    return small(f"agent={agent}", f"reward={reward}", *ACTIONS[action])


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return {f"{f.name}:{k}": v for f in folder.glob("*.safetensors") for k, v in load_file(f).items()}


# Each encoding meets every agent once; each reward of music meets one agent (below).
SONGS = {
    "melody": "music_theory",
    "notes": "tonality",
    "chorale": "harmony",
    "tokens": "adversarial_sequence",
}
SOUNDS = ["ratio_of_steps", "scale_consistency", "pitch_entropy", "groove", "novelty", "adversarial_sequence"]
NETWORKS = {"dqn": "q_lstm", "ppo": "transformer", "policy_gradient": "lstm", "actor_critic": "gru"}


@pytest.mark.parametrize(("action", "reward"), COMBINATIONS)
@pytest.mark.parametrize("agent", DRAWERS)
def test_every_combination_runs_samples_and_resumes_bit_for_bit(agent, action, reward, tmp_path):
    if action in CANNOT.get(agent, ()):
        with pytest.raises(UserError, match=rf"cannot act in env.action={action.split()[0]}.*actor_critic.*random"):
            session(*overrides(agent, action, reward))
        return
    words = overrides(agent, action, reward)
    if agent == "greedy":  # search tries every action at every step
        words += ["total_steps=24", "env.max_steps=3", "eval_interval=24", "eval_episodes=2", "env.colours=2"]
        words += ["env.size=8", "env.grid=2", "env.reach=1"]
        words = [word for word in words if word not in ("env.grid=4",)]
    resumes(words, 24 if agent == "greedy" else 160, tmp_path)
    assert (tmp_path / "parts" / "samples" / "final" / "grid.png").stat().st_size > 0


def test_imitation_needs_sequences():
    with pytest.raises(UserError, match=r"Likelihood cannot act in env\.action=pen"):
        session(*overrides("likelihood", "pen", "target"))


@pytest.mark.parametrize("encoding", SONGS)
@pytest.mark.parametrize("agent", AGENTS)
def test_every_agent_composes_and_resumes_bit_for_bit(agent, encoding, tmp_path):
    words = small("env=music", f"agent={agent}", f"encoding={encoding}", f"reward={SONGS[encoding]}")
    if agent in SEARCHERS or (encoding == "notes" and agent == "greedy"):
        with pytest.raises(UserError, match=r"cannot act in env\.encoding.*(decisions a step|discrete actions)"):
            session(*words)
        return
    if agent == "greedy":
        words += ["total_steps=24", "env.length=4", "eval_interval=24", "eval_episodes=2"]
    resumes(words, 24 if agent == "greedy" else 160, tmp_path)
    made = {path.suffix for path in (tmp_path / "parts" / "samples" / "final").iterdir()}
    assert made == {".png", ".mid", ".wav", ".json"}


@pytest.mark.parametrize("agent", NETWORKS)
def test_networks_that_remember_compose_and_resume_bit_for_bit(agent, tmp_path):
    plain = [word for word in small("env=music", f"agent={agent}") if "agent.network" not in word]
    words = [*plain, f"network={NETWORKS[agent]}", "agent.network.body.embed=4", "num_envs=4"]
    resumes(words, 160, tmp_path)


@pytest.mark.parametrize("reward", SOUNDS)
def test_every_reward_of_music_trains_and_resumes_bit_for_bit(reward, tmp_path):
    resumes(small("env=music", "agent=ppo", f"reward={reward}", "env.prime=random", "env.begin=3"), 160, tmp_path)


def resumes(words: list[str], total: int, tmp_path: Path) -> None:
    """A run that was stopped half way and went on ends like one that was not, and both finish."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert train(session(*words, f"stop_at={total - 4}"), whole) == "preempted"
    assert train(session(*words, f"stop_at={total // 2}"), parts) == "preempted"
    assert resume(parts, {"stop_at": total - 4}) == "preempted"
    one, two = (tensors(checkpoint.steps(folder)[-1]) for folder in (whole, parts))
    assert one.keys() == two.keys()
    for key in one:
        assert torch.equal(one[key], two[key]), key
    plain = [json.loads((checkpoint.steps(f)[-1] / "state.json").read_text()) for f in (whole, parts)]
    assert plain[0] == plain[1]
    records = [[json.loads(line) for line in (f / "metrics.jsonl").read_text().splitlines()] for f in (whole, parts)]
    timeless = [[{k: v for k, v in r.items() if "second" not in k} for r in record] for record in records]
    assert timeless[0] == timeless[1]
    assert resume(parts, {}) == "finished"


@pytest.mark.parametrize(
    "flags",
    [
        "agent.priority=0.5 agent.n_step=3",
        "agent.backup=soft agent.temperature.start=0.1 agent.temperature.end=0.05",
        "agent.updates=0.3",
    ],
)
def test_flags_resume_bit_for_bit(flags, tmp_path):
    words = [*small("agent=dqn", "env.action=pen"), *flags.split()]
    train(session(*words, "stop_at=156"), tmp_path / "whole")
    train(session(*words, "stop_at=80"), tmp_path / "parts")
    resume(tmp_path / "parts", {"stop_at": 156})
    one, two = (tensors(checkpoint.steps(tmp_path / name)[-1]) for name in ("whole", "parts"))
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_the_seed_decides_everything(tmp_path):
    words = small("agent=dqn", "env.action=pen")
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        train(session(*words, f"seed={seed}"), tmp_path / name)
    a, b, c = (tensors(checkpoint.steps(tmp_path / name)[-1]) for name in "abc")
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert any(not torch.equal(a[key], c[key]) for key in a)


def test_a_runs_folder_holds_what_the_design_says(tmp_path):
    folder = tmp_path / "run"
    train(session(*small("agent=dqn"), "checkpoint_interval=40", "keep_checkpoints=1"), folder)
    for name in (
        "config.yaml",
        "environment.json",
        "status.json",
        "metrics.jsonl",
        "train.log",
        "tensorboard",
    ):
        assert (folder / name).exists(), name
    status = json.loads((folder / "status.json").read_text())
    assert status["status"] == "finished"
    assert status["step"] == 160
    kept = {path.name for path in checkpoint.steps(folder)}
    assert kept == {"step_000000160", status["best"]}
    assert (folder / "samples" / "step_000000080.png").exists()
    final = {path.name for path in (folder / "samples" / "final").iterdir()}
    assert {"grid.png", "timelapse.gif", "grid.svg", "000.png", "063.svg", "scores.json"} <= final
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert {"return", "term/target", "loss"} <= lines[0].keys()
    assert not [p for p in folder.rglob("*") if p.suffix in (".pt", ".pkl", ".pickle")]


def test_a_failure_is_written_down(tmp_path):
    run = session(*small("agent=dqn"))
    run.agent.update = lambda progress: 1 / 0
    with pytest.raises(ZeroDivisionError):
        train(run, tmp_path / "run")
    status = json.loads((tmp_path / "run" / "status.json").read_text())
    assert (status["status"], status["error"]) == ("failed", "ZeroDivisionError: division by zero")
    assert "ZeroDivisionError" in (tmp_path / "run" / "train.log").read_text()


def test_a_damaged_checkpoint_is_passed_over(tmp_path, caplog):
    folder = tmp_path / "run"
    words = small("agent=dqn")
    train(session(*words, "checkpoint_interval=40", "stop_at=120"), folder)
    newest = checkpoint.steps(folder)[-1]
    content = bytearray((newest / "agent.safetensors").read_bytes())
    content[-5] ^= 1
    (newest / "agent.safetensors").write_bytes(bytes(content))
    assert resume(folder, {"stop_at": 140}) == "preempted"
    assert "damaged" in caplog.text
    steps = [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(steps)


def test_ctrl_c_saves_and_says_how_to_go_on(tmp_path):
    words = [*small("agent=dqn"), "total_steps=100000000", f"hydra.run.dir={tmp_path / 'run'}"]
    command = [sys.executable, "-m", "rlgen_cli.cli.main", "train", *words]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
    assert process.stdout is not None
    seen = []
    for line in process.stdout:
        seen.append(line)
        if line.startswith("step "):
            process.send_signal(signal.SIGINT)
            break
    rest = process.stdout.read()
    assert process.wait(60) == 0
    assert "rlgen train resume=run" in rest, "".join(seen) + rest
    assert json.loads((tmp_path / "run" / "status.json").read_text())["status"] == "preempted"
    assert checkpoint.steps(tmp_path / "run")


@pytest.mark.parametrize("change", ["_target_: os.system", "_target_: rlgen_cli_evil.Thing"])
def test_a_strangers_config_imports_nothing(change, tmp_path):
    folder = tmp_path / "run"
    train(session(*small("agent=random"), "total_steps=40"), folder)
    text = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(text.replace("_target_: rlgen_cli.domains.canvas.scores.Target", change))
    with pytest.raises(UserError, match="no part of rlgen"):
        resume(folder, {"total_steps": 80})


def test_a_strangers_function_needs_trust(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text("def ink(x):\n    return x.mean((1, 2, 3))\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    folder = tmp_path / "run"
    words = [
        *small("agent=random", "reward=function"),
        "reward.terms.function.path=mine:ink",
        "total_steps=40",
    ]
    train(session(*words), folder)
    with pytest.raises(UserError, match=r"trust=\[mine\]"):
        resume(folder, {"total_steps": 80})
    config = OmegaConf.load(folder / "config.yaml")
    config.trust = ["mine"]  # a stranger's run cannot vouch for itself
    OmegaConf.save(config, folder / "config.yaml")
    with pytest.raises(UserError, match=r"trust=\[mine\]"):
        resume(folder, {"total_steps": 80})
    assert resume(folder, {"total_steps": 80, "trust": ["mine"]}) == "finished"


def test_resume_says_what_is_missing(tmp_path):
    with pytest.raises(UserError, match=r"no config\.yaml"):
        resume(tmp_path, {})
    (tmp_path / "config.yaml").write_text("seed: 1")
    with pytest.raises(UserError, match="no checkpoint"):
        resume(tmp_path, {})


def test_cuda_is_refused_where_there_is_none():
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    with pytest.raises(UserError, match=r"^device: cuda"):
        build(compose(*small("agent=random"), "device=cuda"))
