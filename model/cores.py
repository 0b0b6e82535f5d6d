"""How many cores this process really has.

A container may see every core of its host and be given the time of two. What limits it stands in
its control group: a quota of CPU time in each period, in its own group and in those above it. ONNX
Runtime and OpenVINO count cores without looking there; threads beyond the quota only make all of
them stop together until the next period.
"""

import math
import os
from collections.abc import Iterator
from pathlib import Path

CGROUP_ROOT = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")
TOPOLOGY = Path("/sys/devices/system/cpu")


def usable_cores() -> int:
    """Count the cores that this process may keep busy: the least of affinity and quotas.

    Two hardware threads of one core count once, as for ONNX Runtime. Parts of a core are rounded
    down, to at least 1: what is left over is for decoding and the event loop.
    """
    try:
        membership = MEMBERSHIP.read_text()
    except OSError:  # not Linux
        membership = ""
    return max(1, math.floor(min(_allowed_cores(TOPOLOGY), cpu_quota(membership, CGROUP_ROOT))))


def cpu_quota(membership: str, root: Path) -> float:
    """Give the CPU time that control groups allow a process, in cores; infinity is no limit.

    Args:
        membership: `/proc/self/cgroup`: a line `0::PATH` in version 2, one `ID:CONTROLLERS:PATH`
            for each hierarchy of version 1, or both.
        root: Where the hierarchies are mounted.
    """
    found = [math.inf]
    for line in membership.splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            found += map(_quota_of_version_2, _groups(root, path))
            found += map(_quota_of_version_2, _groups(root / "unified", path))
        elif "cpu" in controllers.split(","):
            found += map(_quota_of_version_1, _groups(root / controllers, path))
            found += map(_quota_of_version_1, _groups(root / "cpu", path))
    return min(found)


def _groups(root: Path, path: str) -> Iterator[Path]:
    """Give a group and all above it; in a container, the root may be the group itself."""
    group = root / path.strip("/")
    yield group
    while group != root:
        group = group.parent
        yield group


def _quota_of_version_2(group: Path) -> float:
    """Read `cpu.max`: quota and period in µs, or `max` and period."""
    quota, period = (_words(group / "cpu.max") or ("max", "1"))[:2]
    return math.inf if quota == "max" else int(quota) / int(period)


def _quota_of_version_1(group: Path) -> float:
    """Read quota and period, in µs; a quota of -1 is none."""
    quota = _words(group / "cpu.cfs_quota_us")
    period = _words(group / "cpu.cfs_period_us")
    if not quota or not period or int(quota[0]) <= 0:
        return math.inf
    return int(quota[0]) / int(period[0])


def _allowed_cores(topology: Path) -> int:
    """Count the cores of which the process may use a hardware thread."""
    if not hasattr(os, "sched_getaffinity"):  # not Linux
        return os.cpu_count() or 1
    siblings = {
        _words(topology / f"cpu{thread}" / "topology" / "thread_siblings_list")[:1] or thread
        for thread in os.sched_getaffinity(0)
    }
    return len(siblings)


def _words(path: Path) -> tuple[str, ...]:
    try:
        return tuple(path.read_text().split())
    except OSError:
        return ()
