"""Several hosts: one training over a network, and a Ray cluster's sweep, each with a host that is lost in the middle."""

import json
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from rlgen_cli.core import checkpoint
from rlgen_cli.runs.states import state_of
from tests.conftest import small
from tests.scale.hosts import Hosts, hosts

pytestmark = pytest.mark.scale
PORT = 29511
RAY_PORT = 6380
RUN = [
    *small("env=tiny", "agent=dqn"), "total_steps=6000", "checkpoint_interval=400", "eval_interval=100000",
    "log_interval=400", "agent.batch_size=32", "logger=none", "hydra.run.dir=run",
]  # fmt: skip


def until(holds: Callable[[], bool], seconds: float, what: str) -> None:
    """Wait, and fail where it does not come."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, f"{what} did not come within {seconds:.0f} s"
        time.sleep(0.1)


def statuses(runs: list[Path]) -> dict[str, str]:
    """How each is doing."""
    return {run.name: state.status if (state := state_of(run)) else "missing" for run in runs}


def train_on(two: Hosts, folders: list[Path], *words: str) -> list[subprocess.Popen[str]]:
    """The same torchrun on both hosts, whose folders are not the same."""
    for folder in folders:
        folder.mkdir(exist_ok=True)
    torchrun = ["-m", "torch.distributed.run", "--nnodes=2", "--nproc_per_node=1", f"--master_addr={two.address(0)}"]
    return [
        two.begin(
            i, [*torchrun, f"--master_port={PORT}", f"--node_rank={i}", "-m", "rlgen_cli", "train", *words], folder
        )
        for i, folder in enumerate(folders)
    ]


def finished(processes: list[subprocess.Popen[str]]) -> None:
    for process in processes:
        said = process.communicate(timeout=200)[0]
        assert process.returncode == 0, said


def digests(run: Path) -> dict[str, str]:
    newest = checkpoint.steps(run)[-1]
    found: dict[str, str] = json.loads((newest / "manifest.json").read_text())["sha256"]
    return found


def test_a_training_on_two_hosts_that_loses_one_goes_on_as_if_it_had_not(tmp_path: Path) -> None:
    with hosts(2) as two:
        whole = [tmp_path / "whole", tmp_path / "whole_far"]
        finished(train_on(two, whole, *RUN))
        cut = [tmp_path / "cut", tmp_path / "cut_far"]
        processes = train_on(two, cut, *RUN)
        until(lambda: len(checkpoint.steps(cut[0] / "run")) >= 2, 120, "a second checkpoint")
        two.kill(1)
        said = processes[0].communicate(timeout=90)[0]
        assert processes[0].returncode != 0
        assert "devices: another of the 2 processes of this run has ended" in said
        state = state_of(cut[0] / "run")
        assert state is not None
        assert state.status == "failed"
        assert state.step < 6000, "it was lost in the middle"
        finished(train_on(two, cut, "resume=run"))
    assert digests(cut[0] / "run") == digests(whole[0] / "run")
    assert list(cut[1].iterdir()) == [], "the first rank alone writes"


def test_a_sweep_on_a_ray_cluster_that_loses_a_node_loses_nothing(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    place = tmp_path / "shared"
    place.mkdir()
    variables = {
        "RAY_ADDRESS": "",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "token",  # as the head asks for by itself
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
    }
    with tempfile.TemporaryDirectory(prefix="ray") as short, hosts(3) as three:  # a socket's path has 107 characters
        head = f"{three.address(0)}:{RAY_PORT}"
        for i in range(3):
            role = ["--head", f"--port={RAY_PORT}", "--include-dashboard=false"] if i == 0 else [f"--address={head}"]
            own = [f"--node-ip-address={three.address(i)}", f"--temp-dir={short}/{i}", "--num-cpus=1"]
            more = ["--object-store-memory=80000000", "--block", "--disable-usage-stats"]
            three.begin(i, ["-m", "ray.scripts.scripts", "start", *role, *own, *more], place, variables)
        count = f"import ray; ray.init(address='{head}', log_to_driver=False); print(len(ray.nodes()))"

        def nodes() -> int:
            asking = three.begin(0, ["-c", count], place, variables)
            try:
                words = asking.communicate(timeout=30)[0].split()
            except subprocess.TimeoutExpired:  # the head is not there yet
                asking.kill()
                return 0
            return int(words[-1]) if words and words[-1].isdigit() else 0

        until(lambda: nodes() == 3, 240, "a cluster of three nodes")
        words = [*small("env=tiny", "agent=dqn"), "total_steps=4000", "checkpoint_interval=400", "eval_interval=100000"]
        sweep = three.begin(
            0, ["-m", "rlgen_cli", "train", "-m", *words, "logger=none", "seed=1,2,3,4,5,6", "hydra.sweep.dir=sweep",
                "hydra/launcher=ray", f"hydra.launcher.ray.init.address={head}"], place, variables,
        )  # fmt: skip
        begun = [place / "sweep" / str(job) for job in range(6)]
        until(lambda: sum(bool(checkpoint.steps(job)) for job in begun) >= 3, 300, "three jobs at work")
        three.kill(2)
        until(lambda: "stale" in statuses(begun).values(), 20, "a job whose process is gone")
        said = sweep.communicate(timeout=400)[0]
        assert set(statuses(begun).values()) == {"finished"}, said
        assert sweep.returncode == 0, said
