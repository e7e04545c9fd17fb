"""Lines of the checkpoint, config and loader modules that no other test of theirs reaches; `make coverage` asks for all."""

import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from rlgen_cli.config.compose import composed, nearest_key
from rlgen_cli.config.instantiate import component, find, plain
from rlgen_cli.config.locate import target_of
from rlgen_cli.config.saved import LENGTH, read_config
from rlgen_cli.config.settings import FitSettings
from rlgen_cli.core.arrays import read_arrays
from rlgen_cli.core.errors import UserError
from rlgen_cli.core.trust import Trust
from rlgen_cli.data.folder import Folder
from rlgen_cli.data.images import Images, content_share, digest
from rlgen_cli.data.mnist import IdxImages
from rlgen_cli.data.palette import canvas_palette, line_width
from rlgen_cli.data.sequences import Sequences
from rlgen_cli.domains.music.datasets.oracle import GATES, INPUTS, MEMORY, Oracle, OracleSamples
from rlgen_cli.domains.music.datasets.text import Text
from rlgen_cli.domains.music.datasets.windows import encode_splits
from rlgen_cli.domains.music.encodings import HOLD, REST, Chorale, Melody, _cut
from rlgen_cli.domains.music.notes import Note, Piece
from rlgen_cli.generators.onnx_file import parts
from rlgen_cli.runs.trainer import train
from tests.conftest import session, small, write_idx, write_picture


@pytest.mark.parametrize(
    ("command", "words", "said"),
    [
        ("pretrain", "env=tiny", r"^env=tiny: has nothing to pretrain; use env="),
        ("train", "--config-name nothing", r"nothing"),
        ("train", "+reward/term@reward.terms.target=target", r"^reward/term: reward\.terms\.target is there already"),
        ("train", "+reward/term=ink_cost,coverage", r"^reward/term: a sweep needs one place for all its terms"),
    ],
)
def test_what_cannot_be_composed_is_a_sentence(command, words, said):
    with pytest.raises(UserError, match=said):
        composed(command, words.split())


def test_what_is_composed_in_rare_ways():
    prior = composed("train", ["env=music", "agent=dqn", "+network@agent.prior.network=lstm"]).agent.prior.network
    assert prior._target_.endswith("PolicyNetwork")
    assert set(composed("train", ["experiment=resketch", "+reward/term=ink_cost"]).reward.terms) == {
        "target",
        "ink_cost",
    }
    assert "names it" in nearest_key("train", ["env=pixel"], "encoding")


def test_a_value_that_refers_to_what_is_missing_says_what(monkeypatch):
    monkeypatch.delenv("RLGEN_DATA", raising=False)
    with pytest.raises(UserError, match=r"^paths\.data: .*jsb"):
        plain(composed("train", ["env=music", "encoding=chorale", "data=jsb"]).data)


def test_a_component_that_is_none():
    with pytest.raises(UserError, match=r"^agent\._target_: rlgen_cli\.nothing\.X cannot be imported"):
        find("rlgen_cli.nothing.X", "agent")
    with pytest.raises(UserError, match=r"^x\.end: is missing\.$"):
        component({"_target_": "rlgen_cli.core.schedules.Linear", "start": 1.0}, "x")
    assert target_of("nothing", "x") is None


def test_a_text_that_is_too_long_for_a_config(tmp_path):
    (tmp_path / "config.yaml").write_text(f"seed: {'x' * (LENGTH + 1)}\n")
    with pytest.raises(UserError, match=r"no config of a run \(a value is longer than 20000 characters\)"):
        read_config(tmp_path / "config.yaml", Trust())


@pytest.mark.parametrize(("changes", "said"), [({"epochs": 0}, "^epochs: "), ({"patience": 0}, "^patience: ")])
def test_settings_of_pretraining(changes, said):
    with pytest.raises(UserError, match=said):
        FitSettings(**({"epochs": 1, "patience": None, "keep": "best"} | changes))


def test_an_array_that_unpacks_to_too_much(tmp_path):
    np.savez_compressed(tmp_path / "x.npz", x=np.zeros(17 << 20, np.float32))
    with pytest.raises(ValueError, match=r"x\.npy has 71303296 bytes, more than 64 MiB"):
        read_arrays(tmp_path / "x.npz", ["x"])


def test_images_without_pixels_or_with_too_many_greys_are_left_out(tmp_path, caplog):
    write_picture(tmp_path / "good.png")
    (tmp_path / "none.gif").write_bytes(b"GIF89a" + struct.pack("<HH", 0, 0) + bytes(3) + b",")
    Image.fromarray(np.array([[-1, 70_000]], np.int32)).save(tmp_path / "deep.tiff")
    images = Folder(str(tmp_path), "auto", 0).load(8, 1).train.images
    assert len(images) == 1
    assert "its greys need more than 16 bits" in caplog.text
    assert "none.gif" in caplog.text


