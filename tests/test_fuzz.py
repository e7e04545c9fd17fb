"""The fuzz targets themselves: their seeds are read, and the runner without atheris finds and saves what escapes."""

import random
import time
import types
from pathlib import Path

import pytest

from tests.fuzz import run


@pytest.mark.parametrize("name", run.TARGETS)
def test_a_target_reads_its_seeds_and_changes_of_them(name):
    module, rng = run.load(name), random.Random(0)
    seeds = module.seeds()
    for data in seeds:
        module.target(data)
    for _ in range(20):
        run.guarded(module.target, run.changed(rng, seeds))


def fails(data: bytes) -> None:
    if b"\xff" in data:
        raise KeyError("escaped")


def waits(data: bytes) -> None:
    if b"\xff" in data:
        time.sleep(60)


@pytest.mark.parametrize(("target", "said"), [(fails, "escaped"), (waits, "more than 1 seconds")])
def test_what_escapes_is_saved(target, said, monkeypatch, capsys):
    monkeypatch.setattr(run, "SLOWEST", 1)
    monkeypatch.setattr(run, "load", lambda _: types.SimpleNamespace(target=target, seeds=lambda: [b"seed"]))
    assert run.by_chance("x", 60, Path()) == 1
    (saved,) = Path().glob("crash-*")
    assert b"\xff" in saved.read_bytes()
    assert said in capsys.readouterr().out
