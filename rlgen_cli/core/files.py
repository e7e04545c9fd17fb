"""Files of unknown origin: only regular ones are read, only up to a limit, and without ever waiting for a writer. And
files of our own: written whole or not at all."""

import errno
import json
import os
import stat
from collections.abc import Collection
from pathlib import Path
from typing import Any, BinaryIO

from rlgen_cli.core.errors import UserError, require

MIB = 1 << 20
KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def read_bytes(path: Path, limit: int, key: str) -> bytes:
    """The content of a regular file of at most `limit` bytes.

    Raises:
        UserError: beginning with `key`, for what is no regular file or cannot be read, or has more bytes.
    """
    try:
        return content_of(path, limit)
    except OSError as error:
        raise UserError(f"{key}: {path} cannot be read ({error.strerror}).") from None


def read_json(path: Path, key: str) -> dict[str, Any]:
    """A small JSON file that holds an object; `key` begins the errors.

    Raises:
        UserError: for what is none.
    """
    try:
        found = json.loads(read_bytes(path, 4 * MIB, key))
    except (ValueError, RecursionError):
        raise UserError(f"{key}: {path} is damaged (it is no JSON).") from None
    require(isinstance(found, dict), f"{key}: {path} is damaged (it holds no JSON object).")
    return dict(found)


def content_of(path: Path, limit: int) -> bytes:
    """As `read_bytes`, for callers that go on without the file.

    Raises:
        OSError: whose `strerror` is the reason.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit:
            raise OSError(errno.EFBIG, f"it has {size} bytes, more than {limit / MIB:g} MiB")
        content = file.read(size + 1)
    if content is None or len(content) > size:  # None: there is nothing yet, as in some files below /proc
        raise OSError(errno.EFBIG, "it grows while it is read")
    return content


def open_regular(path: Path) -> BinaryIO:
    """A regular file, open for reading.

    Raises:
        OSError: whose `strerror` is the reason, for what is no regular file or cannot be opened.
    """
    try:
        _check_regular(os.stat(path).st_mode)  # before it is opened, which some devices notice
        # The name may mean another file by now; without O_NONBLOCK, opening a pipe would wait for its writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise FileNotFoundError(errno.ENOENT, "there is no file of that name") from None
    except ValueError as error:
        raise OSError(errno.EINVAL, f"no file has such a name: {error}") from None
    file = os.fdopen(descriptor, "rb")
    try:
        _check_regular(os.fstat(descriptor).st_mode)
    except OSError:
        file.close()
        raise
    return file


def files_below(folder: Path, suffixes: Collection[str]) -> list[Path]:
    """Everything below `folder`, in the order of paths, whose name ends with one of `suffixes` in any case and which is
    no folder; links to folders are not followed."""
    found = (Path(place, name) for place, _, names in os.walk(folder) for name in names)
    return sorted(path for path in found if path.suffix.lower() in suffixes)


def write_atomic(path: Path, content: bytes) -> None:
    """Replace a file at once: readers see the old or the new content, never half."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write_synced(partial, content)
        os.replace(partial, path)
        sync(path.parent)
    finally:
        partial.unlink(missing_ok=True)  # what a failure left half-written


def write_synced(path: Path, content: bytes) -> None:
    """Write a file, and wait until the disk has it."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def sync(folder: Path) -> None:
    """Wait until the disk has a folder's names."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _check_regular(mode: int) -> None:
    if not stat.S_ISREG(mode):
        kind = next((name for holds, name in KINDS if holds(mode)), "something else")
        raise OSError(errno.EINVAL, f"it is {kind}, not a regular file")
