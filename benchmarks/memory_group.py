"""A control group of Linux that bounds the memory of a process, its share of the page cache too."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
NAME = "unet-training-bench"
SOUND_EVERY_S = 0.005


@dataclass(frozen=True, slots=True)
class Form:
    """Where a version of control groups keeps what is needed here."""

    root: str
    limit: str
    usage: str
    cache: str
    """Line of `memory.stat` that counts the page cache, in bytes."""


FORMS = (
    Form("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "cache"),
    Form("", "memory.max", "memory.current", "file"),
)


@dataclass(frozen=True, slots=True)
class MemoryGroup:
    """A control group, made anew."""

    folder: Path
    form: Form

    def enter(self) -> None:
        """Charge to the group what this process takes from now on."""
        (self.folder / "cgroup.procs").write_text(str(os.getpid()))

    def used(self) -> int:
        """Give the memory that is charged to the group, in bytes, the page cache included."""
        return int((self.folder / self.form.usage).read_text())

    def needed(self) -> int:
        """Give what of it cannot be dropped and read again, in bytes: all but the page cache."""
        lines = (line.split() for line in (self.folder / "memory.stat").read_text().splitlines())
        return self.used() - next(int(size) for name, size in lines if name == self.form.cache)

    def bound(self, size: int) -> None:
        """Let the group have no more memory than that, in bytes.

        Raises:
            OSError: if what it has cannot be dropped.
        """
        (self.folder / self.form.limit).write_text(str(size))


@contextmanager
def memory_group(root: Path = CGROUPS) -> Iterator[MemoryGroup]:
    """Make a control group and enter it; in the end, leave and remove it.

    Raises:
        OSError: if none can be made here.
    """
    group = _made(root)
    try:
        group.enter()
        yield group
    finally:
        (group.folder.parent / "cgroup.procs").write_text(str(os.getpid()))
        group.folder.rmdir()


def _made(root: Path) -> MemoryGroup:
    for form in FORMS:
        folder = root / form.root / NAME
        with suppress(OSError):
            folder.rmdir()  # of a process that was killed, with its limit
        with suppress(OSError):
            folder.mkdir()
            if (folder / form.limit).exists():
                return MemoryGroup(folder, form)
            folder.rmdir()
    raise OSError("no control group that bounds memory can be made here")


class Watch:
    """Bounds a loop's memory once its warm-up shows what it needs, and counts what it reads.

    What the loop needs is sounded all the time until then: a step needs more than its end shows.
    To be called after every step.
    """

    def __init__(self, group: MemoryGroup, warm_up: int, room: int) -> None:
        self.group = group
        self.warm_up = warm_up
        self.room = room
        """Memory for what is read from files, in bytes, beside what the loop needs."""
        self.needed = self.limit = self.peak = self.read = self._read_before = 0
        self._bounded = threading.Event()
        self._sounding = threading.Thread(target=self._sound, daemon=True)

    def __enter__(self) -> "Watch":
        """Begin to sound what is needed."""
        self._sounding.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End it, if the loop did not come so far."""
        self._bounded.set()
        self._sounding.join()

    def _sound(self) -> None:
        while not self._bounded.wait(SOUND_EVERY_S):
            self.needed = max(self.needed, self.group.needed())

    def __call__(self, step: int) -> None:
        """Set the limit after the last step of the warm-up; sound memory and disk from then on."""
        if step < self.warm_up - 1:
            return
        if step == self.warm_up - 1:
            self._bounded.set()
            self._sounding.join()
            self.limit = max(self.needed, self.group.needed()) + self.room
            self.group.bound(self.limit)
            self._read_before = bytes_read()
        self.peak = max(self.peak, self.group.used())
        self.read = bytes_read() - self._read_before

    def found(self) -> dict[str, int]:
        """Give the limit, the most memory that was used at a step's end, and what was read.

        Raises:
            NotMeasured: if no more was read from disk than there was room for in memory.
        """
        if self.read <= self.room:
            raise NotMeasured(
                f"{self.read} bytes were read from disk, and {self.room} fit in memory: "
                "the limit was not felt"
            )
        return {
            "limit_bytes": self.limit,
            "group_peak_bytes": self.peak,
            "room_bytes": self.room,
            "read_bytes": self.read,
        }


class NotMeasured(Exception):
    """What ran says nothing about what was asked."""


def bytes_read() -> int:
    """Give the bytes that this process has had read from disks."""
    lines = (line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return next(int(size) for name, size in lines if name == "read_bytes")


def leave_on_disk(path: Path) -> None:
    """Drop a file from the page cache, so that it comes from the disk when it is read."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
