"""How much work the service holds at a time."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from model.errors import ServiceBusy
from service import routes
from service.admission import Admission
from service.masks import encode
from tests.service.conftest import TestClient, noise, png, serving, settings_of

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


def test_images_are_held_up_to_the_limit_of_their_pixels() -> None:
    admission = Admission(max_requests=9, max_pixels=100)
    with (
        admission.image(60),
        admission.image(40),
        pytest.raises(ServiceBusy, match="100 pixels are waiting; with this one of 1"),
        admission.image(1),
    ):
        pass


def test_an_image_alone_is_held_whatever_its_size() -> None:
    with Admission(max_requests=9, max_pixels=100).image(1000):
        pass


def test_an_image_that_is_refused_holds_no_pixels() -> None:
    admission = Admission(max_requests=9, max_pixels=100)
    with admission.image(60):
        with pytest.raises(ServiceBusy), admission.image(60):
            pass
        with admission.image(40):
            pass


def test_an_image_that_fails_makes_room_for_another() -> None:
    admission = Admission(max_requests=9, max_pixels=100)
    with pytest.raises(RuntimeError), admission.image(100):
        raise RuntimeError
    with admission.image(100):
        pass


@pytest.fixture
def busy(
    request: pytest.FixtureRequest, model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[TestClient]:
    """Give a client of a service that holds all it may while its first request is encoded."""
    encodes, may_go_on = threading.Event(), threading.Event()

    def encode_when_told(*arguments: Any) -> Any:
        if not encodes.is_set():
            encodes.set()
            may_go_on.wait(10)
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
