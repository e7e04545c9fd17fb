"""What is broken, lies, or is a bomb, in the files that data loaders and generators read: one sentence, soon, in little
memory. The bombs are made here and are small on disk."""

import gzip
import io
import json
import os
import re
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mido
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save, save_file

from rlgen_cli.core.errors import UserError
from rlgen_cli.core.trust import Trust
from rlgen_cli.data import folder as folder_module
from rlgen_cli.data import mnist as mnist_module
from rlgen_cli.data.folder import Folder
from rlgen_cli.data.images import Splits
from rlgen_cli.data.mnist import IdxImages
from rlgen_cli.domains.music.datasets import midi_file
from rlgen_cli.domains.music.datasets.chorale_file import read_chorales
from rlgen_cli.domains.music.datasets.midi_file import read_folder
from rlgen_cli.domains.music.datasets.oracle import Oracle
from rlgen_cli.domains.music.datasets.text import Text
from rlgen_cli.domains.music.encodings import Tokens, pitch_number
from rlgen_cli.generators import onnx_file
from rlgen_cli.generators.architectures import ALLOWED
from rlgen_cli.generators.from_file import GeneratorFile
from rlgen_cli.policies.note_rnn import note_rnn_weights
from tests.conftest import write_idx, write_note_rnn, write_oracle, write_tunes

Write = Callable[[Path], object]
MIB = 1 << 20


def begins(sentence: str) -> str:
    """A pattern for messages that begin with `sentence`."""
    return f"^{re.escape(sentence)}"


ODD: dict[str, Write] = {
    "pipe": os.mkfifo,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "loop": lambda path: path.symlink_to(path.name),
    "dangling": lambda path: path.symlink_to("nowhere"),
}
ODD_REASONS = {
    "pipe": "it is a named pipe, not a regular file",
    "device": "it is a device, not a regular file",
    "loop": "Too many levels of symbolic links",
    "dangling": "there is no file of that name",
}

# Images


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(wide: int, high: int, rows: bytes = b"", depth: int = 8, colour: int = 0) -> bytes:
    """A PNG whose header says what it likes; `rows` are packed already."""
    head = struct.pack(">IIBBBBB", wide, high, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def black_png(wide: int, high: int) -> bytes:
    """A valid one, without its pixels ever being in memory."""
    packer = zlib.compressobj(9)
    rows = [packer.compress(bytes(wide + 1)) for _ in range(high)]
    return png(wide, high, b"".join([*rows, packer.flush()]))


def gif(wide: int, high: int) -> bytes:
    frame = b"\x2c" + struct.pack("<HHHHB", 0, 0, wide, high, 0) + b"\x02\x02\x44\x01\x00"
    return b"GIF89a" + struct.pack("<HHBBB", wide, high, 0x80, 0, 0) + bytes(6) + frame + b"\x3b"


def picture(kind: str, **how: Any) -> bytes:
    rng, stream = np.random.default_rng(0), io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (24, 20, 3), dtype=np.uint8)).save(stream, kind, **how)
    return stream.getvalue()


def tiff(wide: int, high: int) -> bytes:
    """Its header says what it likes."""
    content = bytearray(picture("TIFF"))
    start = struct.unpack("<I", content[4:8])[0]
    for i in range(struct.unpack("<H", content[start : start + 2])[0]):
        at = start + 2 + 12 * i
        tag = struct.unpack("<H", content[at : at + 2])[0]
        if tag in (256, 257):
            content[at : at + 12] = struct.pack("<HHII", tag, 4, 1, wide if tag == 256 else high)
    return bytes(content)


def webp(wide: int, high: int) -> bytes:
    """An extended header that says what it likes."""
    size = (wide - 1).to_bytes(3, "little") + (high - 1).to_bytes(3, "little")
    still = picture("WEBP")[12:]
    body = b"WEBP" + b"VP8X" + struct.pack("<I", 10) + b"\0\0\0\0" + size + still
    return b"RIFF" + struct.pack("<I", len(body)) + body


def many_scans() -> bytes:
    """A progressive JPEG whose last scan comes 150 times more."""
    content = picture("JPEG", progressive=True)
    last = content.rindex(b"\xff\xda")
    return content[:-2] + content[last:-2] * 150 + content[-2:]


BAD_IMAGES: dict[str, tuple[str, bytes, str]] = {
    "121 megapixels": ("x.png", png(11_000, 11_000, zlib.compress(b"")), "it has more than 64 megapixels"),
    "header of 4 000 megapixels": ("x.png", png(65_000, 65_000), "it has more than 64 megapixels"),
    "100 000 × 10": ("x.png", png(100_000, 10), "it has more than 64 megapixels or 65535 pixels a side"),
    "no pixels": ("x.png", png(0, 10), ""),
    "gif": ("x.gif", gif(65_000, 2000), "it has more than 64 megapixels"),
    "webp": ("x.webp", webp(16_000, 6000), ""),
    "tiff": ("x.tif", tiff(9000, 9000), "it has more than 64 megapixels"),
    "tiff that announces more than it has": ("x.tif", tiff(4000, 4000), ""),
    "jpeg of many scans": ("x.jpg", many_scans(), "more than 100 scans"),
    "truncated png": ("x.png", picture("PNG")[:200], ""),
    "truncated jpeg": ("x.jpg", picture("JPEG")[:-300], "truncated"),
    "truncated webp": ("x.webp", picture("WEBP")[:60], ""),
    "truncated gif": ("x.gif", picture("GIF")[:40], ""),
    "truncated tiff": ("x.tif", picture("TIFF")[:60], ""),
    "empty": ("x.png", b"", "it is no image of a known format"),
    "text": ("x.jpg", b"not a picture", "it is no image of a known format"),
    "rows that are no zlib": ("x.png", png(8, 8, b"rubbish"), ""),
}


@pytest.mark.parametrize("name", BAD_IMAGES)
def test_an_image_that_cannot_be_read_is_named_and_left_out(name, tmp_path, caplog):
    file, content, reason = BAD_IMAGES[name]
    (tmp_path / "good.png").write_bytes(picture("PNG"))
    (tmp_path / file).write_bytes(content)
    splits = Folder(str(tmp_path), "auto", 0).load(16, 3)
    assert sum(len(part.images) for part in splits) >= 1
    assert f"1 of 2 images cannot be read: {tmp_path / file} (" in caplog.text
    assert reason in caplog.text


