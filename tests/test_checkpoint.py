"""Checkpoints in parts: exact, atomic, checked; and random streams that open on any device."""

import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from rlgen_cli.core import checkpoint, files, seeding
from rlgen_cli.core.errors import UserError

NET = {"weight": torch.randn(3, 2), "count": torch.tensor(5)}
PARTS: dict[str, dict[str, Any]] = {
    "policy": {"policy": {"network": NET, "progress": 0.25}},
    "training": {
        "agent": {
            "optimizer": {"state": {0: {"step": torch.tensor(1.0)}, 7: {"m": torch.zeros(2, dtype=torch.uint8)}}, "betas": [0.9, 0.99]},
            "nothing": None, "text": "é", "truth": True, "empty": {},
        },
        "loop": {"step": 3, "x": 0.1 + 0.2},
    },
    "streams": {"streams": seeding.streams_state(seeding.streams(0, "cpu"))},
}  # fmt: skip
DTYPES = [
    torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.float16, torch.bfloat16,
    torch.float32, torch.float64,
]  # fmt: skip


def same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b) and a.dtype == b.dtype
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def opens(folder: Path, parts: dict[str, dict[str, Any]]) -> bool:
    """The checkpoint holds these parts, to the bit, and nothing half-written lies beside it."""
    checkpoint.check(folder)
    whole = all(same(parts[part], checkpoint.load(folder, part, "cpu")) for part in parts)
    return whole and not list(folder.parent.glob(".*"))


def rewrite_manifest(folder: Path, **changes: Any) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_what_is_saved_comes_back_as_it_was(tmp_path):
    checkpoint.save(tmp_path / "step_1", PARTS)
    assert opens(tmp_path / "step_1", PARTS)
    assert sorted(path.name for path in (tmp_path / "step_1").iterdir()) == [
        "manifest.json",
        "policy",
        "streams",
        "training",
    ]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_type_comes_back_to_the_bit(dtype, tmp_path):
    numbers = torch.tensor([[0.0, 1.0, 2.0], [3.0, 100.0, 1.0]]).to(dtype)
    tree = {"x": numbers, "row": numbers[0], "column": numbers[:, 1], "scalar": numbers[1, 1], "none": numbers[:0]}
    checkpoint.save(tmp_path / "step_1", {"training": {"a": tree}})
    assert same({"a": tree}, checkpoint.load(tmp_path / "step_1", "training", "cpu"))


def test_a_part_is_read_alone(tmp_path):
    """Sampling, a prior or a guide needs the part `policy`, whatever became of the others."""
    folder = tmp_path / "step_1"
    checkpoint.save(folder, PARTS)
    (folder / "training" / "agent.safetensors").write_bytes(b"damaged")
    assert same(PARTS["policy"], checkpoint.load(folder, "policy", "cpu"))
    shutil.rmtree(folder / "training")
    shutil.rmtree(folder / "streams")
    assert same(PARTS["policy"], checkpoint.load(folder, "policy", "cpu"))
    with pytest.raises(UserError, match=r"training/agent\.safetensors cannot be read"):
        checkpoint.load(folder, "training", "cpu")
    with pytest.raises(UserError, match=r"^checkpoint: .*training/agent\.safetensors cannot be read"):
        checkpoint.check(folder)
    with pytest.raises(UserError, match=r"^checkpoint: .* has no part replay\.$"):
        checkpoint.load(folder, "replay", "cpu")


def test_tensors_are_put_on_the_device_that_is_asked_for(tmp_path):
    checkpoint.save(tmp_path / "step_1", PARTS)
    loaded = checkpoint.load(tmp_path / "step_1", "policy", "meta")["policy"]
    assert loaded["network"]["weight"].device.type == "meta"
    assert loaded["network"]["weight"].shape == (3, 2)
    assert loaded["progress"] == 0.25


@pytest.mark.parametrize("name", ["policy/policy.safetensors", "policy/state.json"])
def test_one_flipped_bit_is_found(tmp_path, name):
    checkpoint.save(tmp_path / "step_1", PARTS)
    content = bytearray((tmp_path / "step_1" / name).read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "step_1" / name).write_bytes(bytes(content))
    with pytest.raises(UserError, match=rf"^checkpoint: .*{name} is damaged \(its SHA-256 is not the manifest's\)\.$"):
        checkpoint.load(tmp_path / "step_1", "policy", "cpu")
    with pytest.raises(UserError, match=f"{name} is damaged"):
        checkpoint.check(tmp_path / "step_1")


def test_missing_files_are_named(tmp_path):
    checkpoint.save(tmp_path / "step_1", PARTS)
    (tmp_path / "step_1" / "policy" / "policy.safetensors").unlink()
    with pytest.raises(UserError, match=r"policy\.safetensors cannot be read"):
        checkpoint.load(tmp_path / "step_1", "policy", "cpu")
    with pytest.raises(UserError, match="there is no"):
        checkpoint.load(tmp_path / "step_2", "policy", "cpu")
    (tmp_path / "step_1" / "manifest.json").write_text("{")
    with pytest.raises(UserError, match=r"manifest\.json is damaged"):
        checkpoint.load(tmp_path / "step_1", "policy", "cpu")


