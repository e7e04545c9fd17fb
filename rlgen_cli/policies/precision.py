"""Number format of the networks' passes: float32, or bfloat16 autocast where the hardware is built for it."""

from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch


def fast_bfloat16(device: torch.device) -> bool:
    """True on CUDA from Ampere on, and on CPUs with bfloat16 instructions; elsewhere autocast only costs."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8
    abilities = torch.cpu.get_capabilities()
    return bool(abilities.get("avx512_bf16") or abilities.get("amx_bf16"))


class Precision:
    """`auto` takes bfloat16 where it is fast; parameters and optimizers stay float32 in any case."""

    def __init__(self, kind: Literal["auto", "float32", "bfloat16"], device: torch.device) -> None:
        self.device = device
        self.bfloat16 = kind == "bfloat16" or (kind == "auto" and fast_bfloat16(device))

    def __call__(self) -> AbstractContextManager[None]:
        """The context in which networks run."""
        return torch.autocast(self.device.type, torch.bfloat16) if self.bfloat16 else nullcontext()