@pytest.mark.parametrize("name", ODD)
def test_what_is_no_file_is_named_and_left_out(name, tmp_path, caplog):
    (tmp_path / "good.png").write_bytes(picture("PNG"))
    (tmp_path / "folder.png").mkdir()
    ODD[name](tmp_path / "x.png")
    Folder(str(tmp_path), "auto", 0).load(16, 3)
    assert f"1 of 2 images cannot be read: {tmp_path / 'x.png'} ({ODD_REASONS[name]})" in caplog.text


@pytest.mark.parametrize(
    "error", [struct.error, OverflowError, MemoryError, RecursionError, KeyError, zlib.error, EOFError, SyntaxError]
)
def test_whatever_pillow_raises_is_an_unreadable_file(error, tmp_path, caplog, monkeypatch):
    def fails(content: bytes) -> Image.Image:
        if content == b"bad":
            raise error("it broke")
        return decoded(content)

    decoded = folder_module.decoded
    monkeypatch.setattr(folder_module, "decoded", fails)
    (tmp_path / "good.png").write_bytes(picture("PNG"))
    (tmp_path / "x.png").write_bytes(b"bad")
    Folder(str(tmp_path), "auto", 0).load(16, 3)
    assert f"1 of 2 images cannot be read: {tmp_path / 'x.png'} (" in caplog.text
    assert "it broke" in caplog.text


def only(folder: Path, size: int, channels: int, background: str = "auto") -> torch.Tensor:
    """The folder's only picture."""
    return Folder(str(folder), background, 0).load(size, channels).train.images[0]


@pytest.mark.parametrize("high", [2, 40])
def test_a_strip_is_padded_alike_lying_and_upright(high, tmp_path):
    line = np.zeros((high, 400), np.uint8)
    for name, array in (("lying", line), ("upright", line.T)):
        (tmp_path / name).mkdir()
        Image.fromarray(array).save(tmp_path / name / "x.png")
    lying, upright = (only(tmp_path / name, 8, 1, "white") for name in ("lying", "upright"))
    assert torch.equal(lying, upright.transpose(1, 2))
    assert lying.float().mean().item() == pytest.approx(255 * (1 - high / 400), abs=1)


@pytest.mark.parametrize("kind", ["png", "tif", "pgm"])
def test_grey_of_16_bits_is_scaled(kind, tmp_path):
    values = np.array([[0, 257 * 100], [257 * 200, 65_535]], np.uint16)
    if kind == "pgm":
        (tmp_path / "x.pgm").write_bytes(b"P5 2 2 65535\n" + values.astype(">u2").tobytes())
    else:
        Image.fromarray(values).save(tmp_path / f"x.{kind}")
    assert only(tmp_path, 2, 1).flatten().tolist() == [0, 100, 200, 255]


def test_colours_of_16_bits_are_scaled(tmp_path):
    row = struct.pack(">B6H", 0, 65_535, 257 * 100, 0, 0, 257 * 200, 65_535)
    (tmp_path / "x.png").write_bytes(png(2, 1, zlib.compress(row), depth=16, colour=2))
    assert only(tmp_path, 2, 3, "black")[:, 0].T.tolist() == [[255, 100, 0], [0, 200, 255]]


def test_cmyk_is_converted(tmp_path):
    Image.new("CMYK", (4, 4), (0, 255, 255, 0)).save(tmp_path / "x.tif")
    assert only(tmp_path, 4, 3)[:, 0, 0].tolist() == [255, 0, 0]


def test_of_an_animation_the_first_picture_is_taken(tmp_path):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    for kind in ("gif", "webp", "png"):
        (tmp_path / kind).mkdir()
        how: dict[str, Any] = {"lossless": True} if kind == "webp" else {}
        frames[0].save(tmp_path / kind / f"x.{kind}", save_all=True, append_images=frames[1:], **how)
        assert only(tmp_path / kind, 8, 3)[:, 0, 0].tolist() == [255, 0, 0]


def test_exif_turns_an_image_upright(tmp_path):
    image, exif = Image.new("L", (8, 8), 0), Image.Exif()
    image.paste(255, (0, 0, 8, 4))  # the upper half
    exif[0x0112] = 3  # taken upside down
    image.save(tmp_path / "x.png", exif=exif)
    assert only(tmp_path, 8, 1)[0, :, 0].tolist() == [0] * 4 + [255] * 4


# IDX


def idx(shape: tuple[int, ...], content: bytes, kind: int = 8) -> bytes:
    return struct.pack(f">HBB{len(shape)}I", 0, kind, len(shape), *shape) + content


def mnist(root: Path | None, **changes: Any) -> IdxImages:
    given: dict[str, Any] = {"name": "mnist", "url": "https://127.0.0.1:9/x", "md5": {}, "classes": list("0123456789")}
    return IdxImages(**given | {"root": None if root is None else str(root), "threshold": None} | changes)


BAD_IDX: dict[str, tuple[str, bytes, str]] = {
    "empty": ("images", b"", "is not an IDX file of unsigned bytes"),
    "floats": ("images", idx((2, 4, 4), bytes(128), 13), "is not an IDX file of unsigned bytes"),
    "half a header": ("images", idx((2, 4, 4), b"")[:9], "ends within its header"),
    "flat images": ("images", idx((30, 784), bytes(30 * 784)), "must have 3 dimensions, got [2]"),
    "labels with rows": ("labels", idx((30, 1), bytes(30)), "must have 1 dimensions, got [2]"),
    "200 dimensions": ("images", struct.pack(">HBB", 0, 8, 200) + bytes(800), "must have 3 dimensions, got [200]"),
    "announces 2⁹⁶ bytes": ("images", idx((2**32 - 1,) * 3, b""), "announces [4294967295, 4294967295, 4294967295]"),
    "announces more": ("images", idx((30, 28, 28), bytes(99)), "announces [30, 28, 28], which is 23520 bytes, and has 99"),
    "has more": ("images", idx((30, 28, 28), bytes(23_530)), "announces [30, 28, 28], which is 23520 bytes, and has more"),
    "no images": ("images", idx((0, 28, 28), b""), "holds no images"),
    "no pixels": ("images", idx((30, 0, 0), b""), "holds pictures of 0 × 0 pixels"),
    "not square": ("images", idx((30, 28, 20), bytes(16_800)), "holds pictures of 20 × 28 pixels"),
    "too large": ("images", idx((1, 2000, 2000), bytes(4_000_000)), "holds pictures of 2000 × 2000 pixels"),
    "too many": ("images", idx((1_000_001, 1, 1), bytes(1_000_001)), "holds 1000001 images, and at most 1000000"),
    "too few labels": ("labels", idx((29,), bytes(29)), "holds 29 labels"),
    "too many labels": ("labels", idx((31,), bytes(31)), "holds 31 labels"),
    "unknown label": ("labels", idx((30,), bytes([10] * 30)), "holds the label 10, and the classes end at 9"),
}  # fmt: skip


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gz"])
@pytest.mark.parametrize("name", BAD_IDX)
def test_a_bad_idx_file_is_named(name, packed, tmp_path):
    which, content, reason = BAD_IDX[name]
    folder = write_idx(tmp_path / "idx")
    file = folder / f"train-{'images-idx3' if which == 'images' else 'labels-idx1'}-ubyte"
    if packed:
        file.unlink()
        file, content = file.with_name(f"{file.name}.gz"), gzip.compress(content)
    file.write_bytes(content)
    with pytest.raises(UserError, match=begins(f"data: {file} {reason}")):
        mnist(folder).load(28, 1)


