"""The stages of a request."""

import asyncio
import time

import pytest

from service.slots import Slots
from service.stages import Stages


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Give the time, to be set."""
    found = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: found[0])
    return found


def test_what_is_queued_within_a_stage_is_no_part_of_it(now: list[float]) -> None:
    stages = Stages()
    with stages.measure("decode"):
        stages.queued(3)
        now[0] = 5

    assert stages.seconds == {"queue": 3, "decode": 2}


def test_stages_are_told_in_their_order_whichever_came_first(now: list[float]) -> None:
    stages = Stages()
    stages.queued(1)
    stages.add("encode", 2)
    stages.add("decode", 3)
    now[0] = 7

    told = stages.server_timing
    assert told == "decode;dur=3000.0, queue;dur=1000.0, encode;dur=2000.0, total;dur=7000.0"


@pytest.mark.anyio
async def test_the_wait_for_a_slot_is_queued(now: list[float]) -> None:
    slots, stages = Slots(1), Stages()
    async with slots.take(1):
        second = asyncio.create_task(take(slots, stages))
        await asyncio.sleep(0)
        assert slots.waiting == 1
        now[0] = 4
    await second

    assert stages.seconds == {"queue": 4}


async def take(slots: Slots, stages: Stages) -> None:
    async with slots.take(1, stages.queued):
        pass
