"""What nobody waits for any more is given up, wherever it is; what is in flight is finished."""

import asyncio
import os
import signal
import threading
from collections.abc import Callable
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.types import Message

from model.runtime import Runtime
from service import routes
from service.decoding import decoder
from service.masks import encode
from service.settings import Settings
from tests.service.conftest import settings_of
from tests.service.direct import (
    SOON_S,
    TILES,
    Client,
    CountingRuntime,
    SkippingLoop,
    run_skipping,
    running,
    state_of,
)


class Slow(Client):
    """Sends nothing of its image, and stays."""

    async def _receive(self) -> Message:
        await self.leaves.wait()
        return {"type": "http.disconnect"}


@pytest.fixture
def patient(settings: Settings) -> Settings:
    """Give settings by which nothing ends sooner than a request's own deadline."""
    far = ("stall_timeout_s", "upload_timeout_s", "decode_timeout_s")
    return settings_of(settings.model_dir, deadline_s=2 * SOON_S, **dict.fromkeys(far, 10 * SOON_S))


async def comes(condition: Callable[[], object]) -> None:
    """Let others work until a condition holds."""
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.001)


def in_a_hurry(app: FastAPI) -> Client:
    return Client(app, prefer=f"wait={SOON_S}")


async def assert_free(app: FastAPI) -> None:
    """Nothing is held, and the next image is served."""
    service = state_of(app)
    assert (service.admission.requests, service.admission.pixels) == (0, 0)
    assert service.models.engine.forecast().waiting == ()
    assert await Client(app).segment() == 200


def test_a_deadline_that_passes_while_the_client_still_sends_is_its_own_fault(
    patient: Settings, runtime: Runtime
) -> None:
    async def late(loop: SkippingLoop) -> Client:
        async with running(patient, runtime) as app:
            client = Slow(app, prefer=f"wait={SOON_S}")
            request = asyncio.ensure_future(client.segment())
            await comes(lambda: state_of(app).admission.requests)
            await asyncio.sleep(0)
            loop.skipped_s += SOON_S
            await request
            await assert_free(app)
        return client

    client = run_skipping(late)
    assert (client.status, client.problem["type"]) == (408, "upload-stalled")


def test_a_deadline_that_passes_while_an_image_is_decoded(
    patient: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoder, "START_TIMEOUT_S", 10 * SOON_S)

    async def late(loop: SkippingLoop) -> Client:
        async with running(patient) as app:
            service = state_of(app)
            await comes(lambda: service.models.find(None).state == "ready")
            os.kill(service.decoders.pids[0], signal.SIGSTOP)  # it would never be done
            client = in_a_hurry(app)
            request = asyncio.ensure_future(client.segment())
            await comes(lambda: service.admission.pixels)
            loop.skipped_s += SOON_S
            await request
            await assert_free(app)
        return client

    client = run_skipping(late)
    assert (client.status, client.problem["type"]) == (504, "deadline-passed")


def test_a_deadline_that_passes_while_an_image_waits_for_a_slot(
    patient: Settings, runtime: Runtime
) -> None:
    counting = CountingRuntime(runtime)
    counting.may_go_on.set()

    async def late(loop: SkippingLoop) -> int:
        async with running(patient, counting) as app:
            slots = state_of(app).slots
            async with slots.take(1), slots.take(1):
                request = asyncio.ensure_future(in_a_hurry(app).segment())
                await comes(lambda: slots.waiting)
                loop.skipped_s += SOON_S
                status = await request
                assert (counting.runs, slots.waiting) == (0, 0)
            await assert_free(app)
        return status

    assert run_skipping(late) == 504
    assert counting.runs == TILES


def test_a_deadline_that_passes_among_the_tiles(patient: Settings, runtime: Runtime) -> None:
    counting = CountingRuntime(runtime)

    async def late(loop: SkippingLoop) -> int:
        async with running(patient, counting) as app:
            request = asyncio.ensure_future(in_a_hurry(app).segment())
            assert await asyncio.to_thread(counting.began.wait, 10)
            loop.skipped_s += SOON_S
            status = await request
            counting.may_go_on.set()
            await assert_free(app)
        return status

    assert run_skipping(late) == 504
    assert counting.runs == 1 + TILES


def test_a_deadline_that_passes_while_the_answer_is_written(
    patient: Settings, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    began, may_go_on = threading.Event(), threading.Event()

    def encode_when_told(*arguments: Any) -> Any:
        began.set()
        assert may_go_on.wait(10)
        return encode(*arguments)

    monkeypatch.setattr(routes, "encode", encode_when_told)

    async def late(loop: SkippingLoop) -> int:
        async with running(patient, runtime) as app:
            request = asyncio.ensure_future(in_a_hurry(app).segment())
            assert await asyncio.to_thread(began.wait, 10)
            loop.skipped_s += SOON_S
            await asyncio.sleep(0)
            may_go_on.set()
            status = await request
            await assert_free(app)
        return status

    assert run_skipping(late) == 504


def test_the_service_s_own_deadline_counts_where_the_client_waits_longer(
    settings: Settings, runtime: Runtime
) -> None:
    counting = CountingRuntime(runtime)
    impatient = settings_of(settings.model_dir, deadline_s=SOON_S)

    async def late(loop: SkippingLoop) -> int:
        async with running(impatient, counting) as app:
            client = Client(app, prefer=f"wait={9 * SOON_S}")
            request = asyncio.ensure_future(client.segment())
            assert await asyncio.to_thread(counting.began.wait, 10)
            loop.skipped_s += SOON_S
            status = await request
            counting.may_go_on.set()
        return status

    assert run_skipping(late) == 504


def test_no_tile_is_run_of_a_client_that_left_before_its_turn(
    settings: Settings, runtime: Runtime
) -> None:
    counting = CountingRuntime(runtime)

    async def leave() -> tuple[int, int]:
        async with running(settings, counting) as app:
            engine = state_of(app).models.engine
            stays, leaves = Client(app), Client(app)
            first = asyncio.ensure_future(stays.segment())
            assert await asyncio.to_thread(counting.began.wait, 10)
            second = asyncio.ensure_future(leaves.segment())
            await comes(lambda: len(engine.forecast().waiting) == 2)
            leaves.leaves.set()
            await second
            counting.may_go_on.set()
            return await first, leaves.status

    assert asyncio.run(leave()) == (200, 0)
    assert counting.runs == TILES


def test_a_drain_refuses_what_is_new_and_finishes_what_is_in_flight(
    settings: Settings, runtime: Runtime
) -> None:
    counting = CountingRuntime(runtime)

    async def drain() -> tuple[int, int]:
        async with running(settings, counting) as app:
            lifecycle = state_of(app).lifecycle
            request = asyncio.ensure_future(Client(app).segment())
            assert await asyncio.to_thread(counting.began.wait, 10)
            draining = asyncio.ensure_future(lifecycle.drain(SOON_S))
            await asyncio.sleep(0)
            refused = await Client(app).segment()
            assert not draining.done()
            counting.may_go_on.set()
            await draining
            return refused, await request

    assert asyncio.run(drain()) == (503, 200)
    assert counting.runs == TILES
