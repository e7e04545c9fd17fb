"""`devices=N` and torchrun: runs of several processes, which end, stop and go on as one."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from rlgen_cli.cli.main import dispatch
from rlgen_cli.core import checkpoint, ranks
from rlgen_cli.core.errors import UserError
from rlgen_cli.runs.assemble import device_of
from rlgen_cli.runs.records import curves_of
from rlgen_cli.runs.states import PREEMPTED
from tests.conftest import small

ROOT = Path(__file__).parent.parent
PLACE = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
TWO = ["devices=2", "logger=none", "hydra.run.dir=run"]
ENDLESS = ["total_steps=100000000", "checkpoint_interval=4000", "eval_interval=100000000", "log_interval=4000"]
RUNS = {
    "dqn": ["env=tiny", "agent=dqn", "replay=prioritized"],
    "ppo with a memory": ["agent=ppo", "network=gru", "reward=target", "agent.num_minibatches=1"],
    "reinforce with an end": [
        "agent=policy_gradient",
        "agent.num_minibatches=1",
        "env.stop=true",
        "reward=target",
        "baseline=mean",
    ],
    "pathwise": ["agent=pathwise", "brush=stroke", "reward=target"],
    "adversarial": ["agent=actor_critic", "reward=adversarial", "agent.num_steps=4"],
    "anchored": ["env=music", "agent=ppo_tune", "reward=tonality"],
    "joint gan": [
        "env=latent_gan",
        "agent=ppo",
        "reward=realism",
        "joint=true",
        "agent.num_steps=3",
        "agent.num_minibatches=1",
    ],
}


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "rlgen_cli", *words]


def rlgen(*words: str, code: int = 0, variables: dict[str, str] | None = None) -> str:
    """What a command says, all of it."""
    done = subprocess.run(
        command(*words), capture_output=True, text=True, timeout=300, env=os.environ | PLACE | (variables or {}),
        check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def status(folder: str = "run") -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(folder, "status.json").read_text())
    return found


def digests(folder: str) -> dict[str, str]:
    """Of all files of the newest checkpoint."""
    newest = checkpoint.steps(Path(folder))[-1]
    found: dict[str, str] = json.loads((newest / "manifest.json").read_text())["sha256"]
    return found


def check_resume(words: list[str], verb: str = "train", stop_at: int = 80) -> None:
    """A run that was stopped goes on bit for bit."""
    rlgen(verb, *words, "devices=2", "logger=none", "hydra.run.dir=whole")
    shutil.rmtree("cache", ignore_errors=True)  # where a stage's result would be found
    rlgen(verb, *words, "devices=2", "logger=none", "hydra.run.dir=parts", f"stop_at={stop_at}")
    assert status("parts")["status"] == "stopped"
    rlgen(verb, "resume=parts")
    assert digests("whole") == digests("parts")
    assert (verb == "pretrain") or any(name.startswith("rank_1/") for name in digests("whole"))


@pytest.mark.slow
def test_a_run_on_two_devices_goes_on_bit_for_bit() -> None:
    check_resume(small(*RUNS["dqn"]))
    curves, others = curves_of(Path("whole")), curves_of(Path("parts"))
    assert curves["return"] == others["return"], "each record stands once, and is of both ranks"


@pytest.mark.slow
@pytest.mark.parametrize("case", [name for name in RUNS if name != "dqn"])
def test_whatever_learns_goes_on_bit_for_bit_on_two_devices(case: str) -> None:
    check_resume(small(*RUNS[case]))


@pytest.mark.slow
@pytest.mark.parametrize("words", [
    ["env=latent_gan", "data=glyphs", "env.generator.updates=20"],
    ["env=music", "epochs=3"],
])  # fmt: skip
def test_a_pretraining_on_two_devices_goes_on_bit_for_bit(words: list[str]) -> None:
    shortened = small(*words, "agent=maximum_likelihood" if "env=music" in words else "agent=ppo")
    kept = [word for word in shortened if not word.startswith("env.generator.updates=2") or word in words]
    used = [word for word in kept if not word.startswith(("agent", "total_steps", "eval_interval"))]
    check_resume(used, "pretrain", stop_at=5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "before", "after"), [*((case, 2, 1) for case in RUNS), ("dqn", 1, 2), ("joint gan", 1, 2)]
)
def test_a_run_goes_on_on_another_number_of_devices_and_says_what_begins_anew(
    case: str, before: int, after: int
) -> None:
    words = small(*RUNS[case])
    rlgen("train", *words, f"devices={before}", "logger=none", "hydra.run.dir=run", "stop_at=80")
    said = rlgen("train", "resume=run", f"devices={after}")
    assert f"saved by {before} processes and goes on in {after}" in said
    assert "random streams begin anew" in said
    assert status()["status"] == "finished"
    assert yaml.safe_load(Path("run/config.yaml").read_text())["devices"] == after


def begun(*words: str) -> subprocess.Popen[str]:
    """A training in the background, once it has left a checkpoint."""
    process = subprocess.Popen(
        command("train", *words), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env=os.environ | PLACE, start_new_session=True,
    )  # fmt: skip
    until = time.monotonic() + 90
    while not checkpoint.steps(Path("run")):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < until, "no checkpoint came"
        time.sleep(0.1)
    return process


def rank_of(number: int) -> int:
    """The process of a rank, found by its environment."""
    here = str(Path.cwd())
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                variables = (folder / "environ").read_bytes().split(b"\0")
                where = os.readlink(folder / "cwd")
            except OSError:
                continue
            if f"RANK={number}".encode() in variables and where == here:
                return int(folder.name)
    raise AssertionError(f"there is no rank {number}")


@pytest.fixture
def _linux() -> None:
    if not Path("/proc/self/environ").exists():
        pytest.skip("ranks are found in /proc")


@pytest.mark.usefixtures("_linux")
@pytest.mark.parametrize("killed", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_a_killed_rank_ends_the_run_and_leaves_its_checkpoint(killed: int) -> None:
    process = begun("env=tiny", "agent=ppo", *TWO, *ENDLESS)
    os.kill(rank_of(killed), signal.SIGKILL)
    said = process.communicate(timeout=60)[0]
    assert process.returncode not in (0, PREEMPTED)
    assert f"rank {killed} was killed by SIGKILL" in said
    assert "Traceback" not in said
    newest = checkpoint.newest(Path("run"))
    checkpoint.check(newest)
    assert status()["status"] == "failed"
    assert ("has ended" if killed else "killed by SIGKILL") in status()["error"]
    step = int(newest.name.removeprefix("step_"))
    said = rlgen("train", "resume=run", f"total_steps={step + 1280}")
    assert "finished" in said


@pytest.mark.usefixtures("_linux")
@pytest.mark.slow
def test_a_signal_stops_all_ranks_after_the_same_step() -> None:
    process = begun("env=tiny", "agent=dqn", *TWO, *ENDLESS)
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=60)[0]
    assert process.returncode == PREEMPTED
    assert "rlgen train resume=run" in said
    assert status()["status"] == "preempted"
    saved = checkpoint.load(checkpoint.newest(Path("run")), "training", "cpu")
    assert saved["loop"]["step"] == status()["step"]


FAILS = """
import os
import torch

