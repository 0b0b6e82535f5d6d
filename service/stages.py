"""Where the time of a request goes."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, get_args

Stage = Literal["upload", "decode", "queue", "inference", "decide", "encode"]
"""In their order; `queue` is all that is waited for others, for devices, decoders and threads."""


class Stages:
    """How long each stage of a request took so far, from its beginning on."""

    def __init__(self) -> None:
        self.model = ""
        """The model that is to answer, once it is known."""
        self.seconds: dict[Stage, float] = {}
        self.came = time.monotonic()
        """When the request came, on the clock of deadlines, in s."""
        self._began = time.perf_counter()

    @property
    def total_s(self) -> float:
        """The time since the request came."""
        return time.perf_counter() - self._began

    @property
    def server_timing(self) -> str:
        """The value of the header `Server-Timing`, in ms."""
        known = [(name, self.seconds[name]) for name in get_args(Stage) if name in self.seconds]
        parts = [*known, ("total", self.total_s)]
        return ", ".join(f"{name};dur={1e3 * seconds:.1f}" for name, seconds in parts)

    def add(self, stage: Stage, seconds: float) -> None:
        """Add to the time of a stage."""
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds

    def queued(self, seconds: float) -> None:
        """Add what was waited for others, which is no part of what is measured meanwhile."""
        self.add("queue", seconds)

    @contextmanager
    def measure(self, stage: Stage) -> Iterator[None]:
        """Add the time of a block to a stage, but for what is queued in it; also where it fails."""
        began, queued = time.perf_counter(), self.seconds.get("queue", 0.0)
        try:
            yield
        finally:
            queued = self.seconds.get("queue", 0.0) - queued
            self.add(stage, time.perf_counter() - began - queued)
