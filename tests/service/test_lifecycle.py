"""From the first request to the last."""

import asyncio
import logging
import os
import signal
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
from fastapi import FastAPI
from numpy.typing import NDArray
from starlette.types import Message

from model.errors import ServiceStopping
from model.runtime import Runtime
from service.app import create_app
from service.lifecycle import Lifecycle
from service.settings import Settings
from tests.service.conftest import (
    Log,
    models_of,
    noise,
    png,
    settings_of,
)

IMAGE = png(noise(400, 401))
TILES = 4


def test_new_work_is_taken_before_the_drain() -> None:
    Lifecycle().refuse_when_stopping()


def test_new_work_is_refused_from_the_drain_on() -> None:
    lifecycle = Lifecycle()
    asyncio.run(lifecycle.drain(grace_s=0))
    with pytest.raises(ServiceStopping):
        lifecycle.refuse_when_stopping()


def test_a_drain_with_nothing_in_flight_ends_at_once() -> None:
    async def drain() -> None:
        async with asyncio.timeout(5):
            await Lifecycle().drain(grace_s=1000)

    asyncio.run(drain())


def test_a_drain_waits_for_the_last_request_in_flight() -> None:
    async def drain() -> None:
        lifecycle = Lifecycle()
        lifecycle.begin()
        lifecycle.begin()
        draining = asyncio.ensure_future(lifecycle.drain(grace_s=1000))
        lifecycle.end()
        await asyncio.sleep(0.01)
        assert not draining.done()
        lifecycle.end()
        async with asyncio.timeout(5):
            await draining

    asyncio.run(drain())


def test_a_drain_waits_no_longer_than_the_grace(caplog: pytest.LogCaptureFixture) -> None:
    lifecycle = Lifecycle()
    lifecycle.begin()
    with caplog.at_level(logging.WARNING, "service.lifecycle"):
        asyncio.run(lifecycle.drain(grace_s=0.01))
    assert "1 request(s) were not done within 0.01 s" in caplog.text


class Client:
    """Sends one image to an application, and leaves when it is told to."""

    def __init__(self, app: FastAPI) -> None:
        self.status = 0
        self.leaves = asyncio.Event()
        self._app = app
        self._sent = False

    async def segment(self) -> int:
        """Give the status of the answer; 0 if there was none."""
        scope = {
            "type": "http",
            "method": "POST",
            "path": "/segment",
            "query_string": b"",
            "headers": [(b"content-type", b"image/png")],
        }
        await self._app(scope, self._receive, self._send)
        return self.status

    async def _receive(self) -> Message:
        if not self._sent:
            self._sent = True
            return {"type": "http.request", "body": IMAGE}
        await self.leaves.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        self.status = message.get("status", self.status)


@asynccontextmanager
async def running(settings: Settings, runtime: Runtime | None = None) -> AsyncIterator[FastAPI]:
    """Run an application on this event loop."""
    models = None
    if runtime is not None:
        models = models_of(runtime)
    app = create_app(settings, models)
    async with app.router.lifespan_context(app):
        yield app


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
        self.may_go_on.wait(10)
        return super().run(tiles)

    def labels(self, tiles: NDArray[np.float32]) -> NDArray[np.uint8]:
        return np.stack([self.manifest.decide(logits) for logits in self.run(tiles)])


def test_the_tiles_of_a_client_that_left_are_not_run(settings: Settings, runtime: Runtime) -> None:
    counting = CountingRuntime(runtime)

    async def leave() -> int:
        async with running(settings, counting) as app:
            client = Client(app)
            request = asyncio.ensure_future(client.segment())
            await asyncio.to_thread(counting.began.wait, 10)
            client.leaves.set()
            status = await request
            counting.may_go_on.set()
            await Client(app).segment()
        return status

    assert asyncio.run(leave()) == 0
    assert counting.runs == 1 + TILES


def test_all_tiles_of_a_client_that_stays_are_run(settings: Settings, runtime: Runtime) -> None:
    counting = CountingRuntime(runtime)
    counting.may_go_on.set()

    async def stay() -> int:
        async with running(settings, counting) as app:
            return await Client(app).segment()

    assert asyncio.run(stay()) == 200
    assert counting.runs == TILES


def test_a_client_that_left_frees_its_place_though_its_image_was_being_decoded(
    model_dir: Path,
) -> None:
    async def leave() -> tuple[int, int]:
        async with running(settings_of(model_dir, max_pending_pixels=1)) as app:
            service = app.state.service
            os.kill(service.decoders.pids[0], signal.SIGSTOP)  # it would never be done
            client = Client(app)
            request = asyncio.ensure_future(client.segment())
            async with asyncio.timeout(10):
                while not service.admission.pixels:
                    await asyncio.sleep(0.001)
            early = await Client(app).segment()
            client.leaves.set()
            await request
            return early, await Client(app).segment()

    assert asyncio.run(leave()) == (429, 200)


def test_the_log_says_that_a_client_left(settings: Settings, runtime: Runtime, log: Log) -> None:
    async def leave() -> None:
        async with running(settings, runtime) as app:
            client = Client(app)
            client.leaves.set()
            await client.segment()

    asyncio.run(leave())
    told, request = log.lines()
    assert told["message"] == "the client left"
    assert (request["status"], request["problem"]) == (0, "client-left")
    assert told["request_id"] == request["request_id"]
