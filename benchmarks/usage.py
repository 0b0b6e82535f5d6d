"""What a server holds: memory, threads, children and files by Linux, requests by itself."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx

PROC = Path("/proc")
HELD = ("unet_requests_held", "unet_pixels_held", "unet_queue_images", "unet_queue_flop")
"""What `/metrics` says of requests that are not over."""
IDLE_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process and its descendants take."""

    memory_bytes: int
    """Resident, of all; pages that they share count once for each."""
    threads: int
    """Of the server itself."""
    children: int
    files: int
    """Open in the server itself."""


def usage(pid: int) -> Usage:
    """Look at a server and its descendants."""
    below = descendants(pid)
    memory = sum(_status(each, "VmRSS") for each in (pid, *below))
    files = len(list((PROC / str(pid) / "fd").iterdir()))
    return Usage(1024 * memory, _status(pid, "Threads"), len(below), files)


def descendants(pid: int) -> list[int]:
    """Give the processes that a process has started, and those that they have."""
    parents: dict[int, int] = {}
    for folder in PROC.iterdir():
        if folder.name.isdigit():
            parents[int(folder.name)] = _status(int(folder.name), "PPid")
    found, wanted = [], {pid}
    while wanted:
        wanted = {child for child, parent in parents.items() if parent in wanted}
        found += sorted(wanted)
    return found


def proportional_bytes(pids: Sequence[int]) -> int:
    """Give the memory that processes take together; pages that they share count once."""
    return sum(map(_proportional, pids))


def _proportional(pid: int) -> int:
    """Read the proportional set size of a process, in bytes; 0 where it is gone."""
    try:
        lines = (PROC / str(pid) / "smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return 1024 * next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)


def held(client: httpx.Client) -> dict[str, float]:
    """Ask a server what it holds."""
    pairs = (line.split() for line in client.get("/metrics").text.splitlines())
    return {name: float(value) for name, value, *_ in pairs if name in HELD}


def held_in_the_end(client: httpx.Client) -> dict[str, float]:
    """Ask until it holds nothing, for as long as work that was given up may take."""
    deadline = time.monotonic() + IDLE_TIMEOUT_S
    while any((found := held(client)).values()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return found


def _status(pid: int, field: str) -> int:
    """Read a number of a process; 0 where it is gone."""
    try:
        text = (PROC / str(pid) / "status").read_text()
    except OSError:
        return 0
    values = (line.split()[1] for line in text.splitlines() if line.startswith(f"{field}:"))
    return int(next(values, 0))
