"""Small whole numbers side by side in bytes, and back through a table with an entry for every byte."""

import torch
from torch import Tensor
from torch.nn.functional import pad

WORDS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # by the bytes that they hold


def pack_bits(numbers: Tensor, bits: int) -> Tensor:
    """Numbers below 2^bits, bool or uint8 [N, n], in `bits` = 1, 2, 4 or 8 bits each, uint8 [N, ⌈n · bits / 8⌉]; the
    first number of a byte has its lowest bits."""
    per_byte = 8 // bits
    if numbers.shape[1] == 0:
        return numbers.view(torch.uint8)
    missing = -numbers.shape[1] % per_byte
    if missing:
        numbers = pad(numbers, [0, missing])
    words = numbers.contiguous().view(torch.uint8).view(WORDS[per_byte])  # a number a byte, as many as become one byte
    # Multiplied by a sum of powers of two, a word is the sum of its copies, shifted; they share no bit, and the highest
    # byte has the bits of the i-th number at place i · bits. (The lowest byte is the first: little-endian.)
    factor = sum(1 << 8 * (per_byte - 1) - (8 - bits) * i for i in range(per_byte))
    return (words * factor >> 8 * (per_byte - 1)).to(torch.uint8)


def byte_table(values: Tensor, bits: int) -> Tensor:
    """What `unpack_bits` finds for each byte: the uint8 `values` [at most 2^bits] of its numbers, a word [256]."""
    per_byte = 8 // bits
    shifts = bits * torch.arange(per_byte, device=values.device)
    numbers = torch.arange(256, device=values.device).unsqueeze(1) >> shifts & 2**bits - 1  # [256, per_byte]
    return values[numbers.clamp(max=len(values) - 1)].view(WORDS[per_byte]).flatten()


def unpack_bits(packed: Tensor, table: Tensor) -> Tensor:
    """The values of bytes [N, …, bytes], uint8 [N, …, bytes · numbers a byte], by a `byte_table`."""
    words = table.index_select(0, packed.int().flatten())
    return words.view(packed.shape).view(torch.uint8)
