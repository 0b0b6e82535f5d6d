"""From the first request to the last: what is in flight, and an orderly end."""

import asyncio
import logging

from model.errors import ServiceStopping

log = logging.getLogger(__name__)


class Lifecycle:
    """Knows what is in flight, and whether anything new is taken."""

    def __init__(self) -> None:
        self.stopping = False
        self._in_flight = 0
        self._idle = asyncio.Event()
        self._idle.set()

    def refuse_when_stopping(self) -> None:
        """Refuse new work once the service is stopping.

        Raises:
            ServiceStopping: then.
        """
        if self.stopping:
            raise ServiceStopping("The service is stopping and takes no new work.")

    async def drain(self, grace_s: float) -> None:
        """Take nothing new and wait for what is in flight, as long as the grace allows."""
        self.stopping = True
        try:
            await asyncio.wait_for(self._idle.wait(), grace_s)
        except TimeoutError:
            log.warning("%d request(s) were not done within %g s", self._in_flight, grace_s)

    def begin(self) -> None:
        """Count a request in."""
        self._in_flight += 1
        self._idle.clear()

    def end(self) -> None:
        """Count a request out."""
        self._in_flight -= 1
        if not self._in_flight:
            self._idle.set()