@pytest.mark.parametrize("manifest", [{"format": 1, "sha256": {"agent.safetensors": "0"}}, {"sha256": {}}, {}])
def test_a_checkpoint_of_another_version_is_refused_in_a_sentence(manifest, tmp_path):
    checkpoint.save(tmp_path / "step_1", PARTS)
    (tmp_path / "step_1" / "manifest.json").write_text(json.dumps(manifest))
    for read in (checkpoint.check, lambda folder: checkpoint.load(folder, "policy", "cpu")):
        with pytest.raises(UserError, match=r"^checkpoint: .*(was written by format 1 of rlgen|is damaged)"):
            read(tmp_path / "step_1")


@pytest.mark.parametrize(("old", "new"), [("policy/", "polici/"), ("state.json", "stato.json")])
def test_a_manifest_whose_list_was_changed_is_no_checkpoint(old, new, tmp_path):
    checkpoint.save(tmp_path / "step_1", PARTS)
    path = tmp_path / "step_1" / "manifest.json"
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(UserError, match=r"manifest\.json is damaged \(its list is not the one that was written\)"):
        checkpoint.check(tmp_path / "step_1", "policy")


def test_pruning_never_takes_what_was_written_just_now(tmp_path):
    for step in (1, 2, 3, 4):
        checkpoint.save(tmp_path / "checkpoints" / f"step_{step}", {"training": {"loop": {"step": step}}})
    checkpoint.prune(tmp_path, 2, ["step_1", "step_2"])
    assert [path.name for path in checkpoint.steps(tmp_path)] == ["step_1", "step_2", "step_3", "step_4"]


def test_the_manifest_cannot_point_outside(tmp_path):
    checkpoint.save(tmp_path / "run" / "step_1", PARTS)
    folder = tmp_path / "run" / "step_1"
    (tmp_path / "secret").write_text("{}")
    digests = json.loads((folder / "manifest.json").read_text())["sha256"]
    for outside in ("policy/../../../secret", f"policy/{tmp_path}/secret"):
        rewrite_manifest(folder, sha256=digests | {outside: "0"})
        with pytest.raises(UserError, match="does not list a checkpoint's files"):
            checkpoint.load(folder, "policy", "cpu")
    rewrite_manifest(folder, sha256=digests | {"../../secret": "0"})
    for read in (checkpoint.check, lambda folder: checkpoint.load(folder, "policy", "cpu")):
        with pytest.raises(UserError, match="does not list a checkpoint's files"):
            read(folder)


def test_pruning_keeps_the_newest_and_the_best(tmp_path):
    for step in range(5):
        checkpoint.save(tmp_path / "checkpoints" / f"step_{step}", {"training": {"loop": {"step": step}}})
    checkpoint.prune(tmp_path, 2, ["step_1"])
    assert [path.name for path in checkpoint.steps(tmp_path)] == ["step_1", "step_3", "step_4"]


def test_the_newest_intact_checkpoint_is_found(tmp_path, caplog):
    for step in range(3):
        checkpoint.save(tmp_path / "checkpoints" / f"step_{step}", {"training": {"loop": {"step": step}}})
    (tmp_path / "checkpoints" / "step_2" / "training" / "state.json").write_text("{}")
    rewrite_manifest(tmp_path / "checkpoints" / "step_1", format=1)
    assert checkpoint.newest(tmp_path).name == "step_0"
    assert "state.json is damaged" in caplog.text
    assert "format 1 of rlgen" in caplog.text
    # For whoever needs one part alone, that part is enough.
    checkpoint.save(tmp_path / "checkpoints" / "step_3", PARTS)
    (tmp_path / "checkpoints" / "step_3" / "training" / "agent.safetensors").unlink()
    assert checkpoint.newest(tmp_path, "policy").name == "step_3"
    assert checkpoint.newest(tmp_path).name == "step_0"
    shutil.rmtree(tmp_path / "checkpoints" / "step_0")
    with pytest.raises(UserError, match="holds no intact checkpoint"):
        checkpoint.newest(tmp_path)


