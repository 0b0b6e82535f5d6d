"""From the first request to the last: request ids, faults of ours, and an orderly end."""

import asyncio
import logging
import time
import uuid

from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from model.errors import ServiceStopping
from service.errors import cut_short, fault

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


class RequestScope:
    """ASGI middleware: gives every request an id and an end, and answers faults of ours."""

    def __init__(self, app: ASGIApp, lifecycle: Lifecycle) -> None:
        self.app = app
        self.lifecycle = lifecycle

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application for one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        began = time.perf_counter()
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-ID"] = request_id
            await send(message)

        self.lifecycle.begin()
        try:
            await self.app(scope, receive, send_with_id)
        except ClientDisconnect:
            log.info("request %s: the client left", request_id)
        except asyncio.CancelledError:
            if status or not self.lifecycle.stopping:
                raise
            await cut_short(request_id)(scope, receive, send_with_id)
        except Exception:  # what nobody foresaw is a fault of ours, and says nothing of itself
            log.exception("request %s failed", request_id)
            if not status:
                await fault(request_id)(scope, receive, send_with_id)
        finally:
            self.lifecycle.end()
            elapsed_ms = (time.perf_counter() - began) * 1e3
            log.info(
                "%s %s %r %d %.0f ms %s",
                request_id,
                scope["method"],
                scope["path"],
                status,
                elapsed_ms,
                scope["state"].get("problem", ""),
            )
