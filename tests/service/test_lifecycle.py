"""From the first request to the last."""

import asyncio
import logging
import os
import signal
from pathlib import Path

import pytest

from model.errors import ServiceStopping
from model.runtime import Runtime
from service.lifecycle import Lifecycle
from service.settings import Settings
from tests.service.conftest import Log, settings_of
from tests.service.direct import TILES, Client, CountingRuntime, running


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
