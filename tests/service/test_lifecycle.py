"""From the first request to the last."""

import asyncio
import logging
import os
import signal
import threading
from operator import attrgetter
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from model.errors import ServiceStopping
from model.runtime import Runtime
from service import routes
from service.lifecycle import Lifecycle
from service.settings import Settings
from tests.service.conftest import Log, settings_of
from tests.service.direct import (
    SOON_S,
    TILES,
    Client,
    CountingRuntime,
    SkippingLoop,
    run_skipping,
    running,
)


async def settled() -> None:
    """Let all tasks go on as far as they can."""
    for _ in range(5):
        await asyncio.sleep(0)


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
        await settled()
        assert not draining.done()
        lifecycle.end()
        async with asyncio.timeout(5):
            await draining

    asyncio.run(drain())


def test_a_drain_waits_no_longer_than_the_grace(caplog: pytest.LogCaptureFixture) -> None:
    async def drain(loop: SkippingLoop) -> None:
        lifecycle = Lifecycle()
        lifecycle.begin()
        draining = asyncio.ensure_future(lifecycle.drain(SOON_S))
        await settled()
        loop.skipped_s += SOON_S
        await draining

    with caplog.at_level(logging.WARNING, "service.lifecycle"):
        run_skipping(drain)
    assert "1 request(s) were not done within 1000 s" in caplog.text


async def is_alive(app: FastAPI) -> bool:
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
        return (await client.get("/healthz")).status_code == 200


def test_the_service_says_that_it_is_alive_while_a_tile_is_run(
    settings: Settings, runtime: Runtime
) -> None:
    counting = CountingRuntime(runtime)

    async def ask() -> int:
        async with running(settings, counting) as app:
            request = asyncio.ensure_future(Client(app).segment())
            assert await asyncio.to_thread(counting.began.wait, 10)
            assert await is_alive(app)
            counting.may_go_on.set()
            return await request

    assert asyncio.run(ask()) == 200


@pytest.mark.parametrize("step", ["averaging.begin", "encode"])
def test_the_service_says_that_it_is_alive_while_it_works_over_an_image(
    settings: Settings, runtime: Runtime, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    began, may_go_on = threading.Event(), threading.Event()
    work = attrgetter(step)(routes)

    def work_when_told(*arguments: Any, **named: Any) -> Any:
        began.set()
        assert may_go_on.wait(10)
        return work(*arguments, **named)

    monkeypatch.setattr(f"service.routes.{step}", work_when_told)

    async def ask() -> int:
        async with running(settings, runtime) as app:
            request = asyncio.ensure_future(Client(app).segment())
            assert await asyncio.to_thread(began.wait, 10)
            assert await is_alive(app)
            may_go_on.set()
            return await request

    assert asyncio.run(ask()) == 200


def test_the_tiles_of_a_client_that_left_are_not_run(settings: Settings, runtime: Runtime) -> None:
    counting = CountingRuntime(runtime)

    async def leave() -> int:
        async with running(settings, counting) as app:
            client = Client(app)
            request = asyncio.ensure_future(client.segment())
            assert await asyncio.to_thread(counting.began.wait, 10)
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
    _, told, request = log.lines()  # the first one: what was loaded
    assert told["message"] == "the client left"
    assert (request["status"], request["problem"]) == (0, "client-left")
    assert told["request_id"] == request["request_id"]
