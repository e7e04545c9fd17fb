"""MNIST and the sets that share its file format, from a folder of yours or downloaded once into the cache."""

import gzip
import hashlib
import os
import struct
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rlgen_cli.core.checkpoint import cache_folder
from rlgen_cli.core.errors import UserError, require
from rlgen_cli.data.images import Images, Splits, content_share, resize, to_channels

FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


class IdxImages:
    """Four IDX files, gzip or not. The official test files are the test split; a twentieth of the training images,
    chosen by a hash of their pixels, is the validation split.

    `root` is a folder that holds the files; without it they are downloaded from `url` into the cache folder and
    checked against `md5` (of the gzip files, by name). With a `threshold`, pixels above it are white, others black.
    """

    trusted_arguments = ("name", "url", "md5")  # what is downloaded, and where it goes

    def __init__(
        self,
        name: str,
        root: str | None,
        url: str,
        md5: dict[str, str],
        classes: list[str],
        threshold: int | None,
    ) -> None:
        self.name, self.url, self.md5, self.classes = name, url, md5, tuple(classes)
        self.threshold = threshold
        self.root = None if root is None else Path(root)
        if self.root is not None:
            require(self.root.is_dir(), f"root: there is no folder {self.root}; name the folder of the IDX files.")

    def load(self, size: int, channels: int) -> Splits:
        folder = self.root or self._download()
        train_x, train_y, test_x, test_y = (_read_idx(_find(folder, name)) for name in FILES)
        valid = torch.from_numpy(content_share(train_x) < 0.05)

        def part(images: Tensor, labels: Tensor) -> Images:
            images = to_channels(resize(images.unsqueeze(1), size), channels)
            if self.threshold is not None:
                images = (images > self.threshold).to(torch.uint8) * 255
            return Images(images, labels.long(), self.classes)

        return Splits(
            part(train_x[~valid], train_y[~valid]), part(train_x[valid], train_y[valid]), part(test_x, test_y)
        )

    def _download(self) -> Path:
        folder = cache_folder() / "data" / self.name
        folder.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            path = folder / f"{name}.gz"
            if not path.exists():
                _fetch(f"{self.url.rstrip('/')}/{path.name}", path, self.md5.get(path.name), self.name)
        return folder


def _fetch(url: str, path: Path, md5: str | None, name: str) -> None:
    """Download to `path`, atomically, and only if the digest is right."""
    try:
        with urllib.request.urlopen(url, timeout=30) as response:
            content = response.read()
    except (urllib.error.URLError, OSError) as error:
        reason = getattr(error, "reason", error)
        raise UserError(
            f"data: {name} could not be downloaded ({reason}); put the four IDX files into a folder and give "
            f"data.root=FOLDER (or paths.data=FOLDER with a folder {name} in it, or set RLGEN_DATA to that), or use "
            "data=glyphs, which needs no file."
        ) from None
    found = hashlib.md5(content).hexdigest()  # the publishers give MD5
    require(md5 in (None, found), f"data: {url} arrived damaged (MD5 {found}, expected {md5}).")
    partial = path.with_suffix(f".{os.getpid()}.part")
    partial.write_bytes(content)
    partial.replace(path)


def _find(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise UserError(f"data.root: {folder} lacks the file {name} (or {name}.gz).")


def _read_idx(path: Path) -> Tensor:
    """An IDX file of unsigned bytes: magic 0 0 8 D, D big-endian sizes, the bytes."""
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        zero, kind, dims = struct.unpack(">HBB", raw[:4])
        shape = struct.unpack(f">{dims}I", raw[4 : 4 + 4 * dims])
        values = np.frombuffer(raw, np.uint8, offset=4 + 4 * dims).reshape(shape)
    except (OSError, EOFError, struct.error, ValueError) as error:
        raise UserError(f"data: {path} cannot be read as an IDX file ({error}).") from None
    require((zero, kind) == (0, 8), f"data: {path} is not an IDX file of unsigned bytes.")
    return torch.from_numpy(values.copy())