@pytest.mark.parametrize("name", ODD)
def test_what_is_no_idx_file_is_named(name, tmp_path):
    folder = write_idx(tmp_path / "idx")
    file = folder / "t10k-labels-idx1-ubyte"
    file.unlink()
    ODD[name](file)
    with pytest.raises(UserError, match=begins(f"data: {file} cannot be read as an IDX file ({ODD_REASONS[name]})")):
        mnist(folder).load(28, 1)


@pytest.mark.parametrize(
    "content", [b"no gzip", gzip.compress(idx((30,), bytes(30)), mtime=0)[:-12], b"\x1f\x8b\x08\0junk"]
)
def test_damaged_gzip_is_named(content, tmp_path):
    folder = write_idx(tmp_path / "idx")
    (folder / "t10k-labels-idx1-ubyte").unlink()
    file = folder / "t10k-labels-idx1-ubyte.gz"
    file.write_bytes(content)
    with pytest.raises(UserError, match=begins(f"data: {file} cannot be read as an IDX file (")):
        mnist(folder).load(28, 1)


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "/etc", "a\\b", "a\0b"])
def test_the_cache_is_not_left(name):
    with pytest.raises(UserError, match=begins("name: must be the name of a folder in the cache")):
        mnist(None, name=name)


@pytest.mark.parametrize("url", ["file:///etc", "ftp://host/x", "data:,x", "", "/etc/passwd"])
def test_other_urls_are_refused(url):
    with pytest.raises(UserError, match=begins("url: must begin with http:// or https://")):
        mnist(None, url=url)


class _Server:
    """A web server on this machine that answers everything alike."""

    def __init__(self, *, headers: dict[str, str], code: int = 200, content: bytes = b"") -> None:
        import http.server
        import threading

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(code)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def __enter__(self) -> str:
        return self.url

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()


def test_a_server_cannot_lead_elsewhere(tmp_path):
    (tmp_path / "secret").write_bytes(b"secret")
    for place in (f"file://{tmp_path}/secret", "ftp://127.0.0.1:9/x"):
        with _Server(code=302, headers={"Location": place}) as url, pytest.raises(UserError, match="could not be down"):
            mnist(None, url=url).load(28, 1)
    assert not list((tmp_path / "cache").rglob("*.gz"))


def test_downloads_have_a_limit_and_may_end_early(tmp_path, monkeypatch):
    monkeypatch.setattr(mnist_module, "LARGEST_DOWNLOAD", MIB)
    with _Server(headers={}, content=bytes(MIB + 1)) as url:
        message = f"data: {url}/train-images-idx3-ubyte.gz holds more than 1 MiB"
        with pytest.raises(UserError, match=begins(message)):
            mnist(None, url=url).load(28, 1)
    with (
        _Server(headers={"Content-Length": "9"}, content=b"x") as url,
        pytest.raises(UserError, match="data: mnist could"),
    ):
        mnist(None, url=url).load(28, 1)
    assert not list((tmp_path / "cache").rglob("*.gz"))


# MIDI


def midi(track: bytes, kind: int = 1, tracks: int = 1, ticks: int = 96, size: int | None = None) -> bytes:
    head = b"MThd" + struct.pack(">IHHH", 6, kind, tracks, ticks)
    return head + b"MTrk" + struct.pack(">I", len(track) if size is None else size) + track


NOTE = b"\0\x90\x3c\x50\x60\x80\x3c\0"  # a beat
BAD_MIDI: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "is empty"),
    "half a track": (midi(NOTE, size=99), "is cut short"),
    "32 767 tracks": (midi(NOTE, tracks=32_767), "is cut short"),
    "65 535 tracks": (midi(NOTE, tracks=65_535), "holds no notes"),
    "no ticks": (midi(NOTE, ticks=0), "counts time in film frames"),
    "a number without an end": (midi(b"\xff" * (MIB - 64)), "is no MIDI file (a number does not end)"),
    "long numbers": (midi((b"\xff" * 4000 + b"\x7f\x90\x3c\x50") * 20), "lasts too many sixteenths, more than 65536"),
    "late": (midi(b"\0\x90\x3c\x50\xff\xff\xff\x7f\x80\x3c\0"), "lasts too many sixteenths, more than 65536"),
    "too large": (midi(bytes(MIB)), "cannot be read (it has 1048598 bytes, more than 1 MiB)"),
}


@pytest.mark.parametrize("name", BAD_MIDI)
def test_a_bad_midi_file_is_named_and_left_out(name, tmp_path):
    content, reason = BAD_MIDI[name]
    write_tunes(tmp_path / "tunes", 1)
    (tmp_path / "tunes" / "x.mid").write_bytes(content)
    pieces, rejected = read_folder(tmp_path / "tunes")
    assert len(pieces) == 1
    assert list(rejected) == ["x.mid"]
    assert rejected["x.mid"].startswith(reason)


@pytest.mark.parametrize("name", ODD)
def test_what_is_no_midi_file_is_named_and_left_out(name, tmp_path):
    write_tunes(tmp_path / "tunes", 1)
    (tmp_path / "tunes" / "folder.mid").mkdir()
    ODD[name](tmp_path / "tunes" / "x.mid")
    pieces, rejected = read_folder(tmp_path / "tunes")
    assert len(pieces) == 1
    assert rejected == {"x.mid": f"cannot be read ({ODD_REASONS[name]})"}


