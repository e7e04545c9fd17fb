"""Canvases of few colours in a few bits a pixel."""

import torch
from torch import Tensor


class PalettePacking:
    """Canvases whose every pixel has a palette colour, as indices packed into bytes, and back to the bit.

    Two colours take 1 bit a pixel, up to 4 take 2, up to 16 take 4, more a byte.

    Args:
        palette: uint8 [colours, C], C 1 or 3, on the CPU (it is read here, once).
        shape: C, H, W of canvases.
        device: of canvases.
    """

    def __init__(self, palette: Tensor, shape: tuple[int, int, int], device: torch.device) -> None:
        self.shape, self.pixels = shape, shape[1] * shape[2]
        # Sorted by one number a colour, so that a colour is found by bisection; equal colours become one.
        unique = torch.unique(palette, dim=0)  # in lexicographic order, which is the order of the codes
        self.palette, self.codes = unique.to(device), _codes(unique, 1).to(device)
        bits = next(bits for bits in (1, 2, 4, 8) if len(unique) <= 2**bits)
        self.mask, self.per_byte = 2**bits - 1, 8 // bits
        self.bytes = -(-self.pixels // self.per_byte)
        self.shifts = (torch.arange(self.per_byte, dtype=torch.uint8) * bits).to(device)

    def pack(self, canvas: Tensor) -> Tensor:
        """Indices of canvases uint8 [N, C, H, W], packed, uint8 [N, bytes]."""
        index = torch.bucketize(_codes(canvas, 1), self.codes, out_int32=True).to(torch.uint8).flatten(1)  # [N, H · W]
        if self.per_byte == 1:
            return index
        padded = torch.nn.functional.pad(index, [0, self.bytes * self.per_byte - self.pixels])
        parts: Tensor = padded.view(-1, self.bytes, self.per_byte) << self.shifts
        return parts.sum(2, dtype=torch.uint8)  # the parts share no bit

    def unpack(self, packed: Tensor) -> Tensor:
        """The canvases, uint8 [N, C, H, W], of `pack`'s bytes [N, bytes]."""
        index = (packed.unsqueeze(2) >> self.shifts) & self.mask  # [N, bytes, pixels a byte]
        index = index.flatten(1)[:, : self.pixels].int()  # [N, H · W]
        _, high, wide = self.shape
        return self.palette[index].view(-1, high, wide, self.shape[0]).permute(0, 3, 1, 2).contiguous()


def _codes(colours: Tensor, dim: int) -> Tensor:
    """One number per colour, int32: red · 2¹⁶ + green · 2⁸ + blue, or the grey; `dim` holds the channels."""
    code, *others = colours.int().unbind(dim)
    for channel in others:
        code = code * 256 + channel
    return code
