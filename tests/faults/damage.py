"""What can happen to a file on a disk."""

import shutil
from collections.abc import Callable
from pathlib import Path


def flipped(share: float) -> Callable[[Path], None]:
    """One bit is another one, at a share of the file's length."""

    def flip(path: Path) -> None:
        content = bytearray(path.read_bytes())
        content[min(int(share * len(content)), len(content) - 1)] ^= 1
        path.write_bytes(bytes(content))

    return flip


def truncated(path: Path) -> None:
    """The second half is missing."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def removed(path: Path) -> None:
    path.unlink()


def made_a_folder(path: Path) -> None:
    """A folder has the file's name."""
    path.unlink()
    path.mkdir()


def zeroed(path: Path) -> None:
    """The file's length is there, and none of its content, as after a loss of power."""
    path.write_bytes(bytes(path.stat().st_size))


def lengthened(path: Path) -> None:
    """Something else follows."""
    path.write_bytes(path.read_bytes() + b"\0\xff")


KINDS: dict[str, Callable[[Path], None]] = {
    "first bit flipped": flipped(0.0),
    "bit flipped at a third": flipped(0.33),
    "last bit flipped": flipped(1.0),
    "truncated": truncated,
    "emptied": emptied,
    "removed": removed,
    "replaced by a folder": made_a_folder,
    "zeroed": zeroed,
    "lengthened": lengthened,
}


def files_alone(checkpoint: Path) -> None:
    """A checkpoint has no manifest."""
    (checkpoint / "manifest.json").unlink()


def manifest_alone(checkpoint: Path) -> None:
    """A checkpoint has its manifest and nothing else."""
    for path in checkpoint.iterdir():
        if path.is_dir():
            shutil.rmtree(path)


def empty(checkpoint: Path) -> None:
    """A checkpoint's folder holds nothing."""
    shutil.rmtree(checkpoint)
    checkpoint.mkdir()


def a_file(checkpoint: Path) -> None:
    """A file has a checkpoint's name."""
    shutil.rmtree(checkpoint)
    checkpoint.write_bytes(b"no checkpoint")


FOLDERS: dict[str, Callable[[Path], None]] = {
    "files without a manifest": files_alone,
    "a manifest without its files": manifest_alone,
    "an empty folder": empty,
    "a file in its place": a_file,
}
