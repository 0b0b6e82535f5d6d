"""Engines with one model, and runtimes that are held or that fail."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.averaging import begin
from model.errors import InferenceFailed
from model.intensity import IntensityScale
from model.planner import TileShapes
from model.runtime import Runtime
from model.segmentation import Segmentation
from model.sessions import Provider
from service.engine import Engine
from service.models.loaded import Loaded
from service.turn import Segmented
from tests.conftest import square
from tests.service.recording import EDGE, MANIFEST, Batch, RecordingRuntime, work


def held(runtime: RecordingRuntime) -> tuple[threading.Event, threading.Event]:
    """Hold a runtime's runs: one event says that one has begun, the other lets it go on."""
    runs, may_go_on = threading.Event(), threading.Event()

    def hold(_: Batch) -> None:
        runs.set()
        assert may_go_on.wait(10)

    runtime.before_run = hold
    return runs, may_go_on


class ServesOne(Engine):
    """An engine with one model, which is warm."""

    def __init__(
        self, runtime: Runtime, shapes: TileShapes, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(clock=clock)
        self.model = Loaded([runtime], shapes)
        self.model.state = "ready"

    async def run(self, *passes: Segmentation) -> Segmented:
        return await self.segment(self.model, *passes)


@contextmanager
def started(engine: ServesOne) -> Iterator[ServesOne]:
    engine.start()
    try:
        yield engine
    finally:
        engine.stop()


def run_all(
    runtime: RecordingRuntime, *images: Segmentation | tuple[Segmentation, ...]
) -> list[Any]:
    """Let an engine run images that all wait from the start; give results and errors."""

    async def submit() -> list[Any]:
        engine = ServesOne(runtime, square(EDGE))
        passes = [each if isinstance(each, tuple) else (each,) for each in images]
        tasks = [asyncio.ensure_future(engine.run(*each)) for each in passes]
        await asyncio.sleep(0)  # all are in the row
        async with asyncio.timeout(20):
            with started(engine):
                return await asyncio.gather(*tasks, return_exceptions=True)

    return asyncio.run(submit())


def failing_on(image: int, provider: Provider = "cpu") -> RecordingRuntime:
    def fail(batch: Batch) -> None:
        if image in batch:
            raise InferenceFailed("The runtime failed.")

    runtime = RecordingRuntime(provider)
    runtime.before_run = fail
    return runtime


def short_of_memory(runtime: RecordingRuntime, pixels: int) -> RecordingRuntime:
    """Let a runtime take no more input pixels at once."""
    run = runtime.run

    def limited(tiles: NDArray[np.float32]) -> NDArray[np.float32]:
        if tiles.size > pixels:
            raise InferenceFailed("It failed.") from RuntimeError("BFCArena: out of memory")
        return run(tiles)

    runtime.run = limited  # type: ignore[method-assign]  # a seam
    return runtime


def two_devices(*runtimes: RecordingRuntime) -> tuple[Engine, Loaded]:
    engine = Engine(devices=2)
    model = Loaded(runtimes, square(EDGE), engine.retired)
    model.state = "ready"
    return engine, model


def averaged(image: int, tiles: int) -> tuple[Segmentation, ...]:
    """Give the passes over an image that is averaged over its rotations."""
    pixels = work(image, tiles).image
    passes = begin(pixels, MANIFEST, square(EDGE), averaging="rotations", output="foreground")
    return tuple(replace(each, scale=IntensityScale(-100, 100)) for each in passes)