@pytest.mark.parametrize("tempo", [1, 0xFFFFFF])
@pytest.mark.parametrize("ticks", [1, 32_767])
def test_any_tempo_and_ticks_are_read(tempo, ticks, tmp_path):
    track = mido.MidiTrack([mido.MetaMessage("set_tempo", tempo=tempo), mido.Message("note_on", note=60)])
    track.append(mido.Message("note_off", note=60, time=ticks))
    mido.MidiFile(ticks_per_beat=ticks, tracks=[track]).save(tmp_path / "x.mid")
    assert [(note.start, note.duration) for note in midi_file.read_midi(tmp_path / "x.mid").notes] == [(0, 4)]


def test_a_midi_file_of_too_many_messages_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(midi_file, "MOST_MESSAGES", 100)
    (tmp_path / "x.mid").write_bytes(midi(b"\0\xf8" * 101))
    with pytest.raises(midi_file.Rejected, match=r"^has 101 messages, more than 100$"):
        midi_file.read_midi(tmp_path / "x.mid")


# Text and chorales


def text(path: Path, unit: Any = "character", length: int = 8) -> Splits:
    return Text(str(path), unit, 50).load(Tokens(low=48, high=72, names=None, separator=" "), length, 16)


WORDS = "größer als zwölf Wörter sind es auf jeden Fall, wenn man sie alle zählt " * 2


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_text_is_read_as_what_its_mark_says(encoding, tmp_path):
    (tmp_path / "x.txt").write_text(WORDS, encoding=encoding)
    fitted = text(tmp_path / "x.txt").train.encoding
    assert set(fitted.names) == set(WORDS)


BAD_TEXT: dict[str, tuple[bytes, str]] = {
    "latin 1": (WORDS.encode("latin1"), "cannot be read (it is no UTF-8 text)"),
    "utf-16 without a mark": (WORDS.encode("utf-16-le"), "cannot be read (it"),
    "half a character of utf-16": (WORDS.encode("utf-16")[:-1], "cannot be read (it is no UTF-8 text)"),
    "binary": (bytes(range(256)) * 9, "cannot be read (it is no UTF-8 text)"),
    "zeros": (bytes(99), "cannot be read (it holds zero bytes, as no text does)"),
    "empty": (b"", "is too short for 10 sequences"),
    "blank": (b" \n\t" * 99, "is too short for 10 sequences"),
    "one character": (b"x", "is too short for 10 sequences"),
    "too large": (b"ab " * (11 * MIB), "cannot be read (it has 34603008 bytes, more than 32 MiB)"),
}


@pytest.mark.parametrize("unit", ["character", "word"])
@pytest.mark.parametrize("name", BAD_TEXT)
def test_bad_text_is_named(name, unit, tmp_path):
    content, reason = BAD_TEXT[name]
    (tmp_path / "x.txt").write_bytes(content)
    with pytest.raises(UserError, match=begins(f"data.path: {tmp_path / 'x.txt'} {reason}")):
        text(tmp_path / "x.txt", unit)


def test_sequences_that_do_not_fit_into_memory_are_refused(tmp_path):
    (tmp_path / "x.txt").write_bytes(b"a b " * 30_000)
    with pytest.raises(UserError, match=begins(f"data.path: {tmp_path / 'x.txt'} makes ")):
        text(tmp_path / "x.txt", "word", 20_000)


def test_words_that_look_like_absurd_pitches_are_words():
    assert [pitch_number(name) for name in ("C4", "G9", "A9", "C10", "C" + "9" * 5000)] == [60, 127, None, None, None]


READERS: dict[str, Callable[[Path], object]] = {
    "text": text,
    "chorales": read_chorales,
    "oracle": Oracle,
    "note_rnn": lambda path: note_rnn_weights(path, "data.path"),
}


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("reader", READERS)
def test_what_is_no_file_is_refused(name, reader, tmp_path):
    ODD[name](tmp_path / "x")
    with pytest.raises(UserError, match=rf"{begins(f'data.path: {tmp_path}')}/x .*\({re.escape(ODD_REASONS[name])}\)"):
        READERS[reader](tmp_path / "x")


@pytest.mark.parametrize(
    "content",
    [b"[" * 100_000, b'{"train":' * 50_000, b'{"train": [' + b"9" * 5000 + b"]}", b" " * (17 * MIB), b"\xff\xfe\0"],
    ids=["deep list", "deep object", "long number", "large", "utf-16"],
)
def test_bad_chorales_are_named(content, tmp_path):
    (tmp_path / "c.json").write_bytes(content)
    with pytest.raises(UserError, match=begins(f"data.path: {tmp_path / 'c.json'} ")):
        read_chorales(tmp_path / "c.json")


# Arrays in .npz


def repacked(path: Path, name: str, content: bytes, packing: int = zipfile.ZIP_DEFLATED) -> None:
    """Give one array of an .npz another content."""
    with zipfile.ZipFile(path) as archive:
        members = {entry: archive.read(entry) for entry in archive.namelist()} | {f"{name}.npy": content}
    with zipfile.ZipFile(path, "w", packing) as archive:
        for entry, member in members.items():
            archive.writestr(entry, member)


def npy(shape: object, kind: str = "<f4", content: bytes = b"") -> bytes:
    head = repr({"descr": kind, "fortran_order": False, "shape": shape}).encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\0" + struct.pack("<H", len(head)) + head + content


BAD_NPY: dict[str, tuple[bytes, str]] = {
    "absurd shape": (npy((10**12, 10**12)), "has the shape (1000000000000, 1000000000000), more than 64 MiB"),
    "negative shape": (npy((-1, 4)), "has the shape"),
    "shape of words": (npy(("a", 4)), "shape is not valid"),
    "fewer numbers": (npy((4, 4), content=bytes(9)), "announces 64 bytes and has others"),
    "more numbers": (npy((4, 4), content=bytes(99)), "announces 64 bytes and has others"),
    "pickle": (npy((1,), "|O", b"cos\nsystem\n"), "holds no real numbers"),
    "text": (npy((1,), "<U4", bytes(16)), "holds no real numbers"),
    "complex": (npy((1,), "<c8", bytes(8)), "holds no real numbers"),
    "not finite": (npy((1,), content=np.array([np.nan], np.float32).tobytes()), "holds numbers that are not finite"),
    "other shape": (npy((3, 3), content=bytes(36)), ""),
    "scalar": (npy((), content=bytes(4)), ""),
    "header of nested brackets": (b"\x93NUMPY\x01\0" + struct.pack("<H", 9000) + b"(" * 9000, ""),
    "version 9": (b"\x93NUMPY\x09\0", ""),
    "no array": (b"rubbish", ""),
}
NPZ: dict[str, tuple[Callable[..., Path], str, str]] = {
    "oracle": (write_oracle, "embedding", "SeqGAN oracle"),
    "note_rnn": (write_note_rnn, "lstm_kernel", "Note RNN"),
}


