"""The control groups that limit this process.

A container may see every core and all memory of its host and be given a small part of both. What
limits it stands in its control group and in those above it.
"""

from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")


def groups_of(controller: str) -> Iterator[Path]:
    """Give the folder of each group that may limit this process by a controller, as in `cpu`.

    Version 2 and version 1 name their files differently, so that each can be looked for in all
    folders. `/proc/self/cgroup` has a line `0::PATH` in version 2, one `ID:CONTROLLERS:PATH` for
    each hierarchy of version 1, or both.
    """
    try:
        membership = MEMBERSHIP.read_text()
    except OSError:  # not Linux
        return
    for line in membership.splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            yield from _and_above(ROOT, path)
            yield from _and_above(ROOT / "unified", path)
        elif controller in controllers.split(","):
            yield from _and_above(ROOT / controllers, path)
            yield from _and_above(ROOT / controller, path)


def words(path: Path) -> tuple[str, ...]:
    """Read the words of a file; one that cannot be read has none."""
    try:
        return tuple(path.read_text().split())
    except OSError:
        return ()


def _and_above(root: Path, path: str) -> Iterator[Path]:
    """Give a group and all above it; in a container, the root may be the group itself."""
    group = root / path.strip("/")
    yield group
    while group != root:
        group = group.parent
        yield group
