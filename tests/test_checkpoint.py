import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from rlgen_cli.core import checkpoint
from rlgen_cli.core.errors import UserError

TREE = {
    "agent": {
        "net": {"weight": torch.randn(3, 2), "count": torch.tensor(5)},
        "optimizer": {"state": {0: {"step": torch.tensor(1.0)}, 7: {"m": torch.zeros(2, dtype=torch.uint8)}}, "betas": [0.9, 0.99]},
        "nothing": None, "text": "é", "truth": True, "empty": {},
    },
    "plain": {"step": 3, "x": 0.1 + 0.2},
}  # fmt: skip


def same(a, b) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b) and a.dtype == b.dtype
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def test_what_is_saved_comes_back_as_it_was(tmp_path):
    checkpoint.save(tmp_path / "step_1", TREE)
    assert same(TREE, checkpoint.load(tmp_path / "step_1", "cpu"))
    assert same({"plain": TREE["plain"]}, checkpoint.load(tmp_path / "step_1", "cpu", frozenset(["plain"])))
    assert not list(tmp_path.glob(".*")), "nothing half-written is left"


@pytest.mark.parametrize("name", ["agent.safetensors", "state.json"])
def test_one_flipped_bit_is_found(tmp_path, name):
    checkpoint.save(tmp_path / "step_1", TREE)
    content = bytearray((tmp_path / "step_1" / name).read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "step_1" / name).write_bytes(bytes(content))
    with pytest.raises(UserError, match=f"{name} is damaged"):
        checkpoint.load(tmp_path / "step_1", "cpu")


def test_missing_files_are_named(tmp_path):
    checkpoint.save(tmp_path / "step_1", TREE)
    (tmp_path / "step_1" / "agent.safetensors").unlink()
    with pytest.raises(UserError, match=r"agent\.safetensors cannot be read"):
        checkpoint.load(tmp_path / "step_1", "cpu")
    with pytest.raises(UserError, match="there is no"):
        checkpoint.load(tmp_path / "step_2", "cpu")
    (tmp_path / "step_1" / "manifest.json").write_text("{")
    with pytest.raises(UserError, match="damaged"):
        checkpoint.load(tmp_path / "step_1", "cpu")


def test_the_manifest_cannot_point_outside(tmp_path):
    checkpoint.save(tmp_path / "run" / "step_1", TREE)
    (tmp_path / "secret").write_text("{}")
    manifest = tmp_path / "run" / "step_1" / "manifest.json"
    content = json.loads(manifest.read_text())
    content["sha256"]["../../secret"] = "0"
    manifest.write_text(json.dumps(content))
    with pytest.raises(UserError):
        checkpoint.load(tmp_path / "run" / "step_1", "cpu")


def test_pruning_keeps_the_newest_and_the_best(tmp_path):
    for step in range(5):
        checkpoint.save(tmp_path / "checkpoints" / f"step_{step}", {"plain": {"step": step}})
    checkpoint.prune(tmp_path, 2, "step_1")
    assert [path.name for path in checkpoint.steps(tmp_path)] == ["step_1", "step_3", "step_4"]


def test_a_kill_while_writing_leaves_a_loadable_checkpoint(tmp_path):
    """A process that overwrites the same checkpoint without end is killed at random moments."""
    script = (
        "import sys, torch; from pathlib import Path; from rlgen_cli import checkpoint\n"
        "i = 0\n"
        "while True:\n"
        "    i += 1\n"
        "    checkpoint.save(Path(sys.argv[1]) / 'checkpoints' / f'step_{i % 3}', {'a': {'x': torch.full((200000,), float(i)), 'i': i}})\n"
        "    print(i, flush=True)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    for kill in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True, env=environment
        )
        assert process.stdout is not None
        for _ in range(4):
            process.stdout.readline()
        time.sleep(0.003 * kill)
        process.send_signal(signal.SIGKILL)
        process.wait()
        saved = checkpoint.load_newest(tmp_path, "cpu")["a"]
        assert (saved["x"] == saved["i"]).all()
