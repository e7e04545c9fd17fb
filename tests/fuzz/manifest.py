"""A checkpoint with one of its files changed: the first byte says which, and whether the manifest has its digest."""

import hashlib
import json
import tempfile
from pathlib import Path

import torch

from rlgen_cli.core import checkpoint
from tests.hostile import write_manifest

PLACE = tempfile.TemporaryDirectory(prefix="fuzz_manifest_")
FILES = ("manifest.json", "policy/state.json", "policy/policy.safetensors")
STATE = {
    "policy": {"weight": torch.arange(6.0).view(2, 3), "rng": b"bytes", "steps": {0: 1, 1: 2}, "nested": [None, 0.5, "x"]},
    "loop": {"step": 4, "best": "step_000000004"},
}  # fmt: skip


def target(data: bytes) -> None:
    run = Path(PLACE.name)
    folder = run / "checkpoints" / "step_000000004"
    for name, content in GOOD.items():
        (folder / name).write_bytes(content)
    which = data[0] if data else 0
    name = FILES[(which & 3) % 3]
    (folder / name).write_bytes(data[1:])
    if which & 4 and name != "manifest.json":
        manifest = json.loads(GOOD["manifest.json"])
        manifest["sha256"][name] = hashlib.sha256(data[1:]).hexdigest()
        write_manifest(folder, manifest)
    checkpoint.load(checkpoint.newest(run, "policy"), "policy", "cpu")


def seeds() -> list[bytes]:
    return [bytes([i | flag]) + GOOD[name] for i, name in enumerate(FILES) for flag in (0, 4)]


def _good() -> dict[str, bytes]:
    folder = Path(PLACE.name) / "checkpoints" / "step_000000004"
    folder.parent.mkdir(exist_ok=True)
    checkpoint.save(folder, {"policy": STATE})
    return {name: (folder / name).read_bytes() for name in FILES}


GOOD = _good()
