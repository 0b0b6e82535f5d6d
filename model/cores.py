"""How many cores this process really has.

A container may see every core of its host and be given the time of two, as a quota of CPU time in
each period. ONNX Runtime and OpenVINO count cores without looking there; threads beyond the quota
only make all of them stop together until the next period.
"""

import math
import os
from pathlib import Path

from model.cgroups import groups_of, words

TOPOLOGY = Path("/sys/devices/system/cpu")


def usable_cores() -> int:
    """Count the cores that this process may keep busy: the least of affinity and quotas.

    Two hardware threads of one core count once, as for ONNX Runtime. Parts of a core are rounded
    down, to at least 1: what is left over is for decoding and the event loop.
    """
    return max(1, math.floor(min(_allowed_cores(), cpu_quota())))


def cpu_quota() -> float:
    """Give the CPU time that control groups allow this process, in cores; infinity is no limit."""
    quotas = (quota(group) for group in groups_of("cpu") for quota in (_version_2, _version_1))
    return min(quotas, default=math.inf)


def _version_2(group: Path) -> float:
    """Read `cpu.max`: quota and period in µs, or `max` and period."""
    quota, period = (words(group / "cpu.max") or ("max", "1"))[:2]
    return math.inf if quota == "max" else int(quota) / int(period)


def _version_1(group: Path) -> float:
    """Read quota and period, in µs; a quota of -1 is none."""
    quota = words(group / "cpu.cfs_quota_us")
    period = words(group / "cpu.cfs_period_us")
    if not quota or not period or int(quota[0]) <= 0:
        return math.inf
    return int(quota[0]) / int(period[0])


def _allowed_cores() -> int:
    """Count the cores of which the process may use a hardware thread."""
    if not hasattr(os, "sched_getaffinity"):  # not Linux
        return os.cpu_count() or 1
    siblings = {
        words(TOPOLOGY / f"cpu{thread}" / "topology" / "thread_siblings_list")[:1] or thread
        for thread in os.sched_getaffinity(0)
    }
    return len(siblings)
