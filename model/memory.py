"""How much memory this process may take."""

import os
from pathlib import Path

from model.cgroups import groups_of, words

MEMINFO = Path("/proc/meminfo")
LIMITS = ("memory.max", "memory.limit_in_bytes")
"""What the limit is called in the two versions of control groups."""


def usable_memory() -> int:
    """Give the least of what the system can give and what control groups allow, in bytes.

    Memory that only caches files counts: after a data set was read, little else may be free.
    """
    limits = [words(group / name)[:1] for group in groups_of("memory") for name in LIMITS]
    return min([_available(), *(int(limit[0]) for limit in limits if limit and limit[0].isdigit())])


def _available() -> int:
    for line in MEMINFO.read_text().splitlines() if MEMINFO.exists() else ():
        name, _, amount = line.partition(":")
        if name == "MemAvailable":
            return int(amount.split()[0]) * 1024
    # Where the system does not say, half of its memory is left to all else.
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
