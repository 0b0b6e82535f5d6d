"""The engine: tiles of many requests, run in fair turns by one thread that owns the session."""

import asyncio
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product

import numpy as np
from numpy.typing import NDArray

from model.errors import InferenceFailed, ServiceStopping
from model.planner import TileShapes
from model.runtime import Runtime
from model.segmentation import Segmentation
from model.tiling import Tile
from service.schemas import EngineState

TILES_A_RUN = {"cpu": 1, "cuda": 4}
"""A CPU gains nothing from a batch; a GPU does."""

Step = tuple[Segmentation, Tile]
"""A tile, and the pass that reads and writes it."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Segmented:
    """A finished image and where its time went."""

    work: Segmentation
    """The first pass; its canvas is full."""
    queue_s: float
    """Time in which other requests had their turn."""
    inference_s: float
    """Time in which this image's tiles were read, run and written."""


@dataclass(slots=True, eq=False)
class _Job:
    passes: Sequence[Segmentation]
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Segmented]
    steps: deque[Step] = field(init=False)
    submitted: float = field(default_factory=time.perf_counter)
    inference_s: float = 0.0
    abandoned: bool = False

    def __post_init__(self) -> None:
        self.steps = deque((work, tile) for work in self.passes for tile in work.plan.tiles)

    @property
    def next_shape(self) -> tuple[int, int]:
        """Input height and width of the next tile, in px."""
        return self.steps[0][0].plan.tile_shape

    def finish(self) -> None:
        elapsed = time.perf_counter() - self.submitted
        self._settle(Segmented(self.passes[0], elapsed - self.inference_s, self.inference_s))

    def fail(self, error: Exception) -> None:
        self.abandoned = True
        self._settle(error)

    def _settle(self, outcome: Segmented | Exception) -> None:
        def settle() -> None:
            if self.future.done():
                return
            if isinstance(outcome, Exception):
                self.future.set_exception(outcome)
            else:
                self.future.set_result(outcome)

        try:
            self.loop.call_soon_threadsafe(settle)
        except RuntimeError:  # the loop is closed: nobody waits any more
            log.debug("an answer came after its event loop had ended")


class Engine:
    """Runs the tiles of one model.

    Every turn takes tiles of the image that has waited longest for one, and of others whose tiles
    have the same shape where the device gains from a batch. So a large image delays a small one by
    one turn, not by its size. What nobody waits for any more is dropped before it costs a turn.
    """

    def __init__(self, runtime: Runtime, shapes: TileShapes) -> None:
        self.runtime = runtime
        self.shapes = shapes
        self.state: EngineState = "warming-up"
        self._tiles_a_run = TILES_A_RUN[runtime.provider]
        self._jobs: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._stopping = False
        name = f"engine {runtime.manifest.name}"
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)

    @property
    def warm_shapes(self) -> tuple[tuple[int, int], ...]:
        """What is warmed up, height and width in px: all shapes, or the largest of very many."""
        edge = self.runtime.manifest.geometry.edge_at_most(math.isqrt(self.shapes.largest_area))
        return self.shapes.all or ((edge, edge),)

    def start(self) -> None:
        """Start the thread; it warms up before the first turn."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread after its turn; whoever still waits is told so."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join()

    async def segment(self, *passes: Segmentation) -> Segmented:
        """Run an image's tiles in turn with all others.

        Args:
            passes: The passes over one image; all together are one image among the others.

        Raises:
            InferenceFailed: if the runtime fails on one of its tiles.
            ServiceStopping: if the engine stops before it is done.
        """
        loop = asyncio.get_running_loop()
        job = _Job(passes, loop, loop.create_future())
        with self._changed:
            if self._stopping:
                raise ServiceStopping("The service is stopping.")
            self._jobs.append(job)
            self._changed.notify()
        try:
            return await job.future
        finally:
            job.abandoned = True

    def _work(self) -> None:
        self._warm_up()
        while turn := self._next_turn():
            self._run(turn)
            del turn  # an image is not held until the next one comes

    def _warm_up(self) -> None:
        try:
            for shape, batch in product(self.warm_shapes, range(1, self._tiles_a_run + 1)):
                if self._stopping:
                    return
                self.runtime.warm_up(shape, batch)
        except Exception:  # whatever it is: without this thread all requests would wait for ever
            log.exception("%s did not warm up", self._thread.name)
            self.state = "failed"
        else:
            self.state = "ready"

    def _next_turn(self) -> list[tuple[_Job, Step]]:
        """Wait for work and take one batch of it; an empty list is the end."""
        with self._changed:
            while True:
                self._drop_abandoned()
                if self._stopping:
                    for job in self._jobs:
                        job.fail(ServiceStopping("The service is stopping."))
                    return []
                if self._jobs:
                    return self._take()
                self._changed.wait()

    def _drop_abandoned(self) -> None:
        self._jobs = deque(job for job in self._jobs if not job.abandoned)

    def _take(self) -> list[tuple[_Job, Step]]:
        """Take tiles of one shape; whoever gave some goes to the end of the row."""
        shape = self._jobs[0].next_shape
        turn: list[tuple[_Job, Step]] = []
        for job in [job for job in self._jobs if job.next_shape == shape]:
            self._jobs.remove(job)
            while job.steps and job.next_shape == shape and len(turn) < self._tiles_a_run:
                turn.append((job, job.steps.popleft()))
            if job.steps:
                self._jobs.append(job)
            if len(turn) == self._tiles_a_run:
                break
        return turn

    def _run(self, turn: Sequence[tuple[_Job, Step]]) -> None:
        began = time.perf_counter()
        jobs = dict.fromkeys(job for job, _ in turn)
        try:
            tiles = np.stack([work.read(tile) for _, (work, tile) in turn])
            outputs = list(zip(turn, self.runtime.run(tiles), strict=True))
        except Exception as exc:  # whatever it is, the thread lives on for the other images
            log.exception("a turn of %d tile(s) of %d image(s) failed", len(turn), len(jobs))
            if len(jobs) == 1:
                turn[0][0].fail(_failure(exc))
                return
            for job in jobs:  # one image's failure is not the others'
                self._run([entry for entry in turn if entry[0] is job])
            return
        for (job, step), logits in outputs:
            self._write(job, step, logits)
        share = (time.perf_counter() - began) / len(turn)
        for job, _ in turn:
            job.inference_s += share
        for job in jobs:
            if not job.steps:
                job.finish()

    def _write(self, job: _Job, step: Step, logits: NDArray[np.float32]) -> None:
        """Write a tile once: what is averaged would be counted twice."""
        work, tile = step
        try:
            work.write(tile, logits)
        except Exception as exc:  # whatever it is, the thread lives on for the other images
            log.exception("a tile could not be written")
            job.fail(_failure(exc))


def _failure(cause: Exception) -> InferenceFailed:
    error = InferenceFailed("The model failed on this image.")
    error.__cause__ = cause
    return error
