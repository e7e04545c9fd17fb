"""core/files.py: what is no regular file, or too large, is refused in one sentence, and nothing waits."""

import os
import re
import socket
import sys
from pathlib import Path

import pytest

from rlgen_cli.core.errors import UserError
from rlgen_cli.core.files import MIB, files_below, read_bytes


def loop(path: Path) -> None:
    path.symlink_to(path)


def bound_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(path))


ODD = {
    "missing": (lambda path: None, "{path} cannot be read (there is no file of that name)."),
    "dangling": (lambda path: path.symlink_to("nowhere"), "{path} cannot be read (there is no file of that name)."),
    "loop": (loop, "{path} cannot be read (Too many levels of symbolic links)."),
    "folder": (Path.mkdir, "{path} cannot be read (it is a folder, not a regular file)."),
    "pipe": (os.mkfifo, "{path} cannot be read (it is a named pipe, not a regular file)."),
    "device": (
        lambda path: path.symlink_to("/dev/zero"),
        "{path} cannot be read (it is a device, not a regular file).",
    ),
    "socket": (bound_socket, "{path} cannot be read (it is a socket, not a regular file)."),
}


@pytest.mark.parametrize("name", ODD)
def test_what_is_no_regular_file_is_refused(name):
    make, message = ODD[name]
    path = Path("x")
    make(path)
    with pytest.raises(UserError, match=f"^{re.escape('data.path: ' + message.format(path=path))}$"):
        read_bytes(path, MIB, "data.path")


def test_a_pipe_that_takes_the_place_of_a_file_is_refused_and_not_waited_for(tmp_path, monkeypatch):
    path = tmp_path / "x"
    path.write_bytes(b"content")
    os.mkfifo(tmp_path / "pipe")
    before = os.stat(path)
    (tmp_path / "pipe").replace(path)
    monkeypatch.setattr(os, "stat", lambda _: before)
    with pytest.raises(UserError, match="it is a named pipe"):
        read_bytes(path, MIB, "run")


def test_names_that_no_file_can_have():
    for name in ("a\0b", "a" * 5000):
        with pytest.raises(UserError, match=r"^run: .* cannot be read \("):
            read_bytes(Path(name), MIB, "run")


def test_the_limit_is_named():
    Path("x").write_bytes(b"0" * MIB)
    assert read_bytes(Path("x"), MIB, "run") == b"0" * MIB
    with Path("x").open("ab") as file:
        file.truncate(1 << 40)  # no disk is needed for a hole
    with pytest.raises(UserError, match=r"^run: x cannot be read \(it has 1099511627776 bytes, more than 1 MiB\)\.$"):
        read_bytes(Path("x"), MIB, "run")


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_a_file_without_a_size_is_refused():
    with pytest.raises(UserError, match=r"^run: /proc/self/status cannot be read \(it grows while it is read\)\.$"):
        read_bytes(Path("/proc/self/status"), MIB, "run")


def test_files_are_found_below_a_folder_and_folders_are_none():
    (Path("a") / "x.png").mkdir(parents=True)
    for name in ("a/x.png/Y.PNG", "a/b.png", "a/c.txt"):
        Path(name).write_bytes(b"")
    Path("a/up.png").symlink_to("..")
    loop(Path("a/loop.png"))
    os.mkfifo("a/pipe.png")
    names = [path.relative_to("a").as_posix() for path in files_below(Path("a"), {".png"})]
    assert names == ["b.png", "loop.png", "pipe.png", "x.png/Y.PNG"]
