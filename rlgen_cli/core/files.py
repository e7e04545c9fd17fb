"""Files of unknown origin: only regular ones are read, only up to a limit, and without ever waiting for a writer."""

import os
import stat
from collections.abc import Collection
from pathlib import Path
from typing import BinaryIO

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
    with open_regular(path, key) as file:
        size = os.fstat(file.fileno()).st_size
        require(size <= limit, f"{key}: {path} has {size} bytes, and at most {limit / MIB:g} MiB are read.")
        try:
            content = file.read(size + 1)
        except OSError as error:
            raise UserError(f"{key}: {path} cannot be read ({error.strerror}).") from None
    require(content is not None and len(content) <= size, f"{key}: {path} grows while it is read.")
    return content


def open_regular(path: Path, key: str) -> BinaryIO:
    """A regular file, open for reading.

    Raises:
        UserError: beginning with `key`, for what is no regular file or cannot be opened.
    """
    try:
        _check_regular(os.stat(path).st_mode, path, key)  # before it is opened, which some devices notice
        # The name may mean another file by now; without O_NONBLOCK, opening a pipe would wait for its writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise UserError(f"{key}: there is no file {path}.") from None
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        raise UserError(f"{key}: {path} cannot be read ({getattr(error, 'strerror', error)}).") from None
    file = os.fdopen(descriptor, "rb")
    try:
        _check_regular(os.fstat(descriptor).st_mode, path, key)
    except UserError:
        file.close()
        raise
    return file


def files_below(folder: Path, suffixes: Collection[str]) -> list[Path]:
    """Everything below `folder`, in the order of paths, whose name ends with one of `suffixes` in any case and which is
    no folder; links to folders are not followed."""
    found = (Path(place, name) for place, _, names in os.walk(folder) for name in names)
    return sorted(path for path in found if path.suffix.lower() in suffixes)


def _check_regular(mode: int, path: Path, key: str) -> None:
    kind = next((name for holds, name in KINDS if holds(mode)), "no regular file")
    require(stat.S_ISREG(mode), f"{key}: {path} is {kind}; name a regular file.")
