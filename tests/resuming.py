"""A run that was cut off and went on ends like one that was not."""

import copy
import json
from pathlib import Path
from typing import Any

import torch

from rlgen_cli.core import checkpoint
from rlgen_cli.runs.trainer import resume, train
from tests.conftest import compose, fitted

PARTS = ("policy", "training", "streams")


def resumes(words: list[str], total: int, tmp_path: Path) -> None:
    """Train twice nearly to the end, once with a break half way: checkpoints and records are equal; and on to the
    end. What the runs leave is in the folders `whole` and `parts`."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    config = compose(*words)  # once, since Hydra takes as long as a short training
    for stop_at, folder in ((total - 4, whole), (total // 2, parts)):
        stopping = copy.deepcopy(config)
        stopping.stop_at = stop_at
        assert train(fitted(stopping), folder) == "stopped"
    assert resume(parts, {"stop_at": total - 4}) == "stopped"
    for part in PARTS:
        one, two = (checkpoint.load(checkpoint.steps(folder)[-1], part, "cpu") for folder in (whole, parts))
        same(one, two, part)
    records = [[json.loads(line) for line in (f / "metrics.jsonl").read_text().splitlines()] for f in (whole, parts)]
    timeless = [[{k: v for k, v in r.items() if "second" not in k} for r in record] for record in records]
    assert timeless[0] == timeless[1]
    assert resume(parts, {}) == "finished"


def same(one: Any, two: Any, path: str) -> None:
    """Two trees of tensors and plain values are equal to the bit."""
    assert type(one) is type(two), path
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, two), path
    elif isinstance(one, dict):
        assert one.keys() == two.keys(), path
        for key in one:
            same(one[key], two[key], f"{path}/{key}")
    elif isinstance(one, list):
        assert len(one) == len(two), path
        for i, pair in enumerate(zip(one, two, strict=True)):
            same(*pair, f"{path}/{i}")
    else:
        assert one == two, path
