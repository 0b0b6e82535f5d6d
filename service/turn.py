"""A turn on a device: tiles of one kind, of one or several images, and what became of them."""

import asyncio
import logging
import threading
import time
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import prod
from typing import Any, Literal, TypeAlias, cast

from numpy.typing import NDArray

from model.errors import GeometryError, InferenceFailed
from model.geometry import flops
from model.planner import plan_tiles
from model.segmentation import Given, Segmentation
from model.tiling import Plan, Tile
from service.estimate import Demand
from service.fair_queue import Job, Step
from service.images import counted
from service.models.loaded import Loaded, TileShape, name_together

OUT_OF_MEMORY = (
    *("out of memory", "OUT_OF_MEMORY", "bad allocation", "bad_alloc"),
    *("Failed to allocate memory", "smaller than requested bytes", "BFCArena"),
    *("CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED"),
    "CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED",
    "CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
)
"""What ONNX Runtime's errors hold where memory ran out; the last two since cuDNN 9."""

Outcome = Literal["done", "failed", "out-of-memory"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Segmented:
    """A finished image and where its time went."""

    work: Segmentation
    """The first pass; its canvas is full."""
    queue_s: float
    """Time in which none of its tiles had a turn."""
    inference_s: float
    """Time in which some were read, run and written, on one device or several, in vain or not."""
    device: str
    """What ran its tiles: `cpu`, or as in `cuda:0,2`."""


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


@dataclass(slots=True, eq=False)
class Waiter:
    """Who waits for an image, and what for. Several devices may run its tiles at a time."""

    passes: Sequence[Segmentation]
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Segmented]
    tiles_left: int
    submitted: float = field(default_factory=time.perf_counter)
    inference_s: float = 0.0
    _turns: int = 0
    """That hold some of its tiles at the moment."""
    _began: float = 0.0
    """When the first of these began."""
    _devices: set[str] = field(default_factory=set)
    """Those that ran its tiles so far."""
    lock: threading.Lock = field(default_factory=threading.Lock)
    """Held where a tile is written, since passes may share a canvas, or counted."""

    def begin(self, now: float) -> None:
        """Be part of a turn from now on; turns that overlap count once."""
        with self.lock:
            if not self._turns:
                self._began = now
            self._turns += 1

    def end(self, now: float) -> None:
        """Be part of it no more."""
        with self.lock:
            self._turns -= 1
            if not self._turns:
                self.inference_s += now - self._began

    def count(self, device: str) -> bool:
        """Count a tile that a device ran and that was written; say whether it was the last."""
        with self.lock:
            self._devices.add(device)
            self.tiles_left -= 1
            return self.tiles_left == 0

    def divide(self, parts: int) -> None:
        """Expect so many tiles in place of one."""
        with self.lock:
            self.tiles_left += parts - 1

    def finish(self) -> None:
        """Tell that all tiles are written."""
        queue_s = time.perf_counter() - self.submitted - self.inference_s
        device = name_together(sorted(self._devices, key=lambda name: (len(name), name)))
        self._settle(Segmented(self.passes[0], queue_s, self.inference_s, device))

    def fail(self, error: Exception) -> None:
        """Tell that there will be no answer, and why."""
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
class Pass:
    """A tile, and the pass that reads and writes it."""

    work: Segmentation
    tile: Tile


ImageJob: TypeAlias = Job[Waiter, Pass]
Turn: TypeAlias = Sequence[tuple[ImageJob, Step[Pass]]]


def steps_of(model: Loaded, work: Segmentation, plan: Plan) -> Iterator[Step[Pass]]:
    """Make the steps of a plan's tiles, which have one shape: so one kind, and one cost.

    Args:
        model: What runs them.
        work: The pass that reads and writes them.
        plan: That of the pass, or of a region of it.
    """
    kind = model, plan.tile_shape, work.given
    cost = flops(model.manifest.architecture, plan.tile_shape)
    return (Step(Pass(work, tile), kind, cost) for tile in plan.tiles)


def demand_of(job: ImageJob) -> Demand:
    """Say what an image still asks for."""
    model, _, _ = kind_of(next(iter(job.kinds)))
    pixels = sum(
        counted(prod(work.plan.region.shape), len(work.image)) for work in job.owner.passes
    )
    return Demand(pixels, job.work, model.work_a_second, model=model.manifest.name)


@contextmanager
def at_work(turn: Turn) -> Iterator[float]:
    """Count the time of a turn for all whose tiles it holds; give when it began."""
    owners = [job.owner for job, _ in turn]
    began = time.perf_counter()
    for owner in owners:
        owner.begin(began)
    try:
        yield began
    finally:
        ended = time.perf_counter()
        for owner in owners:
            owner.end(ended)


def report_of(turn: Turn, outcome: Outcome) -> TurnReport:
    """Say what came of a turn."""
    model, shape, _ = kind_of(turn[0][1].kind)
    written = sum(prod(step.item.tile.output_region.shape) for _, step in turn)
    return TurnReport(model.manifest.name, outcome, len(turn), len(turn) * prod(shape), written)


def smaller_steps(model: Loaded, step: Step[Pass]) -> list[Step[Pass]]:
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
    return list(steps_of(model, taken.work, plan))


def kind_of(kind: Hashable) -> tuple[Loaded, TileShape, Given]:
    """Read what `steps_of` wrote: model, input shape, and whether labels or logits are wanted."""
    return cast("tuple[Loaded, TileShape, Given]", kind)


def write(job: ImageJob, taken: Pass, output: NDArray[Any]) -> None:
    """Write a tile; where that fails, so does its image.

    A second try would count twice what is averaged.
    """
    work = taken.work
    try:
        with job.owner.lock:
            (work.write_labels if work.given == "labels" else work.write)(taken.tile, output)
    except Exception as exc:  # whatever it is, the worker lives on for the other images
        log.exception("a tile could not be written")
        fail_image(job, failure(exc))


def fail_image(job: ImageJob, error: Exception) -> None:
    """Tell who waits; what is left of the image is abandoned."""
    if abandon(job):
        job.owner.fail(error)


def abandon(job: ImageJob) -> bool:
    """Abandon what is left of an image; say whether it was wanted until now."""
    with job.owner.lock:
        wanted, job.abandoned = not job.abandoned, True
    return wanted


def is_out_of_memory(error: BaseException | None) -> bool:
    """Say whether a failure, or what caused it, was for want of memory."""
    while error is not None:
        if isinstance(error, MemoryError) or any(word in str(error) for word in OUT_OF_MEMORY):
            return True
        error = error.__cause__
    return False


def failure(cause: Exception) -> InferenceFailed:
    """Say that an image failed; the log has the cause."""
    error = InferenceFailed("The model failed on this image.")
    error.__cause__ = cause
    return error
