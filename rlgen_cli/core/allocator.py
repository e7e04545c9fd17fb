"""Memory that tensors give back and take again at every step."""

import ctypes
import platform

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # mallopt(3)
KEPT = 2**30  # bytes


def keep_freed_memory() -> None:
    """Let the C library keep what tensors on the CPU free for the next ones, up to `KEPT` a block.

    By default, glibc hands blocks of a few hundred kilobytes back to the system, which must then clear their pages
    when the next step asks for them: for batches of pictures that takes longer than the arithmetic. Other C libraries
    are left as they are.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, KEPT)
        libc.mallopt(M_TRIM_THRESHOLD, KEPT)
