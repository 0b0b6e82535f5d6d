"""Slots: who goes next, that nobody waits for ever, and that none is lost."""

import asyncio

import pytest

from service.slots import LEAST_PIXELS, SMALL_PIXELS, Slots

pytestmark = pytest.mark.anyio

SMALL, LARGE = SMALL_PIXELS, SMALL_PIXELS + 1


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Images:
    """Images that come to some slots, by name, and leave when they are told to."""

    def __init__(self, slots: Slots) -> None:
        self.began: list[str] = []
        self.slots = slots
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._done: dict[str, asyncio.Event] = {}

    async def come(self, **pixels: int) -> None:
        for name, each in pixels.items():
            self._done[name] = asyncio.Event()
            self._tasks[name] = asyncio.create_task(self._work(name, each))
        await settled()

    async def finish(self, *names: str) -> None:
        """Let images be done, one after the other."""
        for name in names:
            self.tell(name)
            await self._tasks[name]
            await settled()

    def tell(self, name: str) -> None:
        self._done[name].set()

    def cancel(self, name: str) -> None:
        self._tasks[name].cancel()

    async def _work(self, name: str, pixels: int) -> None:
        async with self.slots.take(pixels):
            self.began.append(name)
            await self._done[name].wait()


async def settled() -> None:
    """Let all tasks go on as far as they can."""
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.fixture
def images() -> Images:
    """Give images that share two slots."""
    return Images(Slots(2))


@pytest.fixture
def in_a_row() -> Images:
    """Give images that go one by one."""
    return Images(Slots(1))


async def test_a_small_image_goes_at_once_where_two_large_ones_came(images: Images) -> None:
    await images.come(a=LARGE, b=LARGE, small=SMALL)

    assert images.began == ["a", "small"]


async def test_the_slot_for_small_images_is_for_all_that_come(images: Images) -> None:
    await images.come(a=LARGE, b=LARGE, c=1, d=2)
    await images.finish("c")

    assert images.began == ["a", "c", "d"]


async def test_a_large_image_goes_where_no_other_does(images: Images) -> None:
    await images.come(small=1, a=LARGE, b=LARGE)
    await images.finish("small", "a")

    assert images.began == ["small", "a", "b"]


async def test_no_more_images_go_than_there_areslots(images: Images) -> None:
    await images.come(a=1, b=2, c=3)

    assert images.began == ["a", "b"]


async def test_of_those_that_wait_together_the_one_with_the_fewest_pixels_is_next(
    in_a_row: Images,
) -> None:
    await in_a_row.come(first=1, c=3 * LARGE, b=2 * LARGE, a=LARGE)
    await in_a_row.finish("first", "a", "b")

    assert in_a_row.began == ["first", "a", "b", "c"]


async def test_the_least_images_go_in_the_order_in_which_they_came(in_a_row: Images) -> None:
    await in_a_row.come(first=1, a=LEAST_PIXELS, b=1)
    await in_a_row.finish("first")

    assert in_a_row.began == ["first", "a"]


async def test_a_row_of_small_images_overtakes_a_large_one_by_fewer_pixels_than_it_has(
    in_a_row: Images,
) -> None:
    await in_a_row.come(s0=1, large=10 * SMALL)
    for number in range(20):
        await in_a_row.come(**{f"s{number + 1}": SMALL})
        await in_a_row.finish(f"s{number}")
        if "large" in in_a_row.began:
            break

    assert in_a_row.began == [*(f"s{number}" for number in range(10)), "large"]


async def test_what_is_cancelled_while_it_waits_is_not_waited_for(in_a_row: Images) -> None:
    await in_a_row.come(a=1, b=2, c=3)
    in_a_row.cancel("b")
    await in_a_row.finish("a")

    assert in_a_row.began == ["a", "c"]


async def test_what_is_cancelled_at_work_frees_its_slot(in_a_row: Images) -> None:
    await in_a_row.come(a=1, b=2)
    in_a_row.cancel("a")
    await settled()

    assert in_a_row.began == ["a", "b"]


async def test_a_turn_goes_to_nobody_who_was_just_cancelled(in_a_row: Images) -> None:
    await in_a_row.come(a=1, b=2, c=3)
    in_a_row.tell("a")
    in_a_row.cancel("b")
    await settled()

    assert in_a_row.began == ["a", "c"]


async def test_a_turn_of_somebody_who_is_then_cancelled_goes_on_to_the_next(
    in_a_row: Images,
) -> None:
    await in_a_row.come(a=1, b=2, c=3)
    in_a_row.tell("a")
    await asyncio.sleep(0)
    assert in_a_row.slots.waiting == 1  # b has the turn, and does not know it yet
    in_a_row.cancel("b")
    await settled()

    assert in_a_row.began == ["a", "c"]


async def test_what_fails_at_work_frees_its_slot() -> None:
    slots = Slots(1)
    with pytest.raises(ZeroDivisionError):
        async with slots.take(1):
            raise ZeroDivisionError
    async with slots.take(1):
        assert slots.waiting == 0
