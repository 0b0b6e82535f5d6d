"""Decoders of which each has one image at a time; images wait in the order in which they came."""

import asyncio
import logging
from collections import deque
from collections.abc import Sequence

from model.errors import ImageError, ServiceBusy, ServiceStopping
from service.decoding.decoder import WORKER, Decoder
from service.images import ImageHeader
from service.images.pixels import Pixels

AT_A_TIME = 2
"""Images decoded or encoded at a time: each holds a few bytes a pixel while it is."""

log = logging.getLogger(__name__)


class Decoders:
    """A fixed number of decoders. They live on the event loop, so they need no lock."""

    def __init__(
        self, timeout_s: float, *, count: int = AT_A_TIME, command: Sequence[str] = WORKER
    ) -> None:
        """Start nothing yet.

        Args:
            timeout_s: Time that an image may take, once it has its turn.
            count: Images that are decoded at a time.
            command: What a child runs.
        """
        self.given_up = 0
        """Children that were given up over an image: it took too long, or they ended."""
        self._count = count
        self._timeout_s = timeout_s
        self._command = command
        self._turns = asyncio.Semaphore(count)
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
            self._idle.append(self._decoder())

    async def stop(self) -> None:
        """End the children; whoever still waits for one is told so."""
        self._stopping = True
        for decoder in self._busy:
            decoder.kill()
        await asyncio.gather(*(decoder.end() for decoder in self._idle))

    async def decode(self, data: bytes, header: ImageHeader) -> Pixels:
        """Decode an image as `service.images.decode` does, where it harms nobody else.

        Cancelling this ends the work.

        Args:
            data: The whole file.
            header: What `read_header` said about it.

        Returns:
            (C, H, W) uint8, uint16, int8, int16 or float32, C being 1 or 3; contiguous, read-only.

        Raises:
            ImageUnreadable: The image is truncated or damaged, or takes too much time or memory.
            ImageValuesInvalid: Some pixels are not finite.
            ServiceBusy: The system killed the child, as it does where memory is short.
            ServiceNotReady: The child did not start.
            ServiceStopping: The children are being ended.
        """
        async with self._turns:
            self._refuse_when_stopping()
            decoder = self._renewed(self._idle.popleft())
            self._busy.add(decoder)
            try:
                return await decoder.decode(data, header)
            except (ImageError, ServiceBusy):
                self._refuse_when_stopping()  # it may not be the image's fault
                self.given_up += decoder.has_ended
                raise
            finally:
                self._busy.remove(decoder)
                self._idle.append(self._renewed(decoder))

    def _decoder(self) -> Decoder:
        return Decoder(self._timeout_s, self._command)

    def _renewed(self, decoder: Decoder) -> Decoder:
        """Give a decoder, or a new one where its child has ended."""
        if not decoder.has_ended and not self._stopping:
            return decoder
        decoder.end()
        if not self._stopping:
            try:
                return self._decoder()
            except OSError:  # the next image tries again
                log.exception("no process to decode images could be started")
        return decoder

    def _refuse_when_stopping(self) -> None:
        if self._stopping:
            raise ServiceStopping("The service is stopping.")
