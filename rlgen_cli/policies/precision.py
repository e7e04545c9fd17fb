"""The number format of the networks' passes: float32, or bfloat16 autocast."""

from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch

# Kinds of network whose passes were measured to be faster in bfloat16, by device type (benchmarks/precision.py).
FASTER_IN_BFLOAT16: dict[str, frozenset[str]] = {"cpu": frozenset(), "cuda": frozenset()}


class Precision:
    """`auto` takes bfloat16 where it was measured to pay, by kind of network; parameters, optimizers, densities and
    values stay float32 in any case."""

    def __init__(self, name: Literal["auto", "float32", "bfloat16"]) -> None:
        self.name = name

    def bfloat16(self, device_type: str, kind: str) -> bool:
        """Whether a network of this kind runs in bfloat16 on this type of device."""
        if self.name == "auto":
            return kind in FASTER_IN_BFLOAT16.get(device_type, frozenset())
        return self.name == "bfloat16"

    def autocast(self, device_type: str, kind: str) -> AbstractContextManager[None]:
        """The context in which a network's pass runs; the meta device, which has no numbers, needs none."""
        if device_type == "meta" or not self.bfloat16(device_type, kind):
            return nullcontext()
        return torch.autocast(device_type, torch.bfloat16)


def full_precision(device_type: str) -> AbstractContextManager[None]:
    """Within an autocast context, the part that wants float32: densities and values."""
    return nullcontext() if device_type == "meta" else torch.autocast(device_type, enabled=False)
