"""Planes of a picture: bytes from 0 to 255, which are small and quick to make, or floats from 0 to 1."""

import torch
from torch import Tensor, nn


def as_unit(planes: Tensor) -> Tensor:
    """The planes as floats from 0 to 1."""
    return planes if planes.is_floating_point() else planes / 255


def reduce(planes: Tensor, factor: int) -> Tensor:
    """Mean over factor × factor blocks, float [N, C, ⌈H/f⌉, ⌈W/f⌉] from 0 to 1; zeros beyond the border.

    On a CPU, strided sums of floats are five times faster than average pooling, and those of bytes, of which two
    neighbours are read as one number, five times faster again.
    """
    if factor == 1:
        return as_unit(planes)
    high, wide = planes.shape[2:]
    if high % factor or wide % factor:
        planes = nn.functional.pad(planes, [0, -wide % factor, 0, -high % factor])
    if planes.is_floating_point():
        return _columns(_rows(planes, factor), factor) / factor**2
    if factor == 2:
        pairs = planes.contiguous().view(torch.int16)
        columns = (pairs & 255) + ((pairs >> 8) & 255)
    else:
        columns = _columns(planes.int(), factor)
    return _rows(columns, factor) / (255 * factor**2)


def _rows(planes: Tensor, factor: int) -> Tensor:
    """Sums of so many successive rows."""
    return sum((planes[:, :, i::factor] for i in range(1, factor)), planes[:, :, ::factor])


def _columns(planes: Tensor, factor: int) -> Tensor:
    """Sums of so many successive columns."""
    return sum((planes[..., i::factor] for i in range(1, factor)), planes[..., ::factor])