@pytest.mark.parametrize("reader", NPZ)
@pytest.mark.parametrize("name", BAD_NPY)
def test_bad_arrays_are_named(name, reader, tmp_path):
    write, array, what = NPZ[reader]
    content, reason = BAD_NPY[name]
    path = write(tmp_path / "x.npz")
    repacked(path, array, content)
    with pytest.raises(UserError, match=rf"{begins(f'data.path: {path} holds no {what} (')}.*{re.escape(reason)}"):
        READERS[reader](path)


@pytest.mark.parametrize("packing", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_archives_that_unpack_without_a_bound_are_refused(packing, tmp_path):
    path = write_note_rnn(tmp_path / "x.npz")
    repacked(path, "lstm_bias", npy((400,), content=bytes(1600)), packing)
    with pytest.raises(UserError, match="is packed in another way"):
        note_rnn_weights(path, "prior.source")


# Generators


def source(path: object, **changes: Any) -> GeneratorFile:
    given: dict[str, Any] = {"trust": Trust(), "latent": None, "classes": 0, "range": [-1.0, 1.0]}
    return GeneratorFile(device=torch.device("cpu"), path=str(path), **given | changes)


DCGAN = {"size": 16, "planes": 1, "latent": 6, "width": 4}
MLP: dict[str, Any] = {"sample": [1, 4, 4], "latent": 6, "widths": [8]}
MAPPED: dict[str, Any] = {"sample": [1, 16, 16], "latent": 6, "classes": 0, "width": 8}


def saved(folder: Path, name: str, arguments: dict[str, Any]) -> Path:
    folder.mkdir()
    save_file(ALLOWED[name](**arguments).state_dict(), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"class": name, "arguments": arguments}))
    return folder


BAD_ARGUMENTS: dict[str, tuple[str, dict[str, Any], str]] = {
    "width of a billion": ("DCGAN", DCGAN | {"width": 10**9}, "width must be a number from 0 to 1048576"),
    "width of a million": ("DCGAN", DCGAN | {"width": 10**6}, "main.0.weight must be"),
    "large picture": ("DCGAN", DCGAN | {"size": 1 << 20}, ""),
    "size of no power": ("DCGAN", DCGAN | {"size": 20}, "size: must be a power of 2"),
    "negative": ("DCGAN", DCGAN | {"width": -4}, "width must be a number"),
    "nothing": ("DCGAN", DCGAN | {"latent": 0}, ""),
    "half": ("DCGAN", DCGAN | {"width": 4.5}, "width must be a number"),
    "true": ("DCGAN", DCGAN | {"planes": True}, "planes must be a number"),
    "word": ("DCGAN", DCGAN | {"latent": "six"}, "latent must be a number"),
    "none": ("DCGAN", DCGAN | {"latent": None}, "latent must be a number"),
    "nested": ("MLPGenerator", MLP | {"widths": [[8]]}, "widths must be a number"),
    "object": ("MLPGenerator", MLP | {"widths": {"a": 8}}, "widths must be a number"),
    "number for a list": ("MLPGenerator", MLP | {"widths": 8}, ""),
    "list for a number": ("DCGAN", DCGAN | {"width": [4]}, ""),
    "long list": ("MLPGenerator", MLP | {"widths": [1] * 65}, "widths must be a number"),
    "many numbers": ("MLPGenerator", MLP | {"sample": [1 << 20] * 8}, ""),
    "two sides": ("MappedGenerator", MAPPED | {"sample": [16, 16]}, ""),
    "many classes": ("MappedGenerator", MAPPED | {"classes": 1 << 20}, "must be torch.float32"),
    "unknown": ("DCGAN", DCGAN | {"depth": 3}, "unexpected keyword argument 'depth'"),
    "missing": ("DCGAN", {"size": 16}, "missing 3 required keyword-only arguments"),
}
WEIGHTS = {"DCGAN": DCGAN, "MLPGenerator": MLP, "MappedGenerator": MAPPED}


@pytest.mark.parametrize("name", BAD_ARGUMENTS)
def test_bad_arguments_are_named(name, tmp_path):
    kind, arguments, reason = BAD_ARGUMENTS[name]
    folder = saved(tmp_path / "own", kind, WEIGHTS[kind])
    (folder / "config.json").write_text(json.dumps({"class": kind, "arguments": arguments}))
    message = f"path: {folder / 'model.safetensors'} and its config.json do not make a {kind} ("
    with pytest.raises(UserError, match=begins(message)) as caught:
        source(folder)
    assert reason in str(caught.value)


def test_a_picture_that_is_too_large_is_refused_before_it_is_made(tmp_path):
    arguments = {"size": 4096, "planes": 1, "latent": 1, "width": 1}
    with pytest.raises(UserError, match=r"do not make a DCGAN \(its pictures of \[1, 4096, 4096\] have more than"):
        source(saved(tmp_path / "own", "DCGAN", arguments))


def test_directions_that_take_too_much_memory_are_not_looked_for(tmp_path):
    folder = saved(tmp_path / "own", "MappedGenerator", MAPPED | {"sample": [64, 256, 256], "latent": 20, "width": 4})
    message = f"path: {folder} makes pictures [64, 256, 256] of 20 numbers, and the product of all may be 67108864"
    with pytest.raises(UserError, match=begins(message)):
        source(folder)


def test_a_latent_that_is_too_long_is_refused(tmp_path):
    with pytest.raises(UserError, match=begins("latent: ")):
        source(saved(tmp_path / "own", "MLPGenerator", MLP | {"latent": 5000, "widths": []}))


def test_weights_that_are_not_finite_are_refused(tmp_path):
    folder = saved(tmp_path / "own", "MLPGenerator", MLP)
    net = ALLOWED["MLPGenerator"](**MLP)
    for weight in net.parameters():
        weight.data.fill_(float("nan"))
    save_file(net.state_dict(), folder / "model.safetensors")
    message = f"path: {folder} does not make pictures of all latents (some numbers are not finite)"
    with pytest.raises(UserError, match=begins(message)):
        source(folder)


