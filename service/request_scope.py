"""What surrounds every request: its id, its time, its end, and the answer to a fault of ours."""

import asyncio
import logging
import re
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from model.errors import ServiceStopping
from service.errors import FAULT, cut_short, fault
from service.lifecycle import Lifecycle
from service.logs import request_id
from service.metrics import Metrics
from service.stages import Stages

OTHER_ROUTE = "other"
"""What is counted for every path that is no route of ours: paths are the client's choice."""

log = logging.getLogger(__name__)


class RequestScope:
    """ASGI middleware: gives every request an id and an end, and answers faults of ours."""

    def __init__(self, app: ASGIApp, lifecycle: Lifecycle, metrics: Metrics) -> None:
        self.app = app
        self.lifecycle = lifecycle
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application for one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        own_id, stages, status = _id_of(scope), Stages(), 0
        state = scope.setdefault("state", {})
        state |= {"request_id": own_id, "stages": stages, "problem": ""}

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-ID"] = own_id
                headers["Server-Timing"] = stages.server_timing
            await send(message)

        token = request_id.set(own_id)
        self.lifecycle.begin()
        try:
            await self.app(scope, receive, send_with_headers)
        except ClientDisconnect:
            state["problem"] = "client-left"
            log.info("the client left")
        except asyncio.CancelledError:
            if status or not self.lifecycle.stopping:
                raise
            state["problem"] = ServiceStopping.code
            await cut_short(own_id)(scope, receive, send_with_headers)
        except Exception:  # what nobody foresaw is a fault of ours, and says nothing of itself
            state["problem"] = FAULT
            log.exception("the request failed")
            if not status:
                await fault(own_id)(scope, receive, send_with_headers)
        finally:
            self.lifecycle.end()
            route = getattr(scope.get("route"), "path", OTHER_ROUTE)
            self.metrics.count_request(route, status, state["problem"], stages)
            fields = {
                "method": scope["method"],
                "path": scope["path"],
                "status": status,
                "duration_ms": round(1e3 * stages.total_s, 1),
                "problem": state["problem"],
            }
            log.info("request", extra={"fields": fields})
            request_id.reset(token)


def _id_of(scope: Scope) -> str:
    """Take the client's id where it can do no harm in a log or a header; else make one."""
    asked = Headers(scope=scope).get("x-request-id", "")
    return asked if re.fullmatch(r"[A-Za-z0-9._-]{1,64}", asked) else uuid.uuid4().hex
