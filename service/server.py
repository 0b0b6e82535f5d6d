"""The HTTP server, made to end in order: nothing in flight is lost, and the exit code is 0."""

import asyncio
import signal
from types import FrameType

import uvicorn
from fastapi import FastAPI

from service.lifecycle import Lifecycle
from service.settings import Settings

LAST_SECOND_S = 1
"""Time for connections to close once the grace is over."""
TICK_S = 0.1
"""How often it is looked whether a second SIGINT came: a signal's handler wakes nobody."""


class Server(uvicorn.Server):
    """A server that, on SIGTERM or SIGINT, answers what is in flight and refuses what is new."""

    def __init__(self, app: FastAPI, settings: Settings) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                host=settings.host,
                port=settings.port,
                access_log=False,
                log_config=None,
                ws="none",
                timeout_graceful_shutdown=LAST_SECOND_S,
            )
        )
        self._lifecycle: Lifecycle = app.state.lifecycle
        self._grace_s = settings.shutdown_grace_s

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 (its signature)
        """Begin to end; a second SIGINT ends at once. Unlike uvicorn's, it ends with code 0."""
        if self.should_exit and sig == signal.SIGINT:
            self.force_exit = True
        self.should_exit = True

    async def main_loop(self) -> None:
        """Serve until a signal comes, then drain while the socket still answers."""
        await super().main_loop()
        draining = asyncio.ensure_future(self._lifecycle.drain(self._grace_s))
        while not (self.force_exit or draining.done()):
            await asyncio.wait([draining], timeout=TICK_S)
        draining.cancel()
