"""How much memory this machine has, and the refusal of what would need more, before it is asked for."""

import contextlib
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from rlgen_cli.core import seeding
from rlgen_cli.core.errors import require
from rlgen_cli.core.protocols import Env
from rlgen_cli.core.tree import leaves

CGROUP = Path("/sys/fs/cgroup/memory.max")  # what a container may use
UNITS = ("bytes", "kB", "MB", "GB", "TB", "PB", "EB")
# Functions whose arguments say how large the tensor is that they make.
FACTORIES = frozenset([torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn])


def memory() -> int:
    """Bytes of the machine's memory, or of what this container may use of it."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with contextlib.suppress(OSError, ValueError):  # other systems, and `max` for no limit
        return min(physical, int(CGROUP.read_text()))
    return physical


def in_words(size: float) -> str:
    """Bytes with a unit, as 1.5 GB."""
    power = min(int(math.log(max(size, 1), 1000)), len(UNITS) - 1)
    return f"{size / 1000**power:.3g} {UNITS[power]}"


def require_memory(needed: int, what: str) -> None:
    """Refuse what needs more bytes than there are; `what` begins with the key, as `buffer_size: 100 frames`.

    Raises:
        UserError: with both numbers.
    """
    here = memory()
    require(needed <= here, f"{what} would need {in_words(needed)}, and this machine has {in_words(here)} of memory.")


def footprint(env: Env, device: torch.device) -> int:
    """Bytes of one episode's state and of what is observed of it."""
    state = env.reset(1, seeding.stream(0, "footprint", device))
    return bytes_of(state) + bytes_of(env.observe(state))


def bytes_of(tree: Any) -> int:
    """Bytes of all tensors of a tree."""
    return sum(tensor.nbytes for tensor in leaves(tree))


class TooLarge(MemoryError):
    """A tensor was asked for that is larger than the memory; `size` is in bytes."""

    def __init__(self, size: int) -> None:
        super().__init__(f"a tensor of {in_words(size)}")
        self.size = size


class WithinMemory(TorchFunctionMode):
    """While this is entered, a tensor that is larger than the memory is refused before it is asked for: an allocator
    may promise it, and the system end the process when it is filled.

    Raises:
        TooLarge: for such a tensor.
    """

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if function in FACTORIES:
            sizes = args[0] if args and isinstance(args[0], list | tuple) else args
            dtype = (kwargs or {}).get("dtype") or torch.get_default_dtype()
            size = math.prod(n for n in sizes if isinstance(n, int)) * dtype.itemsize
            if size > memory():
                raise TooLarge(size)
        return function(*args, **(kwargs or {}))
