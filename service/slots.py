"""Slots for images that are worked on, and who goes next: small ones do not wait for large ones.

Every image that comes has a tag: virtual time at that moment, and its pixels on top. Next is the
lowest tag, so of images that came together the one with the fewest pixels. Virtual time is the
largest tag of an image that had its turn, so none waits for ever: of images that are each sent when
the last had its turn, those go before it that have fewer pixels together than it has.

    a of 50 Mpx waits. b of 20 has tag 20; then c of 20 has 40, and d of 20 has 60: behind a.

Source: Golestani 1994, self-clocked fair queueing.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

AT_A_TIME = 2
"""Images that are decoded, or encoded, at a time: each holds a few bytes a pixel while it is."""
SMALL_PIXELS = 2**22
"""The most that a small image has: a fraction of a second's work."""
LEAST_PIXELS = 2**18
"""What an image counts as at least: a turn costs something whatever its size."""


@dataclass(eq=False, slots=True)
class _Image:
    """An image that waits for a slot, or has one."""

    is_large: bool
    tag: int
    turn: asyncio.Future[None]


class Slots:
    """A number of slots, of two or more one for small images alone.

    They live on the event loop, so they need no lock.
    """

    def __init__(self, count: int = AT_A_TIME) -> None:
        """Let so many images be worked on at a time."""
        self._count = count
        self._most_large = max(count - 1, 1)
        self._waiting: list[_Image] = []
        self._going: list[_Image] = []
        self._virtual = 0

    @property
    def waiting(self) -> int:
        """How many images wait."""
        return len(self._waiting)

    @asynccontextmanager
    async def take(
        self, pixels: int, queued: Callable[[float], None] = lambda _: None
    ) -> AsyncIterator[None]:
        """Wait for a slot, and hold it until the block ends.

        Args:
            pixels: Of the image, height times width.
            queued: Told how long it waited, in s.
        """
        came = time.perf_counter()
        turn = asyncio.get_running_loop().create_future()
        tag = self._virtual + max(pixels, LEAST_PIXELS)
        image = _Image(pixels > SMALL_PIXELS, tag, turn)
        self._waiting.append(image)
        self._fill()
        try:
            await turn
            queued(time.perf_counter() - came)
            yield
        finally:
            self._leave(image)

    def _fill(self) -> None:
        """Let images go as long as there is a slot for one."""
        while fitting := [image for image in self._waiting if self._fits(image)]:
            image = min(fitting, key=lambda image: image.tag)  # of equal ones, who came first
            self._waiting.remove(image)
            self._going.append(image)
            self._virtual = max(self._virtual, image.tag)
            image.turn.set_result(None)

    def _fits(self, image: _Image) -> bool:
        large = sum(other.is_large for other in self._going)
        return (
            len(self._going) < self._count
            and not (image.is_large and large >= self._most_large)
            and not image.turn.cancelled()  # it is about to leave
        )

    def _leave(self, image: _Image) -> None:
        """Take out an image, wherever it is: one that is cancelled may have its turn by then."""
        row = self._waiting if image in self._waiting else self._going
        row.remove(image)
        self._fill()