@pytest.mark.parametrize("overwrite", [True, False])
def test_a_failure_while_writing_leaves_what_was_there(overwrite, tmp_path, monkeypatch):
    """The disk is full at the first, the second, … file that is written."""
    folder, older = tmp_path / "step_1", {"policy": {"policy": {"x": torch.ones(4)}}}
    if overwrite:
        checkpoint.save(folder, older)
    write, calls = files.write_synced, 0
    for fails_at in range(100):
        calls = 0

        def full(path: Path, content: bytes, fails_at: int = fails_at) -> None:
            nonlocal calls
            calls += 1
            if calls > fails_at:
                path.write_bytes(content[: len(content) // 2])
                raise OSError(28, "No space left on device")
            write(path, content)

        monkeypatch.setattr(checkpoint, "write_synced", full)
        try:
            checkpoint.save(folder, PARTS)
        except OSError:
            assert opens(folder, older) if overwrite else not list(tmp_path.iterdir())
        else:
            break
    assert fails_at == 7  # three parts, of tensors and of plain values, and the manifest: each failed once
    assert opens(folder, PARTS)


def test_what_cannot_be_written_as_json_leaves_what_was_there(tmp_path):
    checkpoint.save(tmp_path / "step_1", PARTS)
    with pytest.raises(TypeError):
        checkpoint.save(tmp_path / "step_1", {"policy": {"policy": {"rng": torch.Generator()}}})
    assert opens(tmp_path / "step_1", PARTS)


def test_leftovers_of_a_killed_process_are_no_hindrance(tmp_path):
    for kind in ("partial", "old"):
        (tmp_path / f".{kind}_step_1_{os.getpid()}" / "policy").mkdir(parents=True)
    checkpoint.save(tmp_path / "step_1", PARTS)
    checkpoint.save(tmp_path / "step_1", PARTS)
    assert opens(tmp_path / "step_1", PARTS)


KILLED = """
import os, signal, sys, time, torch
from pathlib import Path
from rlgen_cli.core import checkpoint

torch.set_num_threads(1)
for kill in range(4):
    reader, writer = os.pipe()
    child = os.fork()
    while child == 0:
        for i in range(10**9):
            part = {"a": {"x": torch.full((200000,), float(i)), "i": i}}
            checkpoint.save(Path(sys.argv[1]) / str(kill) / "checkpoints" / f"step_{i % 3}", {"training": part})
            os.write(writer, b".")
    for _ in range(4):
        os.read(reader, 1)
    time.sleep(0.003 * kill)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
"""


def test_a_kill_while_writing_leaves_a_loadable_checkpoint(tmp_path):
    """Processes that overwrite the same checkpoints without end are killed at different moments."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=True, env=environment, timeout=100)
    for kill in range(4):
        saved = checkpoint.load(checkpoint.newest(tmp_path / str(kill)), "training", "cpu")["a"]
        assert (saved["x"] == saved["i"]).all()
        assert saved["i"] > 0


def drawn(streams: dict[str, torch.Generator]) -> dict[str, list[float]]:
    """The next numbers of each stream."""
    return {name: torch.rand(4, generator=rng).tolist() for name, rng in streams.items()}


def test_random_streams_go_on_where_they_were(tmp_path, caplog):
    streams = seeding.streams(7, "cpu")
    drawn(streams)
    checkpoint.save(tmp_path / "step_1", {"streams": {"streams": seeding.streams_state(streams)}})
    expected, other = drawn(streams), seeding.streams(8, "cpu")
    with caplog.at_level(logging.WARNING):
        seeding.restore_streams(other, checkpoint.load(tmp_path / "step_1", "streams", "cpu")["streams"], 7, 100)
    assert drawn(other) == expected
    assert not caplog.text


def test_random_streams_of_another_device_begin_anew_from_seed_and_step(caplog):
    """What a GPU's generator drew has no counterpart on a CPU: the run goes on with numbers of its own, the same ones
    whenever it is opened, others at every step."""

    def restored(seed: int, step: int) -> dict[str, list[float]]:
        streams = seeding.streams(seed, "cpu")
        drawn(streams)  # what was drawn before the restoring plays no part
        seeding.restore_streams(streams, saved, seed, step)
        return drawn(streams)

    streams = seeding.streams(7, "cpu")
    beginning = drawn(seeding.streams(7, "cpu"))
    saved = seeding.streams_state(streams)
    for name in ("policy", "env"):
        saved[name] = saved[name] | {"device": "cuda", "state": torch.zeros(16, dtype=torch.uint8)}
    with caplog.at_level(logging.WARNING):
        once = restored(7, 100)
    said = sorted(record.getMessage() for record in caplog.records)
    assert said == [f"the random stream {name} was drawn on cuda; it begins anew on cpu" for name in ("env", "policy")]
    assert once == restored(7, 100)
    for name in ("policy", "env"):
        for other in (beginning, restored(7, 200), restored(8, 100)):
            assert once[name] != other[name]
    for name in ("agent", "reward", "generator"):  # these were drawn here, and go on
        assert once[name] == beginning[name]
    assert len({tuple(numbers) for numbers in once.values()}) == len(seeding.STREAMS)


def test_streams_depend_on_their_name_and_seed_alone():
    one, two = seeding.stream(3, "env"), seeding.stream(3, "env")
    assert torch.equal(torch.rand(5, generator=one), torch.rand(5, generator=two))
    assert not torch.equal(torch.rand(5, generator=one), torch.rand(5, generator=seeding.stream(3, "policy")))
    assert not torch.equal(torch.rand(5, generator=two), torch.rand(5, generator=seeding.stream(4, "env")))
    assert seeding.stream(3, "env", "meta").device.type == "cpu"  # the meta device has no generator
