"""What the host may read of tensors, without waiting for a device."""

import torch
from torch import Tensor


def readable(x: Tensor) -> bool:
    """Whether a look at the numbers costs nothing, so that work may depend on them: on a CPU, and not in a compiled
    function, whose graph must serve all numbers."""
    return x.device.type == "cpu" and not torch.compiler.is_compiling()


def longest(lengths: Tensor, limit: int) -> int:
    """The largest of some lengths [N], or `limit`, the most that they can be, where reading them would cost a wait."""
    return int(lengths.max()) if readable(lengths) else limit
