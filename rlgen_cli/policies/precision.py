"""The number format of the networks' passes: float32, or bfloat16 autocast."""

from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch

# Kinds of network that were measured to be faster in bfloat16 on every device of a type that has it
# (benchmarks/precision.py). On CPUs it depends on the model, and its flags do not tell: trainings took .52 to 1.17 of
# the float32 time on one with AVX-512 bfloat16, 1.02 to 1.09 on another, and 6.6 without such units. CUDA was not
# measured.
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
