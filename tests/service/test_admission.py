"""How much work the service holds at a time."""

import asyncio
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from model.errors import DeadlineTooShort, ServiceBusy
from model.geometry import flops
from model.runtime import Runtime
from service import routes
from service.admission import Admission
from service.estimate import Demand, Forecast
from service.images import ImageHeader
from service.masks import encode
from service.models.loaded import Loaded
from service.settings import Settings
from tests.service.conftest import (
    TILE_EDGE,
    TINY,
    TestClient,
    noise,
    png,
    serving,
    settings_of,
)
from tests.service.direct import Client, CountingRuntime, running, state_of
from tests.service.recording import FEW, RecordingRuntime

IMAGE = png(noise(20, 30))


def test_as_many_requests_are_held_as_there_may_be() -> None:
    admission = Admission(max_requests=2, max_pixels=1)
    with (
        admission.request(),
        admission.request(),
        pytest.raises(ServiceBusy, match="2 requests are waiting"),
        admission.request(),
    ):
        pass


def test_a_request_that_is_done_makes_room_for_another() -> None:
    admission = Admission(max_requests=1, max_pixels=1)
    for _ in range(3):
        with admission.request():
            pass


def test_a_request_that_fails_makes_room_for_another() -> None:
    admission = Admission(max_requests=1, max_pixels=1)
    with pytest.raises(RuntimeError), admission.request():
        raise RuntimeError
    with admission.request():
        pass


def demand(pixels: int, work: int = 0) -> Demand:
    """Give an image on a device that does one operation a second."""
    return Demand(pixels, work, 1.0)


def test_images_are_held_up_to_the_limit_of_their_pixels() -> None:
    admission = Admission(max_requests=9, max_pixels=100)
    with (
        admission.image(demand(60)),
        admission.image(demand(40)),
        pytest.raises(ServiceBusy, match="100 pixels are waiting; with this one of 1"),
        admission.image(demand(1)),
    ):
        pass


def test_an_image_alone_is_held_whatever_its_size() -> None:
    with Admission(max_requests=9, max_pixels=100).image(demand(1000)):
        pass


def test_an_image_that_is_refused_holds_no_pixels() -> None:
    admission = Admission(max_requests=9, max_pixels=100)
    with admission.image(demand(60)):
        with pytest.raises(ServiceBusy), admission.image(demand(60)):
            pass
        with admission.image(demand(40)):
            pass


def test_an_image_that_fails_makes_room_for_another() -> None:
    admission = Admission(max_requests=9, max_pixels=100)
    with pytest.raises(RuntimeError), admission.image(demand(100)):
        raise RuntimeError
    with admission.image(demand(100)):
        pass


class Line:
    """What waits in an engine, and a clock that stands."""

    def __init__(self, *waiting: Demand) -> None:
        self.waiting = waiting
        self.now = 1000.0

    def admission(self, **limits: int) -> Admission:
        limits = {"max_requests": 9, "max_pixels": 10**9} | limits
        return Admission(**limits, queued=lambda: Forecast(self.waiting), clock=lambda: self.now)


def numbers_of(admission: Admission, image: Demand, deadline: float = float("inf")) -> Any:
    """Give the numbers with which an image is refused."""
    with pytest.raises(ServiceBusy) as caught, admission.image(image, deadline):
        pass
    return caught.value.numbers


def test_an_image_that_would_be_done_too_late_is_told_when_to_come_again() -> None:
    """Of 30, as much as its own 20 is before it; after 15, there are 15 left, so 35 in all."""
    line = Line(demand(5, work=30))
    assert numbers_of(line.admission(), demand(7, work=20), line.now + 35) == {
        "queued_images": 1,
        "queued_pixels": 5,
        "estimated_s": 40,
        "deadline_s": 35,
        "retry_after_s": 15,
    }


def test_an_image_that_would_be_done_just_in_time_is_let_in() -> None:
    line = Line(demand(5, work=30))
    with line.admission().image(demand(7, work=20), line.now + 40):
        pass


def test_an_image_that_takes_longer_than_it_may_even_alone_is_not_told_to_come_again() -> None:
    line = Line(demand(5, work=30))
    admission, deadline = line.admission(), line.now + 19
    with pytest.raises(DeadlineTooShort) as caught, admission.image(demand(7, 20), deadline):
        pass
    assert caught.value.numbers == {"estimated_s": 20, "deadline_s": 19}


@pytest.mark.parametrize(("limit_s", "is_measured"), [(10, True), (1, False)])
def test_where_nothing_waits_no_estimate_that_may_be_wrong_keeps_an_image_out(
    limit_s: int, is_measured: bool
) -> None:
    """Or it would do so for good: an image that is refused has no turn to correct it."""
    line, image = Line(), replace(demand(7, work=20), is_measured=is_measured)
    with line.admission().image(image, line.now + limit_s):
        pass


