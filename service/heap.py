"""The heap of the process."""

import ctypes
import gc
from contextlib import suppress

M_ARENA_MAX, M_MMAP_THRESHOLD = -8, -3
"""Of glibc's `mallopt`."""
LARGE_BYTES = 1 << 20


def keep_small() -> None:
    """Have what is no longer used given back.

    The garbage collector looks at what comes from now on alone: among a hundred thousand objects
    that stay it would wait for a fourth as much garbage, and then look through all of them.

    The C library, where it is glibc, would give each thread a heap of its own, which keeps what it
    once needed, and after a large block was freed keep the next ones too. Threads that have a heap
    by then keep it.
    """
    gc.freeze()
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(M_ARENA_MAX, 1)
        libc.mallopt(M_MMAP_THRESHOLD, LARGE_BYTES)
