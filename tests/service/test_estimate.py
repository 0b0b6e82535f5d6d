"""When an image would be done: by arithmetic, and as the queue really shares turns."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.artefact import Averaging
from model.averaging import PASSES, begin
from model.geometry import flops
from model.planner import TileShapes
from service.estimate import Demand, Forecast
from service.fair_queue import FairQueue, Job, Step
from service.images import ImageHeader
from service.models.loaded import Loaded
from tests.service.conftest import noise
from tests.service.recording import EDGE, FEW, MANIFEST, RecordingRuntime

WORKS = st.lists(st.integers(1, 60), max_size=6)


def demand(work: int, rate: float = 1.0, pixels: int = 1) -> Demand:
    return Demand(pixels, work, rate)


def forecast(*works: int, devices: int = 1) -> Forecast:
    return Forecast(tuple(map(demand, works)), devices)


def test_an_image_alone_takes_its_own_time() -> None:
    assert forecast().done(demand(100, rate=20.0)) == 5


def test_of_a_larger_image_as_much_is_run_meanwhile_and_of_a_smaller_one_all() -> None:
    assert [forecast(12, 3).done(demand(work)) for work in (1, 4, 100)] == [3, 11, 115]


def test_every_model_has_its_own_speed() -> None:
    others = Forecast((demand(10, rate=2.0), demand(10, rate=0.5)))
    assert others.done(demand(4, rate=1.0)) == 4 / 2 + 4 / 0.5 + 4


def test_a_speed_that_is_not_known_counts_as_no_time() -> None:
    assert Forecast((demand(10, rate=0.0),)).done(demand(10, rate=0.0)) == 0


def test_several_devices_share_the_work() -> None:
    assert forecast(12, 3, devices=2).done(demand(5)) == (5 + 3 + 5) / 2


@pytest.mark.parametrize(("tiles", "seconds"), [(1, 12), (2, 6), (3, 8), (4, 6), (0, 6)])
def test_a_tile_is_run_by_one_device(tiles: int, seconds: float) -> None:
    """So the third of three keeps one of two devices, and the other has nothing to do."""
    assert forecast(devices=2).alone(Demand(1, 12, 1.0, tiles)) == seconds


def turns_until(queue: FairQueue[str, str], job: Job[str, str]) -> int:
    count = 0
    while not job.is_taken:
        queue.take(lambda *_: 1)
        count += 1
    return count


def queue_of(works: list[int]) -> FairQueue[str, str]:
    queue: FairQueue[str, str] = FairQueue(lambda: 0.0)
    for work in works:
        queue.add(Job("other", [Step("", "", 1)] * work))
    return queue


@given(WORKS, st.integers(1, 60))
def test_the_estimate_is_that_of_the_queue_to_a_turn_of_each_image(
    works: list[int], work: int
) -> None:
    queue, late = queue_of(works), Job("late", [Step("", "", 1)] * work)
    queue.add(late)
    assert abs(turns_until(queue, late) - forecast(*works).done(demand(work))) <= len(works)


@pytest.mark.parametrize("burst", [0, 8, 31])
def test_a_client_that_sends_one_image_after_the_other_counts_as_one_that_waits(
    burst: int,
) -> None:
    """So the time of a large image stays what it was, whatever burst came before."""
    queue, large = queue_of([1] * burst), Job("large", [Step("", "", 10)] * 100)
    queue.add(large)
    for _ in range(burst):
        queue.take(lambda *_: 1)
    expected = forecast(large.work).done(demand(large.work))
    done = 0
    while not large.is_taken:
        if len(queue) == 1:
            queue.add(Job("small", [Step("", "", 1)]))
        done += sum(step.work for _, step in queue.take(lambda *_: 1))
    assert abs(done - expected) <= 2 * 10


@given(WORKS, st.integers(1, 60), st.integers(0, 100))
def test_who_comes_again_when_told_is_done_in_time_and_would_not_have_been_before(
    works: list[int], work: int, slack: int
) -> None:
    limit, line, image = work + slack, forecast(*works), demand(work)
    wait = line.fits(image, limit)
    queue = queue_of(works)
    for _ in range(int(wait) + len(works)):  # turns come one by one, not in equal shares
        queue.take(lambda *_: 1)
    rest = forecast(*(job.work for job in queue))
    assert rest.done(image) <= limit
    assert (wait > 0) == (line.done(image) > limit)


def test_an_image_that_is_larger_than_the_rest_need_not_wait_until_all_is_done() -> None:
    """Of 10 and 30, shares of 15 leave 0 and 15: with 20 of its own, it is done in 35."""
    assert forecast(10, 30).fits(demand(20), 35) == 10 + 15


def test_a_small_image_waits_until_few_are_left() -> None:
    """One of 100 takes as much as it does, to the end: only what is less than its own helps."""
    assert forecast(100).fits(demand(2), 3) == 99


def test_pixels_are_free_when_the_images_of_least_work_are_done() -> None:
    line = Forecast((demand(30, pixels=500), demand(10, pixels=100), demand(20, pixels=200)))
    assert [line.free(pixels) for pixels in (-5, 0, 1, 100, 101, 300, 301, 900)] == [
        *(0, 0, 30, 30, 50, 50, 60, 60)
    ]


@pytest.mark.parametrize("shapes", [TileShapes(EDGE**2), FEW])
@pytest.mark.parametrize("passes", ["none", "rotations"])
def test_the_work_of_an_image_is_that_of_the_tiles_that_will_be_run(
    shapes: TileShapes, passes: Averaging
) -> None:
    model = Loaded([RecordingRuntime()], shapes)
    model.note_turn(1000, 2.0)
    pixels = noise(1, 70, 131)
    begun = begin(pixels, MANIFEST, shapes, averaging=passes, output="foreground")
    work = sum(
        len(each.plan.tiles) * flops(MANIFEST.architecture, each.plan.tile_shape) for each in begun
    )
    tiles = sum(len(each.plan.tiles) for each in begun)
    header = ImageHeader("tiff", 70, 131, 1, channels=1)
    assert Demand.of(model, header, passes) == Demand(
        PASSES[passes] * 70 * 131, work, model.work_a_second, tiles, "tiny", is_measured=True
    )
