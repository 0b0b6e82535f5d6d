"""A service on two devices: every answer names those that ran its tiles."""

from collections.abc import Iterator

import pytest

from model.runtime import Runtime
from service.app import create_app
from service.engine import Engine
from service.models.loaded import Loaded
from service.settings import Settings
from tests.conftest import square
from tests.service.conftest import TILE_EDGE, TestClient, noise, png, serve_one

IMAGE = png(noise(400, 401))


class NamedRuntime(Runtime):
    """Runs on the CPU, and says that it does so elsewhere."""

    def __init__(self, opened: Runtime, device: str) -> None:
        self.__dict__ |= opened.__dict__
        self._device = device

    @property
    def device(self) -> str:
        return self._device


@pytest.fixture(scope="module")
def client(settings: Settings, runtime: Runtime) -> Iterator[TestClient]:
    """Give a client of a service on two devices, of which the second takes all turns."""
    engine = Engine(devices=2)
    runtimes = [NamedRuntime(runtime, f"cuda:{number}") for number in range(2)]
    model = Loaded(runtimes, square(TILE_EDGE), engine.retired)
    engine._workers[0].start = lambda: None  # type: ignore[method-assign]  # it takes none
    with TestClient(create_app(settings, serve_one(model, engine))) as client:
        yield client


@pytest.mark.parametrize("average", ["none", "rotations"])
def test_masks_name_the_device_that_ran_their_tiles(client: TestClient, average: str) -> None:
    answer = client.post("/segment", params={"average": average}, files={"image": IMAGE})
    assert (answer.status_code, answer.headers["x-model-device"]) == (200, "cuda:1")


def test_json_names_the_device_that_ran_its_tiles(client: TestClient) -> None:
    answer = client.post("/segment", params={"format": "json"}, files={"image": IMAGE})
    assert answer.json()["model"]["device"] == answer.headers["x-model-device"] == "cuda:1"


def test_lists_of_models_name_all_devices_that_take_turns(client: TestClient) -> None:
    assert [each["device"] for each in client.get("/models").json()["models"]] == ["cuda:0,1"]