def test_a_speed_that_no_turn_has_shown_lately_keeps_no_image_out() -> None:
    """Or a turn that was held up would, for good: here one that took 60 times as long."""
    line = Line()
    admission = line.admission()
    model = Loaded([RecordingRuntime()], FEW, clock=lambda: line.now)

    def image() -> Demand:
        return replace(
            demand(7, work=20), work_a_second=model.work_a_second, is_measured=model.is_measured
        )

    model.note_turn(1, 60.0)
    with pytest.raises(DeadlineTooShort), admission.image(image(), line.now + 20):
        pass
    line.now += 61
    with admission.image(image(), line.now + 20):
        model.note_turn(30, 30.0)
    assert image().is_measured
    with admission.image(image(), line.now + 20):
        pass


def test_an_image_that_is_far_too_late_is_refused_also_where_nothing_waits() -> None:
    line = Line()
    with (
        pytest.raises(DeadlineTooShort),
        line.admission().image(demand(7, work=20), line.now + 9),
    ):
        pass


def test_where_no_other_of_its_model_waits_no_estimate_keeps_an_image_out() -> None:
    """The turns of other models do not correct it."""
    line = Line(replace(demand(5, work=30), model="other"))
    admission, image = line.admission(), replace(demand(7, work=20), model="its own")
    with admission.image(image, line.now + 19):
        assert numbers_of(admission, demand(1, work=1), line.now + 2)["queued_images"] == 2
        with pytest.raises(DeadlineTooShort), admission.image(image, line.now + 19):
            pass


def test_an_image_that_is_late_by_a_first_guess_may_come_again() -> None:
    line = Line(demand(5, work=30))
    image = replace(demand(7, work=20), is_measured=False)
    assert numbers_of(line.admission(), image, line.now + 19)["retry_after_s"] == 30


def test_images_that_are_still_decoded_count_as_what_waits() -> None:
    """Or a burst would be let in as if each of it were alone."""
    line = Line()
    admission, deadline = line.admission(), line.now + 25
    with admission.image(demand(1, work=10), deadline):
        with admission.image(demand(1, work=10), deadline):
            numbers = numbers_of(admission, demand(1, work=10), deadline)
        assert (numbers["queued_images"], numbers["estimated_s"]) == (2, 30)
        with admission.image(demand(1, work=10), deadline):
            pass


def test_an_image_that_the_engine_has_is_not_counted_twice() -> None:
    line = Line()
    admission = line.admission()
    with admission.image(demand(1, work=10)) as place:
        place.join()
        line.waiting = (demand(1, work=4),)
        numbers = numbers_of(admission, demand(1, work=10), line.now + 13)
        assert (numbers["queued_images"], numbers["estimated_s"]) == (1, 14)


def test_a_wait_is_told_in_whole_seconds_and_never_as_none() -> None:
    line = Line(demand(1, work=10))
    waits = [
        numbers_of(line.admission(), demand(1, work=20), line.now + 30 - early)["retry_after_s"]
        for early in (0.25, 1, 1.5)
    ]
    assert waits == [1, 1, 2]


def test_where_requests_are_too_many_the_wait_is_for_the_first_to_be_done() -> None:
    line = Line(demand(3, work=50), demand(4, work=20))
    admission = line.admission(max_requests=1)
    with admission.request(), pytest.raises(ServiceBusy) as caught, admission.request():
        pass
    assert caught.value.numbers == {
        "queued_images": 2,
        "queued_pixels": 7,
        "retry_after_s": 40,
    }


def test_where_pixels_are_too_many_the_wait_is_for_as_many_as_are_too_many() -> None:
    line = Line()
    admission = line.admission(max_pixels=100)
    with (
        admission.image(demand(60, work=50)),
        admission.image(demand(20, work=20)),
        admission.image(demand(10)) as encoded,
    ):
        encoded.join()  # and done: its pixels are free soon
        waits = [numbers_of(admission, demand(pixels))["retry_after_s"] for pixels in (15, 30, 50)]
    assert waits == [1, 40, 70]


