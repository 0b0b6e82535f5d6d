"""Memory that a step frees and the next one takes again."""

import ctypes
from contextlib import suppress

MMAP_MAX, TRIM_THRESHOLD = -4, -1
"""Parameters of `mallopt`. Source: malloc.h of the GNU C library."""
LARGEST = 2**31 - 1


def keep_freed_memory() -> None:
    """Let the C library keep what is freed, where it is GNU's.

    As it comes, it gives large blocks back to the system at once, which maps and clears them anew
    for every step.
    """
    with suppress(OSError, AttributeError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(MMAP_MAX, 0)
        mallopt(TRIM_THRESHOLD, LARGEST)
