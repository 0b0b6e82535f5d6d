"""A service whose models run in OpenVINO: every answer says so."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service.conftest import TestClient, noise, png, serving, settings_of

pytest.importorskip("openvino", reason="the extra `openvino` is not installed")

IMAGE = png(noise(60, 70))


@pytest.fixture(scope="module")
def client(model_dir: Path) -> Iterator[TestClient]:
    with serving(settings_of(model_dir, device="openvino")) as client:
        yield client


def test_masks_and_json_say_so(client: TestClient) -> None:
    image = client.post("/segment", files={"image": IMAGE})
    assert (image.status_code, image.headers["x-model-provider"]) == (200, "openvino")
    answer = client.post("/segment", params={"format": "json"}, files={"image": IMAGE}).json()
    assert answer["model"]["provider"] == "openvino"


@pytest.mark.parametrize("route", ["/models", "/readyz"])
def test_lists_of_models_say_so(client: TestClient, route: str) -> None:
    assert [model["provider"] for model in client.get(route).json()["models"]] == ["openvino"]


def test_metrics_say_so(client: TestClient) -> None:
    (line,) = (line for line in client.get("/metrics").text.splitlines() if "info{" in line)
    assert 'provider="openvino"' in line


def test_the_mask_is_that_of_onnx_runtime(client: TestClient, model_dir: Path) -> None:
    with serving(settings_of(model_dir, device="cpu")) as other:
        masks = [one.post("/segment", files={"image": IMAGE}).content for one in (client, other)]
    assert masks[0] == masks[1]