BAD_CONFIGS: dict[str, bytes] = {
    "empty": b"",
    "list": b"[]",
    "number": b"7",
    "deep": b"[" * 100_000,
    "deep object": b'{"a":' * 100_000,
    "large": b" " * (2 * MIB),
    "no text": b"\xff\xff\0\x01",
    "key twice": b'{"class": "DCGAN", "class": "DCGAN", "arguments": {}}',
    "argument twice": b'{"class": "DCGAN", "arguments": {"size": 8, "size": 16}}',
    "unknown key": b'{"class": "DCGAN", "arguments": {}, "code": "x"}',
    "class of numbers": b'{"class": 3, "arguments": {}}',
    "arguments in a list": b'{"class": "DCGAN", "arguments": [["size", 8]]}',
    "no arguments": b'{"class": "DCGAN"}',
    "long number": b'{"class": "DCGAN", "arguments": {"size": ' + b"9" * 5000 + b"}}",
}


@pytest.mark.parametrize("name", BAD_CONFIGS)
def test_a_bad_config_is_named(name, tmp_path):
    folder = saved(tmp_path / "own", "DCGAN", DCGAN)
    (folder / "config.json").write_bytes(BAD_CONFIGS[name])
    with pytest.raises(UserError, match=begins(f"path: {folder / 'config.json'} ")):
        source(folder)


def safe(header: object, content: bytes = b"", length: int | None = None) -> bytes:
    head = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(head) if length is None else length) + head + content


def tensor(shape: list[Any], end: int, kind: str = "F32") -> dict[str, Any]:
    return {"main.0.weight": {"dtype": kind, "shape": shape, "data_offsets": [0, end]}}


BAD_WEIGHTS: dict[str, bytes] = {
    "empty": b"",
    "absurd shape": safe(tensor([10**9, 10**9], 4), bytes(4)),
    "overflowing shape": safe(tensor([2**63, 2**63], 0)),
    "empty and absurd": safe(tensor([0, 2**62, 2**62], 0)),
    "negative shape": safe(tensor([-1, 4], 4), bytes(4)),
    "unknown kind": safe(tensor([1], 4, "F31"), bytes(4)),
    "numbers of 4 bits": safe(tensor([2], 1, "F4"), bytes(1)),
    "truncated": save(ALLOWED["DCGAN"](**DCGAN).state_dict())[:-9],
    "no header": safe(b"", length=0),
    "header of 2⁶³ bytes": safe({}, length=2**63),
    "deep header": safe(b"[" * 100_000),
    "large header": safe(b" " * (2 * MIB)),
    "other names": save({"x": torch.zeros(1)}),
    "complex numbers": save({**ALLOWED["DCGAN"](**DCGAN).state_dict(), "main.0.weight": torch.zeros(6, 8, 4, 4).to(torch.complex64)}),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_WEIGHTS)
def test_bad_weights_are_named(name, tmp_path):
    folder = saved(tmp_path / "own", "DCGAN", DCGAN)
    (folder / "model.safetensors").write_bytes(BAD_WEIGHTS[name])
    with pytest.raises(UserError, match=begins(f"path: {folder / 'model.safetensors'} ")):
        source(folder)


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "net.onnx", "net.pt"])
def test_a_generator_that_is_no_file_is_refused(name, file, tmp_path):
    folder = saved(tmp_path / "own", "DCGAN", DCGAN)
    (folder / file).unlink(missing_ok=True)
    ODD[name](folder / file)
    path = folder if file == "config.json" else folder / file
    message = f"path: {folder / file} cannot be read ({ODD_REASONS[name]})"
    with pytest.raises(UserError, match=begins(message)):
        source(path, trust=Trust([str(path)]))


@pytest.mark.parametrize("damaged", [False, True])
def test_a_zip_bomb_is_no_pickle(damaged, tmp_path):
    path = tmp_path / "net.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("net/data.pkl", b"")
    content = path.read_bytes()
    at = content.rindex(b"PK\x01\x02") + 24  # where the directory says how much it unpacks to
    content = content[:at] + struct.pack("<I", 3 << 30) + content[at + 4 :]
    path.write_bytes(content[:-9] if damaged else content)
    with pytest.raises(UserError, match=begins(f"path: {path} is a pickle, which can run any code")):
        source(path)
    reason = "cannot be read (" if damaged else "unpacks to 3221225472 bytes, more than 2048 MiB"
    with pytest.raises(UserError, match=begins(f"path: {path} {reason}")):
        source(path, trust=Trust([str(path)]))


# ONNX