@pytest.fixture
def busy(
    request: pytest.FixtureRequest, model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[TestClient]:
    """Give a client of a service that holds all it may while its first request is encoded."""
    encodes, may_go_on = threading.Event(), threading.Event()

    def encode_when_told(*arguments: Any) -> Any:
        if not encodes.is_set():
            encodes.set()
            assert may_go_on.wait(10)
        return encode(*arguments)

    monkeypatch.setattr(routes, "encode", encode_when_told)
    with serving(settings_of(model_dir, **request.param)) as client:
        first = threading.Thread(target=post, args=(client,))
        first.start()
        encodes.wait(10)
        yield client
        may_go_on.set()
        first.join()


def post(client: TestClient, **query: str) -> Any:
    headers = {"content-type": "image/png"}
    return client.post("/segment", params=query, content=IMAGE, headers=headers)


at_its_limit = pytest.mark.parametrize(
    "busy", [{"max_pending_requests": 1}, {"max_pending_pixels": 700}], indirect=True
)


@at_its_limit
def test_a_service_at_its_limit_answers_429(busy: TestClient) -> None:
    answer = post(busy)
    assert (answer.status_code, answer.json()["type"]) == (429, "urn:unet-service:service-busy")


@at_its_limit
def test_a_service_at_its_limit_says_when_to_come_again(busy: TestClient) -> None:
    assert int(post(busy).headers["retry-after"]) > 0


@at_its_limit
def test_a_service_at_its_limit_is_still_alive_and_ready(busy: TestClient) -> None:
    assert [busy.get(path).status_code for path in ("/healthz", "/readyz")] == [200, 200]


@pytest.mark.parametrize("busy", [{"max_pending_pixels": 9 * 600 - 1}], indirect=True)
@pytest.mark.parametrize(("average", "status"), [("none", 200), ("rotations", 429)])
def test_an_image_that_is_averaged_over_its_rotations_counts_eight_times(
    busy: TestClient, average: str, status: int
) -> None:
    assert post(busy, average=average).status_code == status


TILE_S = 1000
"""How long a tile is said to take: so long that no test reaches a deadline."""


async def warm(app: FastAPI) -> Loaded:
    """Give the only model, once it is ready."""
    (model,) = state_of(app).models.loaded.values()
    while model.state != "ready":
        await asyncio.sleep(0.001)
    return model


async def held_in_its_first_tile(app: FastAPI, runtime: CountingRuntime) -> "asyncio.Task[int]":
    """Begin a request, and say that its tiles are slow."""
    model = await warm(app)
    model.work_a_second = 0.0  # as if its warm-up had shown nothing
    model.note_turn(flops(TINY, (TILE_EDGE, TILE_EDGE)), TILE_S)
    first = asyncio.create_task(Client(app).segment())
    await asyncio.to_thread(runtime.began.wait, 10)
    return first


def segment_beside_another(settings: Settings, runtime: Runtime, wait_s: float) -> Client:
    """Send an image of 4 tiles while 3 of another wait."""
    counting = CountingRuntime(runtime)

    async def send() -> Client:
        async with running(settings_of(settings.model_dir, deadline_s=10**6), counting) as app:
            first = await held_in_its_first_tile(app, counting)
            second = Client(app, prefer=f"wait={wait_s:.0f}")
            answer = asyncio.create_task(second.segment())
            engine = state_of(app).models.engine
            while not answer.done() and len(engine.forecast().waiting) < 2:
                await asyncio.sleep(0.001)
            counting.may_go_on.set()
            assert await first == 200
            await answer
        return second

    return asyncio.run(send())


def test_a_request_that_would_be_late_answers_429_with_the_numbers(
    settings: Settings, runtime: Runtime
) -> None:
    client = segment_beside_another(settings, runtime, wait_s=6.5 * TILE_S)
    problem = client.problem
    assert (client.status, problem["type"]) == (429, "service-busy")
    assert problem["queued_images"] == 1
    assert problem["estimated_s"] == 7 * TILE_S
    assert 5.5 * TILE_S < problem["deadline_s"] < 6.5 * TILE_S
    assert 0.5 * TILE_S < problem["retry_after_s"] < 1.5 * TILE_S
    assert client.headers["retry-after"] == str(problem["retry_after_s"])


def test_a_request_that_would_be_in_time_is_served(settings: Settings, runtime: Runtime) -> None:
    assert segment_beside_another(settings, runtime, wait_s=8 * TILE_S).status == 200


def test_a_request_that_alone_would_be_late_answers_422(
    settings: Settings, runtime: Runtime
) -> None:
    client = segment_beside_another(settings, runtime, wait_s=3 * TILE_S)
    assert (client.status, client.problem["type"]) == (422, "deadline-too-short")
    assert client.problem["estimated_s"] == 4 * TILE_S
    assert "retry-after" not in client.headers


def test_an_image_alone_corrects_a_wrong_estimate_of_its_time(
    settings: Settings, runtime: Runtime
) -> None:
    """As of a container that was held up while its model was warmed up."""
    runtime = CountingRuntime(runtime)
    runtime.may_go_on.set()

    async def send() -> tuple[int, float]:
        async with running(settings_of(settings.model_dir, deadline_s=10**6), runtime) as app:
            model = await warm(app)
            model.work_a_second = flops(TINY, (TILE_EDGE, TILE_EDGE)) / TILE_S
            status = await Client(app, prefer=f"wait={3 * TILE_S}").segment()
            header = ImageHeader("png", 400, 401, 1, channels=1)
            return status, Demand.of(model, header, "none").seconds(10**18)

    status, seconds = asyncio.run(send())
    assert status == 200
    assert seconds < TILE_S


def test_a_wait_that_is_none_answers_400(client: TestClient) -> None:
    headers = {"content-type": "image/png", "prefer": "wait=soon"}
    answer = client.post("/segment", content=IMAGE, headers=headers)
    assert (answer.status_code, answer.json()["type"]) == (
        400,
        "urn:unet-service:preference-invalid",
    )


def test_a_wait_that_is_long_enough_changes_nothing(client: TestClient) -> None:
    headers = {"content-type": "image/png", "prefer": "wait=600"}
    assert client.post("/segment", content=IMAGE, headers=headers).content == post(client).content
