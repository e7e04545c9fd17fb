"""MNIST and the sets that share its file format, from a folder of yours or downloaded once into the cache."""

import gzip
import hashlib
import http.client
import math
import os
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

import torch
from torch import Tensor

from rlgen_cli.core.checkpoint import cache_folder
from rlgen_cli.core.errors import UserError, reason_of, require
from rlgen_cli.core.files import MIB, open_regular
from rlgen_cli.data.images import Images, Splits, content_share, resize, to_channels

FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
LARGEST_FILE = 2048 * MIB  # unpacked
LARGEST_DOWNLOAD = 256 * MIB
MOST_IMAGES = 1_000_000
LONGEST_SIDE = 1024  # pixels
CHUNK = MIB  # bytes that are unpacked at a time
LICENCES = {"mnist": "CC BY-SA 3.0", "fashion_mnist": "MIT", "kmnist": "CC BY-SA 4.0"}  # of the published files


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
        plain = name not in ("", ".", "..") and not set(name) & set("/\\\0")
        require(plain, f"name: must be the name of a folder in the cache, without separators, got {name!r}.")
        require(url.startswith(("http://", "https://")), f"url: must begin with http:// or https://, got {url!r}.")
        require(len(classes) > 0, "classes: must name at least one label.")
        self.name, self.url, self.md5, self.classes = name, url, md5, tuple(classes)
        self.threshold, self.licence = threshold, LICENCES.get(name)
        self.root = None if root is None else Path(root)
        if self.root is not None:
            require(self.root.is_dir(), f"root: there is no folder {self.root}; name the folder of the IDX files.")

    def load(self, size: int, channels: int) -> Splits:
        folder = self.root or self._download()
        files = [_find(folder, name) for name in FILES]
        train_x, train_y = self._read(*files[:2])
        test_x, test_y = self._read(*files[2:])
        valid = torch.from_numpy(content_share(train_x) < 0.05)
        if bool(valid.all()):  # of a handful of images
            valid[0] = False

        def part(images: Tensor, labels: Tensor) -> Images:
            images = to_channels(resize(images.unsqueeze(1), size), channels)
            if self.threshold is not None:
                images = (images > self.threshold).to(torch.uint8) * 255
            return Images(images, labels.long(), self.classes)

        return Splits(
            part(train_x[~valid], train_y[~valid]), part(train_x[valid], train_y[valid]), part(test_x, test_y)
        )

    def _read(self, images: Path, labels: Path) -> tuple[Tensor, Tensor]:
        """Images uint8 [M, S, S] and labels uint8 [M] of two files that go together."""
        x, y = _read_idx(images, 3), _read_idx(labels, 1)
        count, high, wide = x.shape
        require(count > 0, f"data: {images} holds no images.")
        require(count <= MOST_IMAGES, f"data: {images} holds {count} images, and at most {MOST_IMAGES} are read.")
        fits = high == wide and 1 <= high <= LONGEST_SIDE
        sizes = f"squares of 1 to {LONGEST_SIDE} pixels a side"
        require(fits, f"data: {images} holds pictures of {wide} × {high} pixels, and they must be {sizes}.")
        require(len(y) == count, f"data: {labels} holds {len(y)} labels, and {images} {count} images.")
        most = int(y.max())
        known = f"label {most}, and the classes end at {len(self.classes) - 1}"
        require(most < len(self.classes), f"data: {labels} holds the {known}.")
        return x, y

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
        with _web().open(url, timeout=30) as response:
            content = response.read(LARGEST_DOWNLOAD + 1)
            if response.length and len(content) <= LARGEST_DOWNLOAD:
                raise http.client.IncompleteRead(content, response.length)
    except (urllib.error.URLError, http.client.HTTPException, OSError, ValueError) as error:
        reason = reason_of(error) if not isinstance(error, urllib.error.URLError) else error.reason
        raise UserError(
            f"data: {name} could not be downloaded ({reason}); put the four IDX files into a folder and give "
            f"data.root=FOLDER (or paths.data=FOLDER with a folder {name} in it, or set RLGEN_DATA to that), or use "
            "data=glyphs, which needs no file."
        ) from None
    limit = LARGEST_DOWNLOAD // MIB
    require(len(content) <= LARGEST_DOWNLOAD, f"data: {url} holds more than {limit} MiB, the most that is downloaded.")
    found = hashlib.md5(content).hexdigest()  # the publishers give MD5
    require(md5 in (None, found), f"data: {url} arrived damaged (MD5 {found}, expected {md5}).")
    partial = path.with_suffix(f".{os.getpid()}.part")
    partial.write_bytes(content)
    partial.replace(path)


def _web() -> urllib.request.OpenerDirector:
    """What opens http and https alone: the opener that urllib builds reads local files and FTP, too, and follows a
    server there."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPRedirectHandler,
        urllib.request.HTTPErrorProcessor,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.UnknownHandler,
    ):
        opener.add_handler(handler())
    return opener


def _find(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if os.path.lexists(path):
            return path
    raise UserError(f"data.root: {folder} lacks the file {name} (or {name}.gz).")


def _read_idx(path: Path, dims: int) -> Tensor:
    """An IDX file of unsigned bytes with `dims` dimensions: magic 0 0 8 D, D big-endian sizes, the bytes. No more of it
    is unpacked than its header announces, and one byte, which tells that there are more."""
    try:
        with _unpacked(path) as file:
            head = file.read(4)
            require(head[:3] == b"\0\0\x08", f"data: {path} is not an IDX file of unsigned bytes.")
            require(head[3:] == bytes([dims]), f"data: {path} must have {dims} dimensions, got {list(head[3:])}.")
            sizes = file.read(4 * dims)
            require(len(sizes) == 4 * dims, f"data: {path} ends within its header.")
            shape = [int.from_bytes(sizes[i : i + 4], "big") for i in range(0, 4 * dims, 4)]
            total = math.prod(shape)
            most = f"{total} bytes, and at most {LARGEST_FILE // MIB} MiB are read"
            require(total <= LARGEST_FILE, f"data: {path} announces {shape}, which is {most}.")
            values = bytearray()
            while len(values) <= total and (part := file.read(min(CHUNK, total + 1 - len(values)))):
                values += part
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"data: {path} cannot be read as an IDX file ({reason_of(error)}).") from None
    has = len(values) if len(values) <= total else f"more than {total}"
    require(len(values) == total, f"data: {path} announces {shape}, which is {total} bytes, and has {has}.")
    return torch.frombuffer(values, dtype=torch.uint8).view(shape) if total else torch.zeros(shape, dtype=torch.uint8)


@contextmanager
def _unpacked(path: Path) -> Iterator[IO[bytes]]:
    """A file's content, which gzip packed where its name says so."""
    with open_regular(path) as file:
        if path.suffix == ".gz":
            with gzip.GzipFile(fileobj=file) as content:
                yield cast(IO[bytes], content)
        else:
            yield file
