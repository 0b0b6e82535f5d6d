"""Decoders of which each has one image at a time.

Neither size nor format tells which file takes long, so an image has two goes. The first is short,
and in a slot of `Slots`. What is not decoded by then is begun again, with all the time there is,
in a slot of others of its kind, and nobody else waits for it any more:

    first go     2 slots, 1 s and 0.25 s a megapixel      who waits here waits for little
    second go    2 slots, the whole timeout               hostile files wait for one another

So there are twice as many children as slots at most, and two of them have a large image at most.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress

from model.errors import ImageError, ImageUnreadable, ServiceBusy, ServiceNotReady, ServiceStopping
from service.decoding.decoder import NOT_STARTED, WORKER, Decoder
from service.images import ImageHeader
from service.images.pixels import Pixels
from service.slots import AT_A_TIME, Slots

FIRST_GO_S = 1.0
FIRST_GO_S_A_PIXEL = 0.25e-6
"""Time of the first go; the slowest good files, PNG of 16-bit colour, take 4 megapixels a s."""

log = logging.getLogger(__name__)


class Decoders:
    """The decoders of a service. They live on the event loop, so they need no lock."""

    def __init__(
        self, timeout_s: float, *, count: int = AT_A_TIME, command: Sequence[str] = WORKER
    ) -> None:
        """Start nothing yet.

        Args:
            timeout_s: Time that an image may take, once it has its turn.
            count: Images that are decoded at a time, and as many again that take long.
            command: What a child runs.
        """
        self.given_up = 0
        """Children that were given up over an image: it took too long, or they ended."""
        self._count = count
        self._timeout_s = timeout_s
        self._command = command
        self._slots = Slots(count)
        self._slow = Slots(count)
        self._idle: deque[Decoder] = deque()
        self._busy: set[Decoder] = set()
        self._stopping = False

    @property
    def pids(self) -> list[int]:
        """The process ids of the children, those first that are next."""
        return [decoder.pid for decoder in (*self._idle, *self._busy)]

    def start(self) -> None:
        """Start the children, and do not wait for them.

        Raises:
            OSError: if the system has no room for them.
        """
        while len(self._idle) < self._count:
            self._idle.append(Decoder(self._command))

    async def stop(self) -> None:
        """End the children; whoever still waits for one is told so."""
        self._stopping = True
        for decoder in self._busy:
            decoder.kill()
        await asyncio.gather(*(decoder.end() for decoder in self._idle))

    @property
    def waiting(self) -> int:
        """How many images wait to be decoded."""
        return self._slots.waiting + self._slow.waiting

    async def decode(
        self, data: bytes, header: ImageHeader, queued: Callable[[float], None] = lambda _: None
    ) -> Pixels:
        """Decode an image as `service.images.decode` does, where it harms nobody else.

        Cancelling this ends the work.

        Args:
            data: The whole file.
            header: What `read_header` said about it.
            queued: Told how long it waited for other images, in s.

        Returns:
            (C, H, W) uint8, uint16, int8, int16 or float32; contiguous, read-only.

        Raises:
            ImageUnreadable: The image is truncated or damaged, or takes too much time or memory.
            ImageValuesInvalid: Some pixels are not finite.
            ServiceBusy: The system killed the child, as it does where memory is short.
            ServiceNotReady: The child did not start.
            ServiceStopping: The children are being ended.
        """
        for slots, timeout_s in self._goes(header.pixels):
            with suppress(TimeoutError):
                async with slots.take(header.pixels, queued):
                    return await self._go(data, header, timeout_s)
        raise ImageUnreadable(
            f"The image took more than {self._timeout_s:g} s to decode and was given up."
        )

    def _goes(self, pixels: int) -> list[tuple[Slots, float]]:
        """Say where an image is decoded, and for how long, in s; then where if it was not done."""
        first_go_s = FIRST_GO_S + FIRST_GO_S_A_PIXEL * pixels
        if first_go_s >= self._timeout_s:
            return [(self._slots, self._timeout_s)]
        return [(self._slots, first_go_s), (self._slow, self._timeout_s)]

    async def _go(self, data: bytes, header: ImageHeader, timeout_s: float) -> Pixels:
        """Have a child decode an image.

        Raises:
            TimeoutError: It took longer. Other errors are those of `decode`.
        """
        self._refuse_when_stopping()
        decoder = self._next()
        self._busy.add(decoder)
        try:
            return await decoder.decode(data, header, timeout_s)
        except (ImageError, ServiceBusy, TimeoutError):
            self._refuse_when_stopping()  # it may not be the image's fault
            self.given_up += decoder.has_ended
            raise
        finally:
            self._busy.remove(decoder)
            self._put_back(decoder)

    def _next(self) -> Decoder:
        """Give the decoder that is next, or a new one where all are busy."""
        if self._idle:
            return self._renewed(self._idle.popleft())
        try:
            return Decoder(self._command)
        except OSError as exc:
            raise ServiceNotReady(NOT_STARTED) from exc

    def _put_back(self, decoder: Decoder) -> None:
        """Keep a decoder for the next image, unless there are enough."""
        if len(self._idle) < self._count:
            self._idle.append(self._renewed(decoder))
        else:
            decoder.end()

    def _renewed(self, decoder: Decoder) -> Decoder:
        """Give a decoder, or a new one where its child has ended."""
        if not decoder.has_ended and not self._stopping:
            return decoder
        decoder.end()
        if not self._stopping:
            try:
                return Decoder(self._command)
            except OSError:  # the next image tries again
                log.exception("no process to decode images could be started")
        return decoder

    def _refuse_when_stopping(self) -> None:
        if self._stopping:
            raise ServiceStopping("The service is stopping.")
