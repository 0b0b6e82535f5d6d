"""The engine: tiles of many requests and models, run in fair turns by one worker a device."""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import partial
from math import ceil

import numpy as np

from model.errors import DeadlinePassed, ServiceStopping
from model.segmentation import Segmentation
from service.estimate import Forecast
from service.fair_queue import FairQueue, Job, Step
from service.models.loaded import MOST_FAILURES, Loaded
from service.turn import (
    Pass,
    Segmented,
    Turn,
    TurnReport,
    Waiter,
    at_work,
    demand_of,
    divide,
    drop,
    fail,
    failure,
    is_out_of_memory,
    kind_of,
    make_step,
    report_of,
    write,
)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits at one moment."""

    images: int
    work: int
    """Floating-point operations of the tiles that had no turn yet."""
    oldest_age_s: float
    """How long the image waits that came first; 0 where none does."""


class Engine:
    """Runs the tiles of all models.

    Every turn takes the tile that would be finished first if all images shared the device, and
    others of the same shape where the device gains from a batch. So a large image delays a small
    one by the turn that runs and a fair share, not by its size. What nobody waits for any more is
    dropped before it costs a turn.
    """

    def __init__(self, devices: int = 1) -> None:
        self.observe: Callable[[TurnReport], None] = lambda _: None
        """Told of every turn by the thread that ran it, before anybody has the result."""
        self._queue: FairQueue[Waiter, Pass] = FairQueue()
        self._changed = threading.Condition()
        self._stopping = False
        self._failures = [0] * devices
        """Turns in a row that failed on each device and not on another."""
        self.retired: set[int] = set()
        """Numbers of the devices that take no more turns."""
        self._running = [threading.Lock() for _ in range(devices)]
        """Held while a device runs tiles: a session takes one thread at a time."""
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
                fail(job, ServiceStopping("The service is stopping."))
            self._changed.notify_all()
        for worker in self._workers:
            if worker.is_alive():
                worker.join()

    def wake(self) -> None:
        """Look again at what waits: a model has become ready, or somebody has gone."""
        with self._changed:
            self._changed.notify_all()

    @property
    def devices(self) -> int:
        """How many devices take turns."""
        return len(self._workers) - len(self.retired)

    def backlog(self) -> Backlog:
        """Say what waits."""
        with self._changed:
            return Backlog(len(self._queue), self._queue.work, self._queue.oldest_age)

    def forecast(self) -> Forecast:
        """Say what every image that waits still asks for."""
        with self._changed:
            waiting = tuple(demand_of(job) for job in self._queue if not job.abandoned)
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
        waiter = Waiter(
            passes, loop, loop.create_future(), sum(len(work.plan.tiles) for work in passes)
        )
        steps = (make_step(model, work, tile) for work in passes for tile in work.plan.tiles)
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
            if not job.is_taken:
                self.wake()

    def _serve(self, device: int) -> None:
        while turn := self._next_turn(device):
            try:
                self._judge(device, at_fault=self._run(device, turn))
            except Exception as exc:  # whatever it is, the worker lives on for the other images
                log.exception("a turn could not be ended")
                for job, _ in turn:
                    fail(job, failure(exc))
            del turn  # an image is not held until the next one comes

    def _next_turn(self, device: int) -> Turn:
        """Wait for work and take one batch of it; nothing is the end."""
        with self._changed:
            while not self._stopping and device not in self.retired:
                for job in self._queue.drop():
                    fail(job, DeadlinePassed("The request's deadline passed before its turn."))
                if turn := self._queue.take(self._most_tiles, partial(_must_wait, device)):
                    return turn
                self._changed.wait(self._queue.next_deadline)
            return []

    def _most_tiles(self, kind: Hashable, waiting: int) -> int:
        """Leave the other devices their share of what waits."""
        model, shape, _ = kind_of(kind)
        return model.most_tiles(shape, ceil(waiting / self.devices))

    def _run(self, device: int, turn: Turn) -> bool:
        """Run tiles of one kind; what fails is halved until it is known whose fault it is.

        Returns:
            Whether it is that of the device: it failed where another did not.
        """
        turn = [(job, step) for job, step in turn if not job.abandoned]
        if not turn:
            return False
        failed = self._try(device, turn)
        return failed is not None and self._recover(device, turn, failed)

    def _try(self, device: int, turn: Turn) -> Exception | None:
        """Run tiles of one kind on a device; give what it raises, whatever that is."""
        model, _, given = kind_of(turn[0][1].kind)
        try:
            runtime = model.runtime_on(device)
            run = runtime.labels if given == "labels" else runtime.run
            with self._running[device], at_work(turn) as began:
                tiles = np.stack([step.item.work.read(step.item.tile) for _, step in turn])
                outputs = list(zip(turn, run(tiles), strict=True))
                for (job, step), output in outputs:
                    write(job, step.item, output)
                seconds = time.perf_counter() - began
        except Exception as exc:  # whatever it is, the worker lives on for the other images
            log.warning(
                "a turn of %d tile(s) failed on device %d", len(turn), device, exc_info=True
            )
            self.observe(report_of(turn, "out-of-memory" if is_out_of_memory(exc) else "failed"))
            return exc
        model.note_turn(sum(step.work for _, step in turn), seconds)
        self.observe(report_of(turn, "done"))
        for job, _ in turn:
            if job.owner.count() and not job.abandoned:
                job.owner.finish()
        return None

    def _recover(self, device: int, turn: Turn, cause: Exception) -> bool:
        """Run what failed in other ways; say whether it was the fault of the device."""
        model, shape, _ = kind_of(turn[0][1].kind)
        if len(turn) > 1:
            half = len(turn) // 2
            faults = [self._run(device, part) for part in (turn[:half], turn[half:])]
            if is_out_of_memory(cause) and not any(faults):
                model.note_out_of_memory(shape, len(turn))
            return any(faults)
        (job, step), *_ = turn
        if job.abandoned:
            return False
        causes = [cause]
        for other in range(len(self._workers)):
            if other == device or other in self.retired or not model.runs_on(other):
                continue
            failed = self._try(other, turn)
            if failed is None:
                return True
            causes.append(failed)
        smaller: list[Step[Pass]] = []
        if any(map(is_out_of_memory, causes)):
            model.note_out_of_memory(shape, 1)
            smaller = divide(model, step)
        if not smaller:
            if drop(job):  # and no other device was sooner
                model.note_failure()
                job.owner.fail(failure(cause))
            return False
        job.owner.divide(len(smaller))
        faults = [self._run(device, [(job, part)]) for part in smaller]
        return any(faults)

    def _judge(self, device: int, *, at_fault: bool) -> None:
        """Count turns in a row that failed by the fault of a device; after several it is retired.

        What fails is fast, and would take all turns. The last device goes on.
        """
        with self._changed:
            self._failures[device] = self._failures[device] + 1 if at_fault else 0
            if self._failures[device] >= MOST_FAILURES and self.devices > 1:
                log.error("device %d failed where another did not: it takes no more turns", device)
                self.retired.add(device)


def _must_wait(device: int, kind: Hashable) -> bool:
    """Whether a device leaves tiles of a kind until later, or to others."""
    model, _, _ = kind_of(kind)
    return model.state == "warming-up" or not model.runs_on(device)
