"""Runs: their folders, exact resume, interruption, failure. Parametrised over everything that ships."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file

from rlgen_cli.config.locate import choices
from rlgen_cli.core import checkpoint
from rlgen_cli.core.errors import UserError
from rlgen_cli.runs.assemble import assemble
from rlgen_cli.runs.states import PREEMPTED
from rlgen_cli.runs.trainer import resume, train
from tests.conftest import compose, session, small
from tests.resuming import PARTS, resumes, same

BRUSHES = choices("brush")
WITH_GRID = ("pen_grid", "stroke_grid", "spiral")
SEARCHERS = ("best_of", "cem", "gradient")  # of continuous actions
STROKES = ("stroke", "stroke_cells")  # whose actions are continuous
CANNOT = {"dqn": (*STROKES, "spiral_continuous"), "greedy": ("spiral", *STROKES, "spiral_continuous")}
CANNOT |= {name: tuple(brush for brush in BRUSHES if brush not in STROKES) for name in (*SEARCHERS, "pathwise")}
REWARDS = ["coverage", "target", "adversarial", "classifier", "adversarial_classifier"]
# `grpo` is policy_gradient with values for env=diffusion, where tests/test_diffusion.py has it.
AGENTS = [agent for agent in choices("agent") if agent != "grpo"]
# Pictures come with no actions to imitate, and no brush's actions are normal.
DENOISERS = ("reward_weighted", "trajectory_balance", "nft", "particles")
DRAWERS = [agent for agent in AGENTS if agent not in ("maximum_likelihood", *DENOISERS)]
# What a reward is made of does not depend on how marks are made: every agent meets every brush with a target, one
# discrete and one continuous brush with a discriminator, and every other reward with the pen.
COMBINATIONS = [(brush, "target") for brush in BRUSHES] + [(brush, "adversarial") for brush in ("pen", "stroke")]
COMBINATIONS += [("pen", reward) for reward in REWARDS if reward not in ("target", "adversarial")]
# One of each kind runs always; the others with `make test-all`.
QUICK = {("pen", "target"), ("stroke", "adversarial"), ("pen", "classifier")}


def overrides(agent: str, brush: str, reward: str) -> list[str]:
    grid = ["env.brush.grid=4"] if brush in WITH_GRID else []
    return small(f"agent={agent}", f"reward={reward}", f"brush={brush}", *grid)


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return {
        f"{file.relative_to(folder)}:{key}": value
        for file in folder.rglob("*.safetensors")
        for key, value in load_file(file).items()
    }


# Each encoding meets every agent once; each reward of music meets one agent (below).
SONGS = {
    "melody": "music_theory",
    "notes": "tonality",
    "chorale": "harmony",
    "tokens": "adversarial_sequence",
}
SOUNDS = ["ratio_of_steps", "scale_consistency", "pitch_entropy", "groove", "sequence_novelty", "adversarial_sequence"]
NETWORKS = {"dqn": "lstm", "ppo": "transformer", "policy_gradient": "lstm", "actor_critic": "gru"}


@pytest.mark.parametrize(
    ("brush", "reward"),
    [pytest.param(*pair, marks=[] if pair in QUICK else [pytest.mark.slow]) for pair in COMBINATIONS],
)
@pytest.mark.parametrize("agent", DRAWERS)
@pytest.mark.mostly_slow(5)
def test_every_combination_runs_samples_and_resumes_bit_for_bit(agent, brush, reward, tmp_path):
    if brush in CANNOT.get(agent, ()):
        with pytest.raises(UserError, match=r"cannot act in env\.brush=.*(actor_critic.*random)"):
            session(*overrides(agent, brush, reward))
        return
    words = overrides(agent, brush, reward)
    if agent == "greedy":  # search tries every action at every step
        words += ["total_steps=24", "env.max_steps=3", "eval_interval=24", "eval_episodes=2", "env.size=8"]
        words = [word for word in words if word != "env.brush.grid=4"]
        words += ["env.brush.grid=2"] if brush in WITH_GRID else []
        words += ["env.brush.reach=1"] if brush == "pen" else []
    resumes(words, 24 if agent == "greedy" else 160, tmp_path)
    assert (tmp_path / "parts" / "samples" / "final" / "grid.png").stat().st_size > 0


def test_imitation_needs_sequences():
    with pytest.raises(UserError, match=r"MaximumLikelihood cannot act in env\.brush=Pen"):
        session(*overrides("maximum_likelihood", "pen", "target"), "env=pixel")


@pytest.mark.parametrize(
    ("agent", "encoding"),
    [
        pytest.param(
            agent, encoding, marks=[] if encoding == "melody" or agent in ("dqn", "ppo") else [pytest.mark.slow]
        )
        for agent in AGENTS
        for encoding in SONGS
    ],
)
@pytest.mark.mostly_slow(5)
def test_every_agent_composes_and_resumes_bit_for_bit(agent, encoding, tmp_path):
    words = small("env=music", f"agent={agent}", f"encoding={encoding}", f"reward={SONGS[encoding]}")
    if agent in (*SEARCHERS, "pathwise", *DENOISERS) or (encoding == "notes" and agent == "greedy"):
        with pytest.raises(UserError, match=r"cannot act in env\.encoding.*(decisions a step|discrete actions)"):
            session(*words)
        return
    if agent == "greedy":
        words += ["total_steps=24", "env.length=4", "eval_interval=24", "eval_episodes=2"]
    resumes(words, 24 if agent == "greedy" else 160, tmp_path)
    made = {path.suffix for path in (tmp_path / "parts" / "samples" / "final").iterdir()}
    assert made == {".png", ".mid", ".wav", ".json"}


@pytest.mark.parametrize("agent", NETWORKS)
@pytest.mark.slow
def test_networks_that_remember_compose_and_resume_bit_for_bit(agent, tmp_path):
    plain = [word for word in small("env=music", f"agent={agent}") if "agent.network" not in word]
    words = [*plain, f"network={NETWORKS[agent]}", "agent.network.body.embed=4", "num_envs=4"]
    resumes(words, 160, tmp_path)


@pytest.mark.parametrize("reward", SOUNDS)
@pytest.mark.mostly_slow(3)
def test_every_reward_of_music_trains_and_resumes_bit_for_bit(reward, tmp_path):
    resumes(
        small("env=music", "agent=ppo", f"reward={reward}", "env.prime=random", "env.given_tokens=3"), 160, tmp_path
    )


@pytest.mark.parametrize(
    "words",
    [
        "replay=prioritized agent.n_step=3",
        "backup=soft agent.temperature.start=0.1 agent.temperature.end=0.05 agent.n_step=2 agent.td_lambda=0.5",
        "agent.gradient_steps=0.3 target_update=hard",
        "env.stop=true agent=policy_gradient baseline=mean",
    ],
)
def test_components_resume_bit_for_bit(words, tmp_path):
    agent = "policy_gradient" if "policy_gradient" in words else "dqn"
    resumes([*small(f"agent={agent}"), *words.split()], 160, tmp_path)


def test_the_seed_decides_everything(tmp_path):
    words = small("agent=dqn", "brush=pen")
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
    assert {"return", "score/target", "agent/loss"} <= lines[0].keys()
    assert not [p for p in folder.rglob("*") if p.suffix in (".pt", ".pkl", ".pickle")]


def test_a_failure_is_written_down(tmp_path, monkeypatch):
    run = session(*small("agent=dqn"))
    monkeypatch.setattr(run.agent, "update", lambda progress: 1 / 0)
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
    damaged = newest / "training" / "agent.safetensors"
    content = bytearray(damaged.read_bytes())
    content[-5] ^= 1
    damaged.write_bytes(bytes(content))
    assert resume(folder, {"stop_at": 140}) == "stopped"
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
    assert process.wait(60) == PREEMPTED
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
    with pytest.raises(UserError, match=r"total_steps: is missing"):
        resume(tmp_path, {})


def test_a_run_that_was_killed_before_its_first_checkpoint_begins_anew(tmp_path):
    words = small("agent=dqn")
    assert train(session(*words), tmp_path / "whole") == "finished"
    assert train(session(*words, "stop_at=80"), tmp_path / "run") == "stopped"
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    assert resume(tmp_path / "run", {}) == "finished"
    for part in PARTS:
        one, two = (checkpoint.load(checkpoint.newest(tmp_path / name), part, "cpu") for name in ("whole", "run"))
        same(one, two, part)


def test_cuda_is_refused_where_there_is_none():
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    with pytest.raises(UserError, match=r"^device: cuda"):
        assemble(compose(*small("agent=random"), "device=cuda"))
