"""The engine: tiles of many requests and models, run in fair turns by one worker a device."""

import asyncio
import logging
import math
import threading
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from enum import IntEnum
from functools import partial
from itertools import chain

import anyio.to_thread
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
    abandon,
    at_work,
    demand_of,
    fail_image,
    failure,
    is_out_of_memory,
    kind_of,
    report_of,
    smaller_steps,
    steps_of,
    write,
)
from service.worker import end

HANGING_S, HANGING_TIMES = 60.0, 20
"""A device hangs once its turn has taken a minute, and so many times what its work takes at the
speed of the model: what fails is tried in halves and elsewhere, and a CPU may be shared."""
MOST_TILES_AT_ONCE = 10_000
"""Tiles whose steps are made on the event loop: some 50 ms. Those of more are made in a thread."""

log = logging.getLogger(__name__)


class Lack(IntEnum):
    """What a device lacked, where another did what it could not; the gravest last."""

    NOTHING = 0
    MEMORY = 1
    SOUNDNESS = 2


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits at one moment."""

    images: int
    work: int
    """Floating-point operations of the tiles that had no turn yet."""
    oldest_age_s: float
    """How long ago the image came that came first, of those that wait and of those whose turn it
    is; 0 where there is none."""


class Engine:
    """Runs the tiles of all models.

    Every turn takes the tile that would be finished first if all images shared the device, and
    others of the same shape where the device gains from a batch. So a large image delays a small
    one by the turn that runs and a fair share, not by its size. What nobody waits for any more is
    dropped before it costs a turn.
    """

    def __init__(self, devices: int = 1, clock: Callable[[], float] = time.monotonic) -> None:
        """Have a worker for each device, none of which is started.

        Args:
            devices: How many there are.
            clock: Times what waits and what runs, in s.
        """
        self.observe: Callable[[TurnReport], None] = lambda _: None
        """Told of every turn by the thread that ran it, before anybody has the result."""
        self._clock = clock
        self._queue: FairQueue[Waiter, Pass] = FairQueue(clock)
        self._taken: dict[int, tuple[Turn, float]] = {}
        """The turn of each device that has one, and when it was taken."""
        self._changed = threading.Condition()
        self._stopping = False
        self._failures = [0] * devices
        """Turns in a row that failed on each device and not on another."""
        self.retired: set[int] = set()
        """Numbers of the devices that take no more turns."""
        self.running = [threading.Lock() for _ in range(devices)]
        """Held while a device runs tiles: a session takes one thread at a time, and what is timed
        on a device is to have it alone."""
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
        """End the workers after their turns; whoever still waits is told so, whoever hangs left."""
        with self._changed:
            self._stopping = True
            for job in self._queue.clear():
                fail_image(job, ServiceStopping("The service is stopping."))
            self._changed.notify_all()
        end(self._workers)
        with self._changed:
            for turn, _ in self._taken.values():  # those that hang
                for job, _ in turn:
                    fail_image(job, ServiceStopping("The service is stopping."))

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
            now = self._clock()
            ages = [now - job.came for turn, _ in self._taken.values() for job, _ in turn]
            oldest_age_s = max([self._queue.oldest_age, *ages])
            return Backlog(len(self._queue), self._queue.work, oldest_age_s)

    def hanging(self) -> dict[int, float]:
        """Give the numbers of the devices whose turn is very much longer than it should be.

        Returns:
            How long each has been on it, in s.
        """
        with self._changed:
            now = self._clock()
            times = {device: (turn, now - began) for device, (turn, began) in self._taken.items()}
        return {device: time_ for device, (turn, time_) in times.items() if time_ > _longest(turn)}

    def forecast(self) -> Forecast:
        """Say what every image that waits still asks for."""
        with self._changed:
            waiting = tuple(demand_of(job) for job in self._queue if not job.abandoned)
        return Forecast(waiting, self.devices)

    async def segment(
        self,
        model: Loaded,
        *passes: Segmentation,
        deadline: float | None = None,
        queued: Callable[[], object] = lambda: None,
    ) -> Segmented:
        """Run an image's tiles in turn with all others.

        Args:
            model: What runs them.
            passes: The passes over one image; all together are one image among the others.
            deadline: When nobody waits for it any more, on `time.monotonic`, in s.
            queued: Called once its tiles wait, so that the forecast knows of them.

        Raises:
            InferenceFailed: if the runtime fails on one of its tiles.
            DeadlinePassed: if its deadline comes before its turn.
            ServiceStopping: if the engine stops before it is done.
        """
        loop = asyncio.get_running_loop()
        tiles = sum(len(work.plan.tiles) for work in passes)
        waiter = Waiter(passes, loop, loop.create_future(), tiles)
        steps = chain.from_iterable(steps_of(model, work, work.plan) for work in passes)
        make_job = partial(Job, waiter, steps, deadline)
        is_soon = tiles <= MOST_TILES_AT_ONCE
        job = make_job() if is_soon else await anyio.to_thread.run_sync(make_job)
        with self._changed:
            if self._stopping:
                raise ServiceStopping("The service is stopping.")
            self._queue.add(job)
            queued()
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
                self._judge(device, self._run(device, turn))
            except Exception as exc:  # whatever it is, the worker lives on for the other images
                log.exception("a turn could not be ended")
                for job, _ in turn:
                    fail_image(job, failure(exc))
            del turn  # an image is not held until the next one comes

    def _next_turn(self, device: int) -> Turn:
        """Wait for work and take one batch of it; nothing is the end."""
        with self._changed:
            self._taken.pop(device, None)
            while not self._stopping and device not in self.retired:
                for job in self._queue.drop():
                    late = DeadlinePassed("The request's deadline passed before its turn.")
                    fail_image(job, late)
                if turn := self._queue.take(self._most_tiles, partial(_must_wait, device)):
                    self._taken[device] = turn, self._clock()
                    return turn
                self._changed.wait(self._queue.next_deadline)
            return []

    def _most_tiles(self, kind: Hashable, waiting: int) -> int:
        """Leave the other devices their share of what waits."""
        model, shape, _ = kind_of(kind)
        return model.most_tiles(shape, math.ceil(waiting / self.devices))

    def _run(self, device: int, turn: Turn) -> Lack:
        """Run tiles of one kind; what fails is halved until it is known whose fault it is.

        Returns:
            What the device lacked, if it failed where another did not.
        """
        turn = [(job, step) for job, step in turn if not job.abandoned]
        if not turn:
            return Lack.NOTHING
        failed = self._try(device, turn)
        return Lack.NOTHING if failed is None else self._recover(device, turn, failed)

    def _try(self, device: int, turn: Turn) -> Exception | None:
        """Run tiles of one kind on a device; give what it raises, whatever that is."""
        model, _, given = kind_of(turn[0][1].kind)
        try:
            runtime = model.runtime_on(device)
            run = runtime.labels if given == "labels" else runtime.run
            with self.running[device], at_work(turn) as began:
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
            if job.owner.count(runtime.device) and not job.abandoned:
                job.owner.finish()
        return None

    def _recover(self, device: int, turn: Turn, cause: Exception) -> Lack:
        """Run what failed in other ways; say what the device lacked, if another did not."""
        model, shape, _ = kind_of(turn[0][1].kind)
        if len(turn) > 1:
            half = len(turn) // 2
            lacked = max(self._run(device, part) for part in (turn[:half], turn[half:]))
            if is_out_of_memory(cause) and not lacked:
                model.note_out_of_memory(shape, len(turn))
            return lacked
        (job, step), *_ = turn
        if job.abandoned:
            return Lack.NOTHING
        causes = [cause]
        left_out = {device, *self.retired, *self.hanging()}
        for other in range(len(self._workers)):
            if other in left_out or not model.runs_on(other):
                continue
            failed = self._try(other, turn)
            if failed is None:
                return Lack.MEMORY if is_out_of_memory(cause) else Lack.SOUNDNESS
            causes.append(failed)
        smaller: list[Step[Pass]] = []
        if any(map(is_out_of_memory, causes)):
            model.note_out_of_memory(shape, 1)
            smaller = smaller_steps(model, step)
        if not smaller:
            if abandon(job):  # and no other device was sooner
                model.note_failure()
                job.owner.fail(failure(cause))
            return Lack.NOTHING
        job.owner.divide(len(smaller))
        return max(self._run(device, [(job, part)]) for part in smaller)

    def _judge(self, device: int, lacked: Lack) -> None:
        """Count turns in a row that failed by the fault of a device; after several it is retired.

        What fails is fast, and would take all turns. The last device goes on, and so does one that
        is short of memory: somebody else may have it for a while. The others look again at what
        waits, since what no device runs any more has to fail.
        """
        with self._changed:
            at_fault = lacked is Lack.SOUNDNESS
            self._failures[device] = self._failures[device] + 1 if at_fault else 0
            if self._failures[device] >= MOST_FAILURES and self.devices > 1:
                log.error("device %d failed where another did not: it takes no more turns", device)
                self.retired.add(device)
                self._changed.notify_all()


def _must_wait(device: int, kind: Hashable) -> bool:
    """Whether a device leaves tiles of a kind until later, or to others."""
    model, _, _ = kind_of(kind)
    return model.state == "warming-up" or not model.runs_on(device)


def _longest(turn: Turn) -> float:
    """Give the time from which on a device hangs that is on a turn, in s."""
    model, _, _ = kind_of(turn[0][1].kind)
    work = sum(step.work for _, step in turn)
    return max(HANGING_S, HANGING_TIMES * work / (model.work_a_second or math.inf))
