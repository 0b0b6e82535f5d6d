"""When to try again what went wrong: soon at first, later and later while it goes on."""

import time
from collections.abc import Callable, Set
from dataclasses import dataclass
from pathlib import Path

FIRST_S, MOST_S = 60.0, 960.0
"""The wait before the first try, and the longest; each is twice the one before."""


@dataclass(frozen=True, slots=True)
class _Wait:
    seconds: float
    ends: float


class Retries:
    """Waits by the files that are waited for."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._waits: dict[Path, _Wait] = {}

    def due(self, troubled: Set[Path]) -> set[Path]:
        """Give those files whose wait is over; the next one begins now.

        What was sound until its wait was over is forgotten, so that its waits begin anew.

        Args:
            troubled: The files that went wrong and could go well as they are.
        """
        now = self._clock()
        due = set()
        for path in troubled:
            wait = self._waits.get(path)
            if wait is None:
                self._waits[path] = _Wait(FIRST_S, now + FIRST_S)
            elif wait.ends <= now:
                seconds = min(2 * wait.seconds, MOST_S)
                self._waits[path] = _Wait(seconds, now + seconds)
                due.add(path)
        self._waits = {path: wait for path, wait in self._waits.items() if now < wait.ends}
        return due
