"""The heap of the process."""

import ctypes
from contextlib import suppress

M_ARENA_MAX, M_MMAP_THRESHOLD = -8, -3
"""Of glibc's `mallopt`."""
LARGE_BYTES = 1 << 20


def keep_small() -> None:
    """Have the C library give back what is no longer used, where it is glibc.

    It would give each thread a heap of its own, which keeps what it once needed, and after a large
    block was freed keep the next ones too. Threads that have a heap by then keep it.
    """
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(M_ARENA_MAX, 1)
        libc.mallopt(M_MMAP_THRESHOLD, LARGE_BYTES)
