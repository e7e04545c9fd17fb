"""Canvases of few colours in a few bits a pixel."""

import torch
from torch import Tensor

from rlgen_cli.core.bits import byte_table, pack_bits, unpack_bits

HASH_BITS = 10  # of the table that finds a colour's index


class PalettePacking:
    """Canvases whose every pixel has a palette colour, as indices packed into bytes, and back to the bit.

    Two colours take 1 bit a pixel, up to 4 take 2, up to 16 take 4, more a byte.

    Args:
        palette: uint8 [colours, C], at most 32 colours, C 1 or 3, on the CPU (it is read here, once).
        shape: C, H, W of canvases.
        device: of canvases.
    """

    def __init__(self, palette: Tensor, shape: tuple[int, int, int], device: torch.device) -> None:
        self.shape, self.pixels = shape, shape[1] * shape[2]
        unique = torch.unique(palette, dim=0)  # in lexicographic order; equal colours become one
        self.bits = next(bits for bits in (1, 2, 4, 8) if len(unique) <= 2**bits)
        self.tables = torch.cat([byte_table(channel, self.bits) for channel in unique.unbind(1)]).to(device)
        self.offset = 256 * torch.arange(shape[0], dtype=torch.int32, device=device).unsqueeze(1)  # of channels' tables
        self.telling = _telling_bit(unique) if len(unique) == 2 else None
        self.factor, hashes = _perfect_hash(_codes(unique, 1))
        index = torch.zeros(2**HASH_BITS, dtype=torch.uint8)
        index[hashes] = torch.arange(len(unique), dtype=torch.uint8)
        self.index = index.to(device)

    def pack(self, canvas: Tensor) -> Tensor:
        """Indices of canvases uint8 [N, C, H, W], packed, uint8 [N, bytes]."""
        return pack_bits(self._indices(canvas).flatten(1), self.bits)

    def unpack(self, packed: Tensor) -> Tensor:
        """The canvases, uint8 [N, C, H, W], of `pack`'s bytes [N, bytes]."""
        colours = unpack_bits(packed.unsqueeze(1) + self.offset, self.tables)  # [N, C, H · W and what fills a byte]
        return colours[:, :, : self.pixels].contiguous().view(-1, *self.shape)

    def _indices(self, canvas: Tensor) -> Tensor:
        """Of the colours of canvases [N, C, H, W], in the palette's order, uint8 [N, H, W]."""
        if self.telling is not None:
            channel, bit = self.telling
            return canvas[:, channel] >> bit & 1
        hashes = _hash(_codes(canvas, 1), self.factor)
        return self.index.index_select(0, hashes.flatten()).view(hashes.shape)


def _telling_bit(palette: Tensor) -> tuple[int, int]:
    """A channel, and a bit of it that is 0 in the first and 1 in the second of two colours in order."""
    one, two = palette.tolist()
    channel = next(i for i in range(len(one)) if one[i] != two[i])
    return channel, (one[channel] ^ two[channel]).bit_length() - 1


def _codes(colours: Tensor, dim: int) -> Tensor:
    """One number per colour, int32: red · 2¹⁶ + green · 2⁸ + blue, or the grey; `dim` holds the channels."""
    code, *others = colours.int().unbind(dim)
    for channel in others:
        code = code * 256 + channel
    return code


def _hash(codes: Tensor, factor: int) -> Tensor:
    """Numbers below 2^HASH_BITS: the highest bits of the product."""
    return codes * factor >> 32 - HASH_BITS & 2**HASH_BITS - 1


def _perfect_hash(codes: Tensor) -> tuple[int, Tensor]:
    """A factor by which no two of the codes [colours] have the same hash, and the hashes."""
    factor = 0x9E3779B1  # an odd number of many bits; its multiples are tried in turn
    while True:
        factor = (factor + 2 * 0x9E3779B1) & 0xFFFFFFFF
        signed = factor - 2**32 if factor >= 2**31 else factor  # as int32 has it
        hashes = _hash(codes, signed)
        if len(hashes.unique()) == len(codes):
            return signed, hashes