def test_counts_of_named_tuples_are_refused():
    images = Images(torch.zeros(3, 1, 4, 4, dtype=torch.uint8), torch.zeros(3), ())
    for wrong in (images, Sequences(torch.zeros(3, 4, 1), None)):  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="counts its fields"):
            len(wrong)
    assert digest(torch.zeros(2, 1, device="meta")) == "meta (2, 1)"


def test_a_handful_of_idx_images_that_would_all_validate(tmp_path):
    folder = write_idx(tmp_path / "idx", images=1, side=4)
    head = struct.pack(">HBB3I", 0, 8, 3, 1, 4, 4)
    pixels = next(
        picture for i in range(1000)
        if content_share(picture := torch.full((1, 4, 4), i % 256, dtype=torch.uint8) + torch.eye(4, dtype=torch.uint8) * (i // 256))[0] < 0.05
    )  # fmt: skip
    (folder / "train-images-idx3-ubyte").write_bytes(head + pixels.numpy().tobytes())
    write_idx(tmp_path / "more", images=2, side=4)
    head = struct.pack(">HBB3I", 0, 8, 3, 2, 4, 4)
    (folder / "train-images-idx3-ubyte").write_bytes(head + 2 * pixels.numpy().tobytes())
    (folder / "train-labels-idx1-ubyte").write_bytes((tmp_path / "more" / "train-labels-idx1-ubyte").read_bytes())
    splits = IdxImages("x", str(folder), "https://127.0.0.1:9", {}, list("0123456789"), None).load(4, 1)
    assert (len(splits.train.images), len(splits.valid.images)) == (1, 1)


def test_palettes_and_line_widths_by_hand():
    colours = torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert canvas_palette(colours, 4, "white")[0].tolist() == [255, 255, 255]
    assert canvas_palette(colours, 4, "black")[0].tolist() == [0, 0, 0]
    line = torch.zeros(1, 1, 16, 16, dtype=torch.uint8)
    line[..., 7:9] = 255
    # Area 2 · 16 over an outline of 2 · 16, times 8 / π = 2.55, to a quarter.
    assert line_width(line, torch.tensor([0], dtype=torch.uint8)) == 2.5


def test_an_oracle_that_knows_nothing_is_uniform(tmp_path):
    words, width = 30, 4
    arrays: dict[str, Any] = {name: np.zeros((width, width)) for name in (*INPUTS, *MEMORY)}
    arrays |= {name: np.zeros(width) for name in GATES} | {"embedding": np.zeros((words, width))}
    np.savez(tmp_path / "oracle.npz", **arrays, Wv=np.zeros((width, words)), bv=np.zeros(words))
    nll = Oracle(tmp_path / "oracle.npz").nll(torch.randint(0, words, (2, 5)))
    assert nll.tolist() == pytest.approx([math.log(words)] * 2)


def test_notes_are_no_tokens_of_text(tmp_path):
    melody = Melody(low=48, high=83, grid=4)
    (tmp_path / "text.txt").write_text("a b c " * 100)
    for data in (OracleSamples("nowhere.npz", 10, 0), Text(str(tmp_path / "text.txt"), "word", 100)):
        with pytest.raises(UserError, match=r"use encoding=tokens"):
            data.load(melody, 8, 4)


def test_pieces_that_an_encoding_cannot_say_are_counted(caplog):
    alone = Piece((Note(0, 4, 60),), 16)  # one voice of four
    encoding = Chorale(ranges=[[60, 81], [53, 74], [48, 69], [36, 64]], grid=4)
    with (
        caplog.at_level("INFO"),
        pytest.raises(UserError, match=r"none of 3 pieces fits; the commonest reason: has not 4"),
    ):
        encode_splits(([alone], [alone], [alone]), encoding, 8, 16, None, [0])
    assert "3 pieces are left out" in caplog.text


def test_fields_of_a_fixed_length_in_a_protocol_buffer_are_passed_over():
    fixed = bytes([1 << 3 | 1]) + bytes(8) + bytes([2 << 3 | 5]) + bytes(4) + bytes([3 << 3 | 2, 2]) + b"ab"
    assert [(field, bytes(value)) for field, value in parts(memoryview(fixed))] == [(3, b"ab")]


def test_a_run_is_a_guide(tmp_path):
    train(session(*small("agent=actor_critic", "brush=stroke"), "total_steps=8"), tmp_path / "run")
    built: Any = session(*small("agent=cem", "brush=stroke", f"agent.start.guide={tmp_path / 'run'}"))
    assert built.actor.start.net is not None
    npz = Path("none.npz")
    with pytest.raises(UserError, match=r"^agent\.start"):
        session(*small("agent=cem", "brush=stroke", f"agent.start.guide={npz}"))


def test_a_note_that_goes_on_from_before_a_window_starts_anew_in_it():
    """By hand: rest 0, hold 1, notes 5 and 7; a window of two steps begins at every other one."""
    events = torch.tensor([5, HOLD, HOLD, REST, HOLD, 7, HOLD, HOLD]).unsqueeze(1)
    windows = [window.squeeze(1).tolist() for window in _cut(events, 2, 2)]
    assert windows == [[5, HOLD], [5, REST], [REST, 7], [7, HOLD]]
