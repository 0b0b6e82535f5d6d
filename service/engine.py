"""The engine: tiles of many requests and models, run in fair turns by one worker a device."""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, Literal, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from model.errors import DeadlinePassed, GeometryError, InferenceFailed, ServiceStopping
from model.geometry import flops
from model.planner import plan_tiles
from model.segmentation import Given, Segmentation
from model.tiling import Tile
from service.estimate import Demand, Forecast
from service.fair_queue import FairQueue, Job, Step
from service.models.loaded import MOST_FAILURES, Loaded, TileShape

OUT_OF_MEMORY = ("out of memory", "Failed to allocate memory", "bad allocation", "BFCArena")
"""What ONNX Runtime's errors hold where memory ran out."""

Outcome = Literal["done", "failed", "out-of-memory"]

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


@dataclass(frozen=True, slots=True)
class TurnReport:
    """What came of one run of tiles on a device, for whoever counts."""

    model: str
    outcome: Outcome
    tiles: int
    input_pixels: int
    """What the tiles read, halos included."""
    output_pixels: int
    """What they wrote, or would have."""


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits at one moment."""

    images: int
    work: int
    """Floating-point operations of the tiles that had no turn yet."""
    oldest_age_s: float
    """How long the image waits that came first; 0 where none does."""


@dataclass(slots=True, eq=False)
class _Waiter:
    """Who waits for an image, and what for."""

    passes: Sequence[Segmentation]
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Segmented]
    tiles_left: int
    submitted: float = field(default_factory=time.perf_counter)
    inference_s: float = 0.0

    def finish(self) -> None:
        elapsed = time.perf_counter() - self.submitted
        self._settle(Segmented(self.passes[0], elapsed - self.inference_s, self.inference_s))

    def fail(self, error: Exception) -> None:
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


@dataclass(frozen=True, slots=True)
class _Pass:
    """A tile, and the pass that reads and writes it."""

    work: Segmentation
    tile: Tile


_Job: TypeAlias = Job[_Waiter, _Pass]
_Turn: TypeAlias = Sequence[tuple[_Job, Step[_Pass]]]


class Engine:
    """Runs the tiles of all models.

    Every turn takes tiles of the image that is owed most, and of others whose tiles have the same
    shape where the device gains from a batch. So a large image delays a small one by one turn, not
    by its size. What nobody waits for any more is dropped before it costs a turn.
    """

    def __init__(self, devices: int = 1) -> None:
        self.observe: Callable[[TurnReport], None] = lambda _: None
        """Told of every turn by the thread that ran it, before anybody has the result."""
        self._queue: FairQueue[_Waiter, _Pass] = FairQueue()
        self._changed = threading.Condition()
        self._stopping = False
        self._failures = [0] * devices
        """Images in a row that each device failed on."""
        self._retired: set[int] = set()
        self._workers = [
            threading.Thread(
                target=self._serve, args=(device,), name=f"device {device}", daemon=True
            )
            for device in range(devices)
        ]

    def start(self) -> None:
        """Start a worker for each device."""
        for worker in self._workers:
            worker.start()

    def stop(self) -> None:
        """End the workers after their turns; whoever still waits is told so."""
        with self._changed:
            self._stopping = True
            for job in self._queue.clear():
                _fail(job, ServiceStopping("The service is stopping."))
            self._changed.notify_all()
        for worker in self._workers:
            if worker.is_alive():
                worker.join()

    def wake(self) -> None:
        """Look again at what had to wait: a model has become ready."""
        with self._changed:
            self._changed.notify_all()

    @property
    def devices(self) -> int:
        """How many devices take turns."""
        return len(self._workers) - len(self._retired)

    def backlog(self) -> Backlog:
        """Say what waits."""
        with self._changed:
            return Backlog(len(self._queue), self._queue.work, self._queue.oldest_age)

    def forecast(self) -> Forecast:
        """Say what every image that waits still asks for."""
        with self._changed:
            waiting = tuple(_demand(job) for job in self._queue if not job.abandoned)
        return Forecast(waiting, self.devices)

    async def segment(
        self, model: Loaded, *passes: Segmentation, deadline: float | None = None
    ) -> Segmented:
        """Run an image's tiles in turn with all others.

        Args:
            model: What runs them.
            passes: The passes over one image; all together are one image among the others.
            deadline: When nobody waits for it any more, on `time.monotonic`, in s.

        Raises:
            InferenceFailed: if the runtime fails on one of its tiles.
            DeadlinePassed: if its deadline comes before its turn.
            ServiceStopping: if the engine stops before it is done.
        """
        loop = asyncio.get_running_loop()
        waiter = _Waiter(
            passes, loop, loop.create_future(), sum(len(work.plan.tiles) for work in passes)
        )
        steps = (_step(model, work, tile) for work in passes for tile in work.plan.tiles)
        job = Job(waiter, steps, deadline)
        with self._changed:
            if self._stopping:
                raise ServiceStopping("The service is stopping.")
            self._queue.add(job)
            self._changed.notify_all()
        try:
            return await waiter.future
        finally:
            job.abandoned = True

    def _serve(self, device: int) -> None:
        while turn := self._next_turn(device):
            self._run(device, turn)
            del turn  # an image is not held until the next one comes

    def _next_turn(self, device: int) -> _Turn:
        """Wait for work and take one batch of it; nothing is the end."""
        with self._changed:
            while not self._stopping and device not in self._retired:
                for job in self._queue.drop():
                    _fail(job, DeadlinePassed("The request's deadline passed before its turn."))
                if turn := self._queue.take(_most_tiles, _is_warming_up):
                    return turn
                self._changed.wait(self._queue.next_deadline)
            return []

    def _run(self, device: int, turn: _Turn) -> None:
        """Run tiles of one kind; what fails is halved until it is known whose fault it is."""
        model, _, given = _kind(turn[0][1].kind)
        runtime = model.runtimes[device]
        run = runtime.labels if given == "labels" else runtime.run
        began = time.perf_counter()
        try:
            tiles = np.stack([step.item.work.read(step.item.tile) for _, step in turn])
            outputs = list(zip(turn, run(tiles), strict=True))
        except Exception as exc:  # whatever it is, the worker lives on for the other images
            log.warning("a turn of %d tile(s) failed", len(turn), exc_info=True)
            self._recover(device, turn, exc)
            return
        for (job, step), output in outputs:
            _write(job, step.item, output)
        seconds = time.perf_counter() - began
        self._failures[device] = 0
        model.note_turn(sum(step.work for _, step in turn), seconds)
        self.observe(_report(turn, "done"))
        for job, _ in turn:
            job.owner.inference_s += seconds / len(turn)
            job.owner.tiles_left -= 1
            if job.owner.tiles_left == 0 and not job.abandoned:
                job.owner.finish()

    def _recover(self, device: int, turn: _Turn, cause: Exception) -> None:
        model, shape, _ = _kind(turn[0][1].kind)
        out_of_memory = _is_out_of_memory(cause)
        self.observe(_report(turn, "out-of-memory" if out_of_memory else "failed"))
        if out_of_memory:
            model.note_out_of_memory(shape, len(turn))
        if len(turn) > 1:
            half = len(turn) // 2
            self._run(device, turn[:half])
            self._run(device, turn[half:])
            return
        (job, step), *_ = turn
        smaller = _divide(model, step) if out_of_memory else []
        if smaller:
            job.owner.tiles_left += len(smaller) - 1
            for part in smaller:
                self._run(device, [(job, part)])
            return
        if not self._retire(device):
            model.note_failure()
        _fail(job, _failure(cause))

    def _retire(self, device: int) -> bool:
        """Count a failure against a device, if there are others; give whether that was done.

        After several in a row it takes no more turns: what fails is fast, and would take them all.
        """
        with self._changed:
            if self.devices == 1:
                return False
            self._failures[device] += 1
            if self._failures[device] == MOST_FAILURES:
                log.error(
                    "device %d failed on %d images in a row: it takes no more turns",
                    device,
                    MOST_FAILURES,
                )
                self._retired.add(device)
            return True


def _step(model: Loaded, work: Segmentation, tile: Tile) -> Step[_Pass]:
    shape = tile.input_region.shape
    cost = flops(model.manifest.architecture, shape)
    return Step(_Pass(work, tile), (model, shape, work.given), cost)


def _demand(job: _Job) -> Demand:
    model, _, _ = _kind(next(iter(job.kinds)))
    pixels = sum(prod(work.plan.region.shape) for work in job.owner.passes)
    return Demand(pixels, job.work, model.work_a_second)


def _report(turn: _Turn, outcome: Outcome) -> TurnReport:
    model, shape, _ = _kind(turn[0][1].kind)
    written = sum(prod(step.item.tile.output_region.shape) for _, step in turn)
    return TurnReport(model.manifest.name, outcome, len(turn), len(turn) * prod(shape), written)


def _divide(model: Loaded, step: Step[_Pass]) -> list[Step[_Pass]]:
    """Cover what a tile writes by the smaller tiles that the model takes by now, if there are."""
    taken, region = step.item, step.item.tile.output_region
    try:
        plan = plan_tiles(
            taken.work.plan.image_shape, model.manifest.architecture, model.shapes, region
        )
    except GeometryError:
        return []
    if plan.tile_shape == taken.tile.input_region.shape:
        return []
    return [_step(model, taken.work, tile) for tile in plan.tiles]


def _kind(kind: Hashable) -> tuple[Loaded, TileShape, Given]:
    """Read what `_step` wrote."""
    return cast("tuple[Loaded, TileShape, Given]", kind)


def _most_tiles(kind: Hashable, waiting: int) -> int:
    model, shape, _ = _kind(kind)
    return model.most_tiles(shape, waiting)


def _is_warming_up(kind: Hashable) -> bool:
    model, _, _ = _kind(kind)
    return model.state == "warming-up"


def _write(job: _Job, taken: _Pass, output: NDArray[Any]) -> None:
    """Write a tile once: what is averaged would be counted twice."""
    work = taken.work
    try:
        (work.write_labels if work.given == "labels" else work.write)(taken.tile, output)
    except Exception as exc:  # whatever it is, the worker lives on for the other images
        log.exception("a tile could not be written")
        _fail(job, _failure(exc))


def _fail(job: _Job, error: Exception) -> None:
    """Tell who waits; what is left of the image is dropped."""
    job.abandoned = True
    job.owner.fail(error)


def _is_out_of_memory(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, MemoryError) or any(word in str(error) for word in OUT_OF_MEMORY):
            return True
        error = error.__cause__
    return False


def _failure(cause: Exception) -> InferenceFailed:
    error = InferenceFailed("The model failed on this image.")
    error.__cause__ = cause
    return error
