"""Sweeps: what ends one job ends no other, and what is missing can be run later."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from rlgen_cli.runs.states import PREEMPTED
from rlgen_cli.sweeps import work
from tests.conftest import small

GOOD = "def score(pictures):\n    return pictures.mean((1, 2, 3))\n"
FAULTS = {
    "raises": "def score(pictures):\n    raise RuntimeError('no such luck')\n",
    "exits": "import sys\n\n\ndef score(pictures):\n    sys.exit(0)\n",
    "killed": "import os\n\n\ndef score(pictures):\n    os.kill(os.getpid(), 9)\n",
}
WHY = {
    "raises": "no such luck",
    "exits": "(SystemExit: 0)",
    "killed": "killed by SIGKILL; the system may have been out of memory",
}
WORDS = small("env=pixel", "agent=random", "reward=function")
MINIMAL = {"PYTHONPATH": str(Path(__file__).parent.parent), "OMP_NUM_THREADS": "1"}
LAUNCHERS = {
    "basic": [],
    "joblib": ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"],
    "submitit_local": ["hydra/launcher=submitit_local", "hydra.launcher.timeout_min=5", "hydra.launcher.mem_gb=null"],
    "ray": ["hydra/launcher=ray", "+hydra.launcher.ray.init.num_cpus=2"],
}


def write_scores(good: int) -> list[str]:
    """Modules of reward functions, of which all but three are sound; the words that sweep over them."""
    names = [f"good{i}" for i in range(good)]
    for name in names:
        Path(f"{name}.py").write_text(GOOD)
    for name, text in FAULTS.items():
        Path(f"{name}.py").write_text(text)
    paths = ",".join(f"./{name}.py:score" for name in [*names[:1], *FAULTS, *names[1:]])
    return [f"reward.terms.function.path={paths}", "hydra.sweep.dir=sweep"]


def run(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "rlgen_cli", "train", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=400, env=os.environ | MINIMAL, check=False)


def said_of(job: int) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(f"sweep/{job}/status.json").read_text())
    return found


def check_sweep(launcher: list[str], good: int) -> None:
    """Three jobs fail, each in a way of its own; the others finish, and once mended, those three do, too."""
    faults = write_scores(good)
    done = run("-m", *WORDS, *faults, *launcher)
    assert done.returncode == 2, done.stderr
    assert f"{good} finished, 3 failed" in done.stdout
    assert "run what is missing:\n  rlgen train sweep.resume=sweep" in done.stdout
    for job, (name, why) in enumerate(WHY.items(), start=1):
        assert said_of(job)["status"] == "failed"
        assert why in said_of(job)["error"], name
        assert why in Path(f"sweep/{job}/train.log").read_text(), name
        assert f"job {job} failed: " in done.stdout
    for job in (0, *range(4, good + 3)):
        assert said_of(job)["status"] == "finished"
    kept = {job: Path(f"sweep/{job}/metrics.jsonl").read_bytes() for job in (0, *range(4, good + 3))}
    for name in FAULTS:
        Path(f"{name}.py").write_text(GOOD)
    again = run("sweep.resume=sweep", *launcher)
    assert again.returncode == 0, again.stdout + again.stderr
    assert f"{good} of {good + 3} jobs have finished" in again.stdout
    assert f"\n{good + 3} finished\n" in again.stdout
    assert kept == {job: Path(f"sweep/{job}/metrics.jsonl").read_bytes() for job in kept}


@pytest.mark.slow
def test_what_ends_one_job_ends_no_other():
    check_sweep([], good=1)


@pytest.mark.slow
@pytest.mark.parametrize("launcher", [name for name in LAUNCHERS if name != "basic"])
def test_every_launcher_keeps_the_other_jobs(launcher):
    pytest.importorskip(f"hydra_plugins.hydra_{launcher.removesuffix('_local')}_launcher")
    check_sweep(LAUNCHERS[launcher], good=1)


@pytest.mark.slow
def test_twenty_four_jobs_of_which_three_fail():
    check_sweep(LAUNCHERS["joblib"], good=21)


def test_a_dry_run_lists_the_jobs_and_their_cost(rlgen):
    words = small("env=pixel", "agent=random", "reward=target")
    sweep = ["seed=1,2", "env.max_steps=4,5", "sweep.dry_run=true", "hydra.sweep.dir=sweep"]
    code, out, _ = rlgen("train", "-m", *words, *sweep)
    assert code == 0
    pairs = [(seed, steps) for steps in (4, 5) for seed in (1, 2)]
    expected = [[str(i), "160", f"env.max_steps={steps}", f"seed={seed}"] for i, (seed, steps) in enumerate(pairs)]
    assert [[*line.split()[:2], *sorted(line.split()[2:])] for line in out.splitlines()[1:-1]] == expected
    assert out.splitlines()[-1] == "4 jobs, 640 environment steps; they would go to sweep"
    assert not Path("sweep/sweep.json").exists()
    assert not list(Path().rglob("status.json"))


@pytest.mark.slow
def test_what_cannot_work_is_told_before_the_first_job_begins():
    words = small("env=pixel", "agent=random", "reward=target")
    done = run("-m", *words, "env.max_steps=6,-1", "seed=1,2", "hydra.sweep.dir=sweep")
    said = "cannot work: env.max_steps: must be from 1 to 10000, got -1."
    assert done.returncode == 2
    assert done.stdout.splitlines()[:2] == [f"job {job} {said}" for job in (2, 3)]
    assert done.stdout.splitlines()[-3] == "2 finished, 2 failed"


def test_a_wrong_word_starts_nothing(rlgen):
    code, out, err = rlgen("train", "-m", *WORDS, "seed=1,2", "env.nonsense=3", "hydra.sweep.dir=sweep")
    assert (code, out) == (2, "")
    assert "env.nonsense: is no key here" in err
    code, _, err = rlgen("train", "sweep.resume=nowhere")
    assert (code, err) == (2, "rlgen: sweep.resume: nowhere is no sweep's folder (it holds no sweep.json).\n")
    code, _, err = rlgen("train", "-m", *WORDS, "seed=1,2", "sweep.dry_run=perhaps")
    assert "sweep.dry_run: must be true or false, got perhaps." in err
    Path("sweep").mkdir()
    Path("sweep/sweep.json").write_text('{"command": "train"}')
    assert "sweep.resume: sweep/sweep.json is damaged." in rlgen("train", "sweep.resume=sweep")[2]


def write_nvidia_smi(folder: Path, count: int) -> None:
    """A program of that name, which knows some GPUs."""
    folder.mkdir()
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\nseq 0 {count - 1}\n")
    program.chmod(0o755)


def test_jobs_beside_each_other_have_a_gpu_each(tmp_path, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    assert work.gpus() == []
    write_nvidia_smi(tmp_path / "bin", 2)
    with work.gpus_of_its_own(tmp_path) as one, work.gpus_of_its_own(tmp_path) as other:
        assert (one, other) == ({"CUDA_VISIBLE_DEVICES": "0"}, {"CUDA_VISIBLE_DEVICES": "1"})
        with work.gpus_of_its_own(tmp_path) as third:  # more jobs than GPUs
            assert third == {}
    with work.gpus_of_its_own(tmp_path) as again:
        assert again == one
        with work.gpus_of_its_own(tmp_path, 2) as two:  # one of the two is taken
            assert two == {}
    with work.gpus_of_its_own(tmp_path, 2) as both:
        assert both == {"CUDA_VISIBLE_DEVICES": "0,1"}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")  # as a scheduler says
    with work.gpus_of_its_own(tmp_path) as given:
        assert given == {}
    code, said = work.run_process(["sh", "-c", "echo $CUDA_VISIBLE_DEVICES >&2; exit 3"], variables=other)
    assert (code, said) == (3, ["1"])


def begun(job: int, metric_lines: int) -> bool:
    path = Path(f"sweep/{job}/metrics.jsonl")
    return path.exists() and len(path.read_text().splitlines()) >= metric_lines


def wait_until(condition: Any, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to that in time"
        time.sleep(0.05)


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, *(pytest.param(n, marks=[pytest.mark.slow]) for n in (signal.SIGINT, signal.SIGKILL))]
)
@pytest.mark.slow
def test_a_sweep_that_is_stopped_goes_on(number):
    """The job at work is saved, even where the sweep itself is killed, and none begins after it."""
    words = small("env=pixel", "agent=dqn", "reward=target", "brush=pen")
    words = [*words, "total_steps=4000000", "log_interval=200", "seed=1,2", "hydra.sweep.dir=sweep"]
    command = [sys.executable, "-m", "rlgen_cli", "train", "-m", *words]
    with subprocess.Popen(
        command, env=os.environ | MINIMAL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as sweep:
        wait_until(lambda: begun(0, 3))
        sweep.send_signal(number)
        sweep.communicate(timeout=60)
    assert sweep.returncode == (-signal.SIGKILL if number == signal.SIGKILL else PREEMPTED)
    wait_until(lambda: said_of(0)["status"] == "preempted")
    assert not Path("sweep/1/config.yaml").exists()
    step = said_of(0)["step"]
    for name in ("sweep/0/config.yaml", "sweep/sweep.json"):  # so that it ends soon
        Path(name).write_text(Path(name).read_text().replace("4000000", str(step + 200)))
    done = run("sweep.resume=sweep")
    assert done.returncode == 0, done.stderr
    assert "2 finished" in done.stdout
    steps = [json.loads(line)["step"] for line in Path("sweep/0/metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(steps)
    assert len(set(steps)) >= 3
    assert yaml.safe_load(Path("sweep/0/config.yaml").read_text())["total_steps"] == step + 200
