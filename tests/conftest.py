"""Small sessions that every test can afford. Torch runs on one thread, so that results do not depend on the machine."""

import os
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import DictConfig

from rlgen_cli.build import Session, build
from rlgen_cli.cli import composed, register_resolvers

SHARED = Path(__file__).parent.parent.parent / "shared" / "data"
SMALL = [
    "threads=1",
    "num_envs=4",
    "total_steps=160",
    "log_interval=40",
    "eval_interval=80",
    "eval_episodes=4",
    "checkpoint_interval=1000",
]
CANVAS = ["env.size=12", "env.max_steps=6", "env.patch=0", "data.per_class=4"]
Q_NETWORK = ["agent.network.width=16", "agent.network.channels=4"]
POLICY = ["agent.network.body.width=16", "agent.network.channels=4"]
LEARNERS = {
    "dqn": ["agent.warmup=16", "agent.batch_size=8", "agent.capacity=400", *Q_NETWORK],
    "actor_critic": POLICY,
    "ppo": POLICY,
    "policy_gradient": ["agent.group=2", *POLICY],
}


@pytest.fixture(autouse=True)
def _quiet_place(tmp_path, monkeypatch):
    """Every test works in a folder of its own, with a cache of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RLGEN_CACHE", str(tmp_path / "cache"))
    torch.set_num_threads(1)
    register_resolvers()


def compose(*overrides: str) -> DictConfig:
    return composed("train", list(overrides))


def session(*overrides: str) -> Session:
    return build(compose(*overrides))


def small(*overrides: str) -> list[str]:
    """A training of seconds on a small canvas."""
    tiny = any(o == "env=tiny" for o in overrides)
    agent = next((o.removeprefix("agent=") for o in overrides if o.startswith("agent=")), "dqn")
    fast = "reward.terms.classifier.steps=5" if any("classifier" in o for o in overrides) else ""
    return [
        *overrides,
        *SMALL,
        *([] if tiny else CANVAS),
        *LEARNERS.get(agent, []),
        *([fast] if fast else []),
    ]


def write_idx(folder: Path, images: int = 30, side: int = 28) -> Path:
    """Four files in MNIST's format, with random pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for name in ("train", "t10k"):
        pixels = rng.integers(0, 256, (images, side, side), dtype=np.uint8)
        labels = (np.arange(images) % 10).astype(np.uint8)
        for kind, array in (("images-idx3", pixels), ("labels-idx1", labels)):
            head = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
            (folder / f"{name}-{kind}-ubyte").write_bytes(head + array.tobytes())
    return folder


def needs_shared(name: str):
    """Skip, with the reason, where the real data is not there."""
    path = SHARED / name
    return pytest.mark.skipif(not path.exists(), reason=f"needs {os.path.join('shared', 'data', name)}")
