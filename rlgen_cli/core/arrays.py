"""NumPy's `.npz` from elsewhere: what an array takes is known from its header before it is unpacked."""

import io
import math
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import torch
from numpy.lib import format as npy
from torch import Tensor

from rlgen_cli.core.files import MIB, content_of

LARGEST_FILE = 16 * MIB
LARGEST_ARRAY = 64 * MIB  # unpacked


def read_arrays(path: Path, names: Sequence[str]) -> dict[str, Tensor]:
    """The arrays `names` of an `.npz`, as float32 tensors; others are not read, and nothing is unpickled.

    Raises:
        OSError: whose `strerror` is the reason, for a file that cannot be read.
        ValueError: for one that is no `.npz` of finite numbers within the limits, or lacks a name.
    """
    content = content_of(path, LARGEST_FILE)
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return {name: _array(archive, f"{name}.npy") for name in names}
    except Exception as error:  # a damaged archive raises whatever zipfile, zlib and NumPy stumble over
        raise ValueError(str(error) or type(error).__name__) from None


def _array(archive: zipfile.ZipFile, name: str) -> Tensor:
    entry = archive.getinfo(name)
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # others unpack more than is asked for
        raise ValueError(f"{name} is packed in another way than NumPy packs")
    if entry.file_size > LARGEST_ARRAY:
        raise ValueError(f"{name} has {entry.file_size} bytes, more than {LARGEST_ARRAY // MIB} MiB")
    with archive.open(entry) as file:
        read_header = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}[npy.read_magic(file)]
        shape, by_columns, kind = read_header(cast(BinaryIO, file))
        if kind.kind not in "fiu":
            raise ValueError(f"{name} holds no real numbers")
        total = math.prod(shape) * kind.itemsize
        if min(shape, default=0) < 0 or total > LARGEST_ARRAY:
            raise ValueError(f"{name} has the shape {shape}, more than {LARGEST_ARRAY // MIB} MiB")
        raw = file.read(total + 1)
    if len(raw) != total:
        raise ValueError(f"{name} announces {total} bytes and has others")
    values = np.frombuffer(raw, kind).reshape(shape, order="F" if by_columns else "C").astype(np.float32, order="C")
    if not np.isfinite(values).all():
        raise ValueError(f"{name} holds numbers that are not finite")
    return torch.from_numpy(values)