calls = 0

def score(pictures):
    global calls
    calls += 1
    bad = calls > 20 and os.environ.get("RANK") == "1"
    return torch.full((len(pictures),), float("nan")) if bad else pictures.mean((1, 2, 3))
"""


@pytest.mark.slow
def test_the_reason_of_another_rank_stands_in_the_status() -> None:
    Path("bad.py").write_text(FAILS)
    words = small("agent=ppo", "reward=function", "reward.terms.function.path=./bad.py:score")
    said = rlgen("train", *words, *TWO, "total_steps=8000", code=2)
    assert "rank 1: reward.terms.function: gave nan or infinity" in said
    assert status()["error"].startswith("rank 1: reward.terms.function: gave nan or infinity")


@pytest.mark.slow
def test_torchrun_begins_one_run() -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "rlgen_cli"]
    words = small("env=tiny", "agent=ppo", "num_envs=16", "agent.num_steps=8")
    done = subprocess.run(
        [*torchrun, "train", *words], capture_output=True, text=True, timeout=200, env=os.environ | PLACE, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("finished:") == 1
    (folder,) = Path("outputs").glob("*/*/*/config.yaml")
    assert yaml.safe_load(folder.read_text())["devices"] == 2


@pytest.mark.slow
def test_two_devices_learn_as_one_does() -> None:
    returns = {}
    for devices in (1, 2):
        folder = f"run{devices}"
        words = ["env=tiny", "agent=ppo", "total_steps=40960", "logger=none", "threads=1", "eval_interval=40960"]
        rlgen("train", *words, f"devices={devices}", f"hydra.run.dir={folder}")
        lines = [json.loads(line) for line in Path(folder, "metrics.jsonl").read_text().splitlines()]
        returns[devices] = [line["return"] for line in lines if "return" in line][-1]
    assert min(returns.values()) > 7, "both have learned, as 10 is the most"
    assert abs(returns[1] - returns[2]) < 1.5


WRONG = {
    ("num_envs=5", "devices=2"): r"num_envs: must be a multiple of the 2 devices, got 5.",
    ("agent.batch_size=5", "devices=2"): r"agent.batch_size: must be a multiple of the 2 devices, got 5.",
    ("devices=0",): r"devices: must be at least 1, got 0.",
}


@pytest.mark.slow
@pytest.mark.parametrize("words", WRONG, ids=" ".join)
def test_a_number_that_cannot_be_shared_is_told_once(words: tuple[str, ...]) -> None:
    said = rlgen("train", *small("agent=dqn", "reward=target"), *words, code=2)
    assert said.strip().splitlines()[-1] == f"rlgen: {WRONG[words]}"
    assert said.count("rlgen: ") == 1


def test_what_a_launcher_lacks_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("RANK", raising=False)
    lacking = "devices: WORLD_SIZE is set, and RANK, LOCAL_RANK, LOCAL_WORLD_SIZE not"
    with pytest.raises(UserError, match=lacking), ranks.joined():
        pass


def test_a_sweep_is_not_begun_by_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match=r"devices: a sweep is begun once, and not by torchrun"):
        dispatch(["train", "-m", "env=tiny", "seed=1,2"])
    assert not list(Path().iterdir())


@pytest.mark.parametrize("size", ["", "0", "1", "many"])
def test_what_is_no_number_of_processes_is_one(size: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", size)
    with ranks.joined():
        assert (ranks.count(), ranks.rank()) == (1, 0)


def test_each_rank_has_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[int] = []
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("torch.cuda.set_device", chosen.append)
    monkeypatch.setattr("torch.empty", lambda *_, **__: None)
    monkeypatch.setattr(ranks, "_place", ranks.Place(5, 8, 1, 4))
    assert str(device_of("auto")) == "cuda:1"
    assert chosen == [1]
    monkeypatch.setattr(ranks, "_place", ranks.Place(6, 8, 2, 4))
    with pytest.raises(UserError, match=r"devices: this machine has 2 GPUs for 4 processes; use device=cpu."):
        device_of("cuda")