def graph(path: Path, kind: str) -> Path:
    """A graph from z [N, 6] that does what its kind says."""
    pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper

    value, node = helper.make_tensor_value_info, helper.make_node
    number, truth = TensorProto.FLOAT, TensorProto.BOOL
    inputs, out = [value("z", number, ["n", 6])], value("x", number, None)
    shape = helper.make_tensor("s", TensorProto.INT64, [4], [-1, 1, 2, 3])
    nodes, inits = [node("Reshape", ["z", "s"], ["x"])], [shape]
    if kind.startswith("loop"):
        body = helper.make_graph(
            [node("Identity", ["c"], ["d"]), node("Identity", ["a"], ["b"])],
            "body",
            [value("i", TensorProto.INT64, []), value("c", truth, []), value("a", number, None)],
            [value("d", truth, []), value("b", number, None)],
        )
        begun = "always" if kind == "loop" else "some"
        inits.append(helper.make_tensor("always", truth, [], [True]))
        inits.append(helper.make_tensor("zero", number, [], [0.0]))
        sometimes = [node("ReduceMax", ["z"], ["most"], keepdims=0), node("Greater", ["most", "zero"], ["some"])]
        nodes = [*sometimes, node("Loop", ["", begun, "z"], ["y"], body=body), node("Reshape", ["y", "s"], ["x"])]
    elif kind == "huge output":
        wide = helper.make_tensor("w", TensorProto.INT64, [4], [1, 1, 1 << 20, 6 << 14])
        inits.append(wide)
        nodes = [node("Reshape", ["z", "s"], ["y"]), node("ReduceMax", ["y"], ["m"]), node("Expand", ["m", "w"], ["x"])]
    elif kind == "large output":
        inits.append(helper.make_tensor("w", TensorProto.INT64, [4], [1, 3, 2048, 2048]))
        nodes = [
            node("ReduceMax", ["z"], ["m"], axes=[1]),
            node("Reshape", ["m", "f"], ["y"]),
            node("Expand", ["y", "w"], ["x"]),
        ]
        inits.append(helper.make_tensor("f", TensorProto.INT64, [4], [-1, 1, 1, 1]))
    elif kind == "words":
        nodes, out = [node("Cast", ["z"], ["x"], to=TensorProto.STRING)], value("x", TensorProto.STRING, None)
    elif kind == "truths":
        nodes, out = [node("Cast", ["z"], ["x"], to=truth)], value("x", truth, None)
    elif kind == "sequence":
        sequence = helper.make_tensor_sequence_value_info("x", number, None)
        nodes, out = [node("SequenceConstruct", ["z"], ["x"])], sequence
    elif kind == "double input":
        inputs = [value("z", TensorProto.DOUBLE, ["n", 6])]
        nodes += [node("Cast", ["x"], ["y"], to=number)]
        out = value("y", number, None)
    elif kind == "scalar input":
        inputs = [value("z", number, [])]
    elif kind == "no input":
        inputs, nodes = [], [node("Identity", ["s"], ["x"])]
        out = value("x", TensorProto.INT64, None)
    elif kind == "two inputs":
        inputs.append(value("label", TensorProto.INT64, ["n"]))
    elif kind == "not finite":
        root = [node("Abs", ["z"], ["a"]), node("Neg", ["a"], ["b"]), node("Sqrt", ["b"], ["y"])]
        nodes = [*root, node("Reshape", ["y", "s"], ["x"])]
    elif kind == "constant fold":
        inits.append(helper.make_tensor("w", TensorProto.INT64, [2], [1 << 20, 1 << 20]))
        nodes = [
            node("ConstantOfShape", ["w"], ["c"]),
            node("ReduceMax", ["c"], ["m"], keepdims=0),
            node("Add", ["z", "m"], ["y"]),
            node("Reshape", ["y", "s"], ["x"]),
        ]
    made = helper.make_graph(nodes, "g", inputs, [out], inits)
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


BAD_GRAPHS = {
    "loop": "takes more than 0.2 seconds",
    "loop at some latents": "takes more than 0.2 seconds",
    "huge output": "makes no pictures [N, C, H, W] of latents [N, 6] ([ONNXRuntimeError]",
    "large output": "makes pictures of [3, 2048, 2048], more than 4194304 numbers",
    "constant fold": "makes no pictures [N, C, H, W] of latents [N, 6] ([ONNXRuntimeError]",
    "words": "makes no pictures [N, C, H, W] of latents [N, 6] (its first output is no tensor of real numbers)",
    "truths": "makes no pictures [N, C, H, W] of latents [N, 6] (its first output is no tensor of real numbers)",
    "sequence": "makes no pictures [N, C, H, W] of latents [N, 6] (its first output is no tensor of real numbers)",
    "double input": "makes no pictures [N, C, H, W] of latents [N, 6] ([ONNXRuntimeError]",
    "scalar input": "is no ONNX graph that can run (",
    "no input": "must take 1 inputs, and takes []",
    "two inputs": "must take 1 inputs, and takes ['z', 'label']",
    "not finite": "does not make pictures of all latents (some numbers are not finite)",
}


@pytest.mark.parametrize("name", BAD_GRAPHS)
def test_a_bad_graph_is_named(name, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_file, "SECONDS", 0.2)
    path = graph(tmp_path / "net.onnx", name)
    with pytest.raises(UserError, match=begins(f"path: {path} {BAD_GRAPHS[name]}")):
        source(path, latent=6)


def test_a_good_graph_is_read(tmp_path):
    assert source(graph(tmp_path / "net.onnx", "plain")).generator.shape == (1, 2, 3)


def external(folder: Path, place: str, deep: bool) -> Path:
    """A graph whose weights [6, 6] lie elsewhere, maybe within the body of a condition."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    from onnx import TensorProto, helper

    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[6, 6], data_location=TensorProto.EXTERNAL)
    weight.external_data.add(key="location", value=place)
    shape = helper.make_tensor("s", TensorProto.INT64, [4], [-1, 1, 2, 3])
    z, out = (helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in "zx")
    z = helper.make_tensor_value_info("z", TensorProto.FLOAT, ["n", 6])
    nodes, inits = [helper.make_node("MatMul", ["z", "w"], ["y"])], [weight, shape]
    if deep:
        y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
        inner = helper.make_graph(nodes, "inner", [], [y], [weight])
        yes = helper.make_tensor("yes", TensorProto.BOOL, [], [True])
        nodes, inits = [helper.make_node("If", ["yes"], ["y"], then_branch=inner, else_branch=inner)], [yes, shape]
    nodes.append(helper.make_node("Reshape", ["y", "s"], ["x"]))
    made = helper.make_model(
        helper.make_graph(nodes, "g", [z], [out], inits), opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    )
    (folder / "net.onnx").write_bytes(made.SerializeToString())
    return folder / "net.onnx"


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("place", ["../secret", "/etc/passwd", "inner/../../secret", "link"])
def test_weights_outside_of_the_folder_are_refused(place, deep, tmp_path):
    folder = tmp_path / "own"
    folder.mkdir()
    (tmp_path / "secret").write_bytes(bytes(144))
    (folder / "link").symlink_to("../secret")
    path = external(folder, place, deep)
    with pytest.raises(UserError, match=begins(f"path: {path} has weights in '{place}', outside of its folder")):
        source(path)


def test_weights_beside_a_graph_are_read(tmp_path):
    (tmp_path / "w.bin").write_bytes(np.full((6, 6), 0.5, np.float32).tobytes())
    made = source(external(tmp_path, "w.bin", False)).generator
    assert torch.allclose(made(torch.full((1, 6), 0.1)), torch.tensor(0.65))  # 6 · 0.1 · 0.5, from −1…1 to 0…1


@pytest.mark.parametrize("name", ODD)
def test_weights_beside_a_graph_are_a_regular_file(name, tmp_path):
    ODD[name](tmp_path / "w.bin")
    path = external(tmp_path, "w.bin", False)
    with pytest.raises(UserError, match=begins(f"path: {path} has weights in 'w.bin'")):
        source(path)


@pytest.mark.parametrize(
    "content", [b"", b"\xff" * 99, b"\x3a\xff\xff\xff\x7f", b"\x3a\x02" * 50, b"no graph", bytes(99)]
)
def test_bytes_that_are_no_graph_are_named(content, tmp_path):
    pytest.importorskip("onnxruntime")
    (tmp_path / "net.onnx").write_bytes(content)
    with pytest.raises(UserError, match=begins(f"path: {tmp_path / 'net.onnx'} is no ONNX graph that can run (")):
        source(tmp_path / "net.onnx")


def test_graphs_in_graphs_end_somewhere():
    content = b""
    for field in (*(6, 5, 1) * 100, 7):  # a graph in an attribute of a node of a graph, and so on
        size = len(content)
        content = bytes([field << 3 | 2, size & 127 | 128, size >> 7 & 127 | 128, size >> 14]) + content
    with pytest.raises(ValueError, match="more than 100 deep"):
        list(onnx_file.external_places(content))


# Memory: each in a process that may take so many MiB beyond what it has when the case begins

BOUNDED_HEAD = """
import resource, sys
from pathlib import Path
import torch
from rlgen_cli.core.errors import UserError
from rlgen_cli.core.trust import Trust
from rlgen_cli.data.folder import Folder
from rlgen_cli.data.images import resize
from rlgen_cli.data.mnist import IdxImages
from rlgen_cli.domains.music.datasets.midi_file import read_folder
from rlgen_cli.generators.from_file import GeneratorFile
from rlgen_cli.policies.note_rnn import note_rnn_weights
torch.set_num_threads(1)
given = dict(device=torch.device("cpu"), trust=Trust(), latent=None, classes=0, range=[-1.0, 1.0])
GeneratorFile(path="plain", **given)  # brings in what torch imports when it is needed
def case(mebibytes, read):
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (mebibytes << 20), resource.RLIM_INFINITY))
    try:
        print(read())
    except UserError as error:
        print(error)
