"""An application on the test's own event loop, and clients that talk to it without a socket."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import numpy as np
from fastapi import FastAPI
from numpy.typing import NDArray
from starlette.types import Message

from model.runtime import Runtime
from service.app import create_app
from service.settings import Settings
from service.state import State
from tests.service.conftest import models_of, noise, png

T = TypeVar("T")

IMAGE = png(noise(400, 401))
TILES = 4
SOON_S = 1000
"""A deadline that no test reaches by itself."""


class SkippingLoop(asyncio.SelectorEventLoop):
    """An event loop whose time can be moved on."""

    skipped_s = 0.0

    def time(self) -> float:
        return super().time() + self.skipped_s


def run_skipping(main: Callable[[SkippingLoop], Coroutine[Any, Any, T]]) -> T:
    """Run a test on such a loop."""
    loop = SkippingLoop()
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        return runner.run(main(loop))


class Client:
    """Sends one image to an application, and leaves when it is told to."""

    def __init__(self, app: FastAPI, **headers: str) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = b""
        self.leaves = asyncio.Event()
        self._app = app
        self._sent = False
        self._asks: Mapping[str, str] = {"content-type": "image/png"} | headers

    async def segment(self) -> int:
        """Give the status of the answer; 0 if there was none."""
        scope = {
            "type": "http",
            "method": "POST",
            "path": "/segment",
            "query_string": b"",
            "headers": [(name.encode(), value.encode()) for name, value in self._asks.items()],
        }
        await self._app(scope, self._receive, self._send)
        return self.status

    @property
    def problem(self) -> dict[str, Any]:
        """The body, where it is a problem; its `type` is cut to the code."""
        problem: dict[str, Any] = json.loads(self.body)
        return problem | {"type": problem["type"].removeprefix("urn:unet-service:")}

    async def _receive(self) -> Message:
        if not self._sent:
            self._sent = True
            return {"type": "http.request", "body": IMAGE}
        await self.leaves.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        self.status = message.get("status", self.status)
        self.body += message.get("body", b"")
        for name, value in message.get("headers", ()):
            self.headers[name.decode()] = value.decode()


@asynccontextmanager
async def running(settings: Settings, runtime: Runtime | None = None) -> AsyncIterator[FastAPI]:
    """Run an application on this event loop."""
    models = None
    if runtime is not None:
        models = models_of(runtime)
    app = create_app(settings, models)
    async with app.router.lifespan_context(app):
        yield app


def state_of(app: FastAPI) -> State:
    state: State = app.state.service
    return state


class CountingRuntime(Runtime):
    """Counts its runs, and holds the first one until it is told to go on."""

    def __init__(self, opened: Runtime) -> None:
        self.__dict__ |= opened.__dict__
        self.runs = 0
        self.began = threading.Event()
        self.may_go_on = threading.Event()

    def warm_up(self, tile_shape: tuple[int, int], batch: int = 1) -> None:
        """It is not counted."""

    def run(self, tiles: NDArray[np.float32]) -> NDArray[np.float32]:
        self.runs += 1
        self.began.set()
        assert self.may_go_on.wait(10)
        return super().run(tiles)

    def labels(self, tiles: NDArray[np.float32]) -> NDArray[np.uint8]:
        return np.stack([self.manifest.decide(logits) for logits in self.run(tiles)])
