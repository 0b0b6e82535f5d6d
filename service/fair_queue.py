"""Turns on a device, shared fairly by work: who waits for tiles, and whose come next.

Every image has a tag: the virtual time at which it came, moved on by the work of each of its tiles
that was taken. Next is the tile that the device would finish first, were it shared by all that wait
at once: the lowest tag with the tile's own work on top, so that a small tile does not wait for a
large one that came no earlier. Virtual time passes as work is done, divided by how many would share
the device: those that wait, and those that were done sooner than if they had shared. An image that
comes late owes nothing for the time before it.

It takes the place of the one, of those done sooner, that would have shared longest. So the divisor
is never more than waited at a time, and soon no more than wait now: one that has waited long is
overtaken by no stream of small ones, each sent when the last was done, whatever burst came before.

Source: Demers, Keshav and Shenker 1989, fair queueing by finish times; Parekh and Gallager 1993. In
both, a sender that goes on keeps its place; who sent an image is not known here.
"""

import math
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

Owner = TypeVar("Owner")
Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Step(Generic[Item]):
    """One tile of an image."""

    item: Item
    kind: Hashable
    """Tiles of one kind, of one model and one shape, can be run together."""
    work: int
    """Floating-point operations."""


class Job(Generic[Owner, Item]):
    """An image's tiles: those of a kind in order, the kinds in any."""

    def __init__(
        self, owner: Owner, steps: Iterable[Step[Item]], deadline: float | None = None
    ) -> None:
        """Gather the tiles of an image.

        Args:
            owner: Who waits for it.
            steps: Its tiles.
            deadline: When nobody waits for it any more, on the queue's clock, in s.
        """
        self.owner = owner
        self.deadline = deadline
        self.abandoned = False
        """Whether nobody waits for it any more."""
        self.came = 0.0
        """When it joined the queue, in s."""
        self.work = 0
        """Floating-point operations of the tiles that were not taken yet."""
        self.taken = 0
        """Tiles that had their turn."""
        self.tag = 0.0
        """Virtual time at which fluid sharing would have done what was taken."""
        self._steps: dict[Hashable, deque[Step[Item]]] = {}
        for step in steps:
            self._steps.setdefault(step.kind, deque()).append(step)
            self.work += step.work

    @property
    def is_taken(self) -> bool:
        """Whether all tiles had their turn."""
        return not self._steps

    @property
    def kinds(self) -> Iterable[Hashable]:
        """The kinds of the tiles that were not taken yet."""
        return self._steps.keys()

    def count(self, kind: Hashable) -> int:
        """Count the tiles of a kind that were not taken yet."""
        return len(self._steps.get(kind, ()))

    def finish_of(self, kind: Hashable) -> float:
        """Give the virtual time at which fluid sharing would have done the next tile of a kind."""
        return self.tag + self._steps[kind][0].work

    def take(self, kind: Hashable) -> Step[Item]:
        """Take the next tile of a kind."""
        step = self._steps[kind].popleft()
        if not self._steps[kind]:
            del self._steps[kind]
        self.work -= step.work
        self.tag += step.work
        self.taken += 1
        return step


class FairQueue(Generic[Owner, Item]):
    """Images that wait for a device. It has no lock: whoever shares it holds one."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._jobs: list[Job[Owner, Item]] = []
        self._virtual = 0.0
        self._sooner: list[float] = []
        """Tags of images that have left, later than virtual time, whose places nobody has taken."""

    def __len__(self) -> int:
        """How many images wait."""
        return len(self._jobs)

    def __iter__(self) -> Iterator[Job[Owner, Item]]:
        """Give the images that wait."""
        return iter(self._jobs)

    @property
    def work(self) -> int:
        """Floating-point operations of all tiles that were not taken yet."""
        return sum(job.work for job in self._jobs)

    @property
    def next_deadline(self) -> float | None:
        """How long it is to the next deadline, in s; None where there is none."""
        deadlines = [job.deadline for job in self._jobs if job.deadline is not None]
        return max(min(deadlines) - self._clock(), 0.0) if deadlines else None

    @property
    def oldest_age(self) -> float:
        """How long the image waits that came first, in s; 0 where none does."""
        return max((self._clock() - job.came for job in self._jobs), default=0.0)

    def add(self, job: Job[Owner, Item]) -> None:
        """Let an image wait for its turns."""
        job.came = self._clock()
        job.tag = self._virtual
        if self._sooner:
            self._sooner.remove(max(self._sooner))
        self._jobs.append(job)

    def drop(self) -> list[Job[Owner, Item]]:
        """Take out every image that nobody waits for, or whose deadline has passed."""
        now = self._clock()
        dropped = [
            job
            for job in self._jobs
            if job.abandoned or (job.deadline is not None and job.deadline <= now)
        ]
        self._remove(dropped)
        return dropped

    def take(
        self,
        most: Callable[[Hashable, int], int],
        skip: Callable[[Hashable], bool] = lambda _: False,
    ) -> list[tuple[Job[Owner, Item], Step[Item]]]:
        """Take the tiles of one turn, all of one kind; whose last tile is taken leaves the queue.

        Args:
            most: Gives how many tiles of a kind are run together, of so many that wait.
            skip: Tells whether tiles of a kind have to wait.
        """
        offers: list[tuple[Job[Owner, Item], Hashable]] = []
        for job in self._jobs:
            kind = next((kind for kind in job.kinds if not skip(kind)), None)
            if kind is not None:
                offers.append((job, kind))
            else:  # nobody took a turn from it
                job.tag = max(job.tag, self._virtual)
        if not offers:
            return []
        _, kind = min(offers, key=lambda offer: _turn_of(*offer))
        turn: list[tuple[Job[Owner, Item], Step[Item]]] = []
        waiting = sum(job.count(kind) for job in self._jobs)
        for _ in range(min(most(kind, waiting), waiting)):
            having = (job for job in self._jobs if job.count(kind))
            job = min(having, key=lambda job: _turn_of(job, kind))
            step = job.take(kind)
            turn.append((job, step))
            self._pass(step.work, len(offers))
        self._remove(job for job, _ in turn if job.is_taken)
        return turn

    def clear(self) -> list[Job[Owner, Item]]:
        """Take out all images."""
        jobs = self._jobs
        self._remove(jobs)
        return jobs

    def _pass(self, work: float, waiting: int) -> None:
        """Let virtual time pass while so much work is done and so many wait."""
        while True:
            self._sooner = [tag for tag in self._sooner if tag > self._virtual]
            sharing = waiting + len(self._sooner)
            nearest = min(self._sooner, default=math.inf)
            if self._virtual + work / sharing < nearest:
                self._virtual += work / sharing
                return
            work -= (nearest - self._virtual) * sharing
            self._virtual = nearest

    def _remove(self, jobs: Iterable[Job[Owner, Item]]) -> None:
        gone = {id(job): job for job in jobs}
        self._sooner += [job.tag for job in gone.values()]
        self._jobs = [job for job in self._jobs if id(job) not in gone]
        if not self._jobs:
            self._sooner = []


def _turn_of(job: Job[Owner, Item], kind: Hashable) -> tuple[float, int]:
    """Order by what would be finished first; of equal ones, who had no turn is before who had."""
    return job.finish_of(kind), job.taken