"""


def bounded(*cases: tuple[int, str]) -> list[str]:
    """What each expression gives within so many MiB."""
    saved(Path("plain"), "MLPGenerator", MLP)
    script = BOUNDED_HEAD + "\n".join(f"case({size}, lambda: {expression})" for size, expression in cases)
    here = {"PYTHONPATH": str(Path(__file__).parent.parent), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=os.environ | here)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def idx_bomb(folder: Path, announced: int) -> Path:
    """Labels that announce a number and are followed by 100 MiB of zeros."""
    write_idx(folder)
    (folder / "train-labels-idx1-ubyte").unlink()
    with gzip.open(folder / "train-labels-idx1-ubyte.gz", "wb", compresslevel=1) as file:
        file.write(idx((announced,), b""))
        for _ in range(100):
            file.write(bytes(MIB))
    return folder


def npz_bomb(path: Path, lies: bool) -> Path:
    """A Note RNN one of whose arrays unpacks to 100 MiB, which the archive's directory may deny."""
    write_note_rnn(path)
    array = npy((25 * MIB,), content=bytes(100 * MIB))
    repacked(path, "lstm_bias", array)
    size, content = struct.pack("<I", len(array)), path.read_bytes()
    assert content.count(size) == 2
    path.write_bytes(content.replace(size, struct.pack("<I", 1728)) if lies else content)
    return path


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_bombs_take_little_memory():
    Path("strip").mkdir()
    Path("strip/x.png").write_bytes(black_png(50_000, 100))
    few, many = idx_bomb(Path("few"), 100), idx_bomb(Path("many"), 10_000_000)
    honest, lying = npz_bomb(Path("honest.npz"), False), npz_bomb(Path("lying.npz"), True)
    saved(Path("wide"), "DCGAN", DCGAN)
    arguments = json.dumps({"class": "DCGAN", "arguments": DCGAN | {"width": 100_000}})
    Path("wide/config.json").write_text(arguments)
    found = bounded(
        (150, "Folder('strip', 'white', 0).load(16, 1).train.images[0, 0, :, 3].tolist()"),  # as a square, 10 GB
        *(
            (60, f"IdxImages('mnist', '{folder}', 'https://x', {{}}, ['0'], None).load(28, 1)")
            for folder in (few, many)
        ),
        *((60, f"note_rnn_weights(Path('{path}'), 'prior.source')") for path in (honest, lying)),
        (60, "GeneratorFile(path='wide', **given)"),  # 130 GB
        (200, "resize(torch.zeros(1, 1, 1024, 1024, dtype=torch.uint8).expand(300, -1, -1, -1), 8).shape"),  # 1.2 GB
    )
    labels, rnn = "train-labels-idx1-ubyte.gz", "holds no Note RNN"
    assert found == [
        str([255] * 7 + [251] * 2 + [255] * 7),  # 255 · (1 − 50 / 3125) where the strip is
        f"data: few/{labels} announces [100], which is 100 bytes, and has more than 100.",
        f"data: many/{labels} announces [10000000], which is 10000000 bytes, and has more than 10000000.",
        f"prior.source: honest.npz {rnn} (lstm_bias.npy has 104857728 bytes, more than 64 MiB).",
        f"prior.source: lying.npz {rnn} (Bad CRC-32 for file 'lstm_bias.npy').",
        "path: wide/model.safetensors and its config.json do not make a DCGAN (main.0.weight must be torch.float32 "
        "[6, 200000, 4, 4], and is torch.float32 [6, 8, 4, 4]).",
        "torch.Size([300, 1, 8, 8])",
    ]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_the_largest_files_take_bounded_memory():
    Path("large").mkdir()
    Path("large/x.png").write_bytes(black_png(8000, 8000))
    write_tunes(Path("tunes"), 1)
    Path("tunes/many.mid").write_bytes(midi(b"\0\x90\x3c\x50\x01\x3c\0" * 1_000_000))
    Path("tunes/most.mid").write_bytes(midi(b"\0\x90\x3c\x50" + b"\x01\x3c\0\0\x3c\x50" * 99_999))
    found = bounded(
        (1000, "Folder('large', 'auto', 0).load(16, 3).train.images.shape"),
        (
            300,
            "[[len(piece.notes) for piece in part] if i == 0 else part for i, part in enumerate(read_folder(Path('tunes')))]",
        ),
    )
    tunes = len(midi_file.read_midi(Path("tunes/0.mid")).notes)
    assert found == [
        "torch.Size([1, 3, 16, 16])",
        # Of equal notes at a time one is kept, on a grid of 24 ticks.
        f"[[{tunes}, {round(99_999 / 24) + 1}], "
        "{'many.mid': 'cannot be read (it has 7000022 bytes, more than 1 MiB)'}]",
    ]
