"""What the interface answers to good requests."""

import logging
import re
import threading
import time
from io import BytesIO
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco

from model.architecture import Architecture
from model.intensity import IntensityRule
from model.planner import TileShapes
from model.runtime import Runtime
from model.segmentation import segment
from service.app import create_app
from service.models.models import Models
from service.settings import Settings
from tests.conftest import COLOURS
from tests.service.conftest import (
    TILE_EDGE,
    TestClient,
    models_of,
    noise,
    png,
    serving,
    settings_of,
    tiff,
    write_artefact,
)

Labels = NDArray[np.uint8]

SHAPE = (60, 70)
IMAGE = png(noise(*SHAPE))
PYCOCOTOOLS_KNOWS_NUMPY_1 = "ignore:__array__ implementation doesn't accept:DeprecationWarning"
SIZES = [(1, 1), (3, 500), (93, 93), (101, 1), (400, 401)]


def post(client: TestClient, body: bytes, kind: str = "image/png", **query: str) -> Any:
    return client.post("/segment", params=query, content=body, headers={"content-type": kind})


def picture_of(response: Any) -> Image.Image:
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "image/png"
    return Image.open(BytesIO(response.content), formats=("PNG",))


def labels_of(response: Any) -> Labels:
    return np.asarray(picture_of(response))


def json_of(client: TestClient, body: bytes = IMAGE) -> Any:
    response = post(client, body, format="json")
    assert response.status_code == 200, response.text
    return response.json()


def alone(runtime: Runtime, pixels: NDArray[Any], edge: int = TILE_EDGE) -> Labels:
    """Segment (C, H, W) without a service."""
    return segment(pixels, runtime, TileShapes(edge**2))


def test_the_image_may_be_the_body_or_the_field_image_of_a_form(client: TestClient) -> None:
    form = client.post("/segment", files={"image": ("a.png", IMAGE, "image/png")})
    assert form.status_code == 200
    assert form.content == post(client, IMAGE).content


@pytest.mark.parametrize("shape", SIZES)
def test_the_mask_has_the_size_of_the_image(client: TestClient, shape: tuple[int, int]) -> None:
    assert labels_of(post(client, png(noise(*shape)))).shape == shape


@pytest.mark.parametrize("shape", SIZES)
def test_the_mask_is_what_the_model_gives_without_a_service(
    client: TestClient, runtime: Runtime, shape: tuple[int, int]
) -> None:
    pixels = noise(*shape)
    np.testing.assert_array_equal(
        labels_of(post(client, png(pixels))), alone(runtime, pixels[np.newaxis])
    )


def test_the_mask_is_an_indexed_png_of_as_few_bits_as_three_classes_need(
    client: TestClient,
) -> None:
    content = post(client, IMAGE).content
    bits, colour_type = content[24], content[25]  # of the IHDR chunk
    assert (bits, colour_type) == (2, 3)


def test_the_palette_of_the_mask_has_the_colours_of_the_manifest(client: TestClient) -> None:
    palette = picture_of(post(client, IMAGE)).getpalette() or []
    assert bytes(palette[:9]).hex("#", 3).split("#") == [colour[1:] for colour in COLOURS[:3]]


def test_the_pixels_of_the_mask_are_the_ids_of_all_classes(client: TestClient) -> None:
    assert set(np.unique(labels_of(post(client, IMAGE)))) == {0, 1, 2}


@pytest.mark.filterwarnings(PYCOCOTOOLS_KNOWS_NUMPY_1)
@pytest.mark.parametrize("shape", [SHAPE, (1, 1), (3, 500)])
def test_the_json_decodes_to_the_label_map_of_the_png(
    client: TestClient, shape: tuple[int, int]
) -> None:
    body = png(noise(*shape))
    answer = json_of(client, body)
    labels = np.full(answer["size"], 255, np.uint8)
    for entry in answer["segments"]:
        labels[coco.decode(entry["rle"]).astype(bool)] = entry["id"]
    np.testing.assert_array_equal(labels, labels_of(post(client, body)))


def test_the_json_gives_the_area_of_every_class(client: TestClient) -> None:
    counts = np.bincount(labels_of(post(client, IMAGE)).ravel(), minlength=3)
    assert [entry["area"] for entry in json_of(client)["segments"]] == counts.tolist()


def test_the_json_gives_the_bounding_box_of_every_class(client: TestClient) -> None:
    for entry in json_of(client)["segments"]:
        assert entry["bbox"] == coco.toBbox(entry["rle"]).tolist()


def test_the_json_names_the_classes_as_the_manifest_does(client: TestClient) -> None:
    named = [(entry["id"], entry["class"]) for entry in json_of(client)["segments"]]
    assert named == [(0, "class-0"), (1, "class-1"), (2, "class-2")]


def test_the_json_names_the_model_that_made_it(client: TestClient, runtime: Runtime) -> None:
    assert json_of(client)["model"] == {
        "name": "tiny",
        "sha256": runtime.artefact.sha256,
        "provider": "cpu",
        "device": "cpu",
        "precision": "fp32",
    }


def test_the_headers_name_the_model_that_made_the_mask(
    client: TestClient, runtime: Runtime
) -> None:
    headers = post(client, IMAGE).headers
    names = "", "-sha256", "-provider", "-device", "-precision"
    named = [headers[f"x-model{name}"] for name in names]
    assert named == ["tiny", runtime.artefact.sha256, "cpu", "cpu", "fp32"]


def test_the_json_says_where_the_time_went(client: TestClient) -> None:
    timings = json_of(client)["timings"]
    parts = ["upload_ms", "decode_ms", "queue_ms", "inference_ms", "decide_ms", "encode_ms"]
    assert list(timings) == parts
    assert timings["inference_ms"] > 0


def test_the_server_timing_header_says_where_the_time_went(client: TestClient) -> None:
    header = post(client, IMAGE).headers["server-timing"]
    parts = ["upload", "decode", "queue", "inference", "decide", "encode", "total"]
    assert re.findall(r"(\w+);dur=[\d.]+", header) == parts


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        (None, "image/png"),
        ("*/*", "image/png"),
        ("application/json", "application/json"),
        ("image/png;q=0.2, application/json;q=0.9", "application/json"),
    ],
)
def test_accept_chooses_the_format(client: TestClient, accept: str | None, kind: str) -> None:
    headers = {"content-type": "image/png"} | ({"accept": accept} if accept else {})
    answer = client.post("/segment", content=IMAGE, headers=headers)
    assert answer.headers["content-type"] == kind


def test_the_parameter_format_wins_over_accept(client: TestClient) -> None:
    headers = {"content-type": "image/png", "accept": "image/png"}
    answer = client.post("/segment?format=json", content=IMAGE, headers=headers)
    assert answer.headers["content-type"] == "application/json"


def test_a_model_can_be_named(client: TestClient) -> None:
    assert post(client, IMAGE, model="tiny", output="labels").content == post(client, IMAGE).content


def test_sixteen_bits_give_the_labels_of_eight(client: TestClient) -> None:
    pixels = noise(*SHAPE)
    deep = tiff(pixels.astype(np.uint16) * 257)
    np.testing.assert_array_equal(
        labels_of(post(client, deep, "image/tiff")), labels_of(post(client, png(pixels)))
    )


def test_sixteen_bits_are_not_squeezed_to_eight(client: TestClient, runtime: Runtime) -> None:
    pixels = (30_000 + noise(*SHAPE, dtype="uint16")).astype(np.uint16)  # one value in 8 bits
    labels = labels_of(post(client, tiff(pixels), "image/tiff"))
    np.testing.assert_array_equal(labels, alone(runtime, noise(1, *SHAPE)))


def test_a_grey_model_reads_the_luma_of_a_colour_image_at_full_depth(client: TestClient) -> None:
    colours = noise(*SHAPE, 3)
    luma = (colours * np.array([0.299, 0.587, 0.114], np.float32)).sum(axis=2)
    np.testing.assert_array_equal(
        labels_of(post(client, png(colours))),
        labels_of(post(client, tiff(luma.astype(np.float32)), "image/tiff")),
    )


def test_a_colour_model_reads_a_grey_image_as_three_equal_channels(tmp_path: Path) -> None:
    write_artefact(tmp_path, Architecture(in_channels=3, base_channels=4, num_classes=3))
    pixels = noise(*SHAPE)
    with serving(settings_of(tmp_path)) as client:
        grey = labels_of(post(client, IMAGE))
        colour = labels_of(post(client, png(np.dstack([pixels] * 3))))
    np.testing.assert_array_equal(grey, colour)


@pytest.mark.parametrize("channels", [2, 5])
def test_a_model_of_several_channels_reads_a_tiff_of_as_many(tmp_path: Path, channels: int) -> None:
    """Of which one is forty times as bright as the one before."""
    network = Architecture(in_channels=channels, num_classes=3, depth=1, base_channels=4)
    path = write_artefact(tmp_path, network, intensity=IntensityRule(per_channel=True))
    brightness = 40.0 ** np.arange(channels)[:, np.newaxis, np.newaxis]
    dtype = np.uint16 if channels == 2 else np.float32
    planes = (noise(channels, 130, 150) * brightness).astype(dtype)
    pixels = np.moveaxis(planes, 0, 2)
    with serving(settings_of(tmp_path)) as client:
        for body in tiff(planes, planarconfig="separate"), tiff(pixels, planarconfig="contig"):
            labels = labels_of(post(client, body, "image/tiff"))
            np.testing.assert_array_equal(labels, alone(Runtime(path, "cpu", 1), planes))
        wider = np.concatenate([pixels, pixels], axis=2)
        wrong = post(client, tiff(wider, planarconfig="contig"), "image/tiff")
    assert len(np.unique(labels)) > 1
    assert (wrong.status_code, wrong.json()["type"]) == (
        422,
        "urn:unet-service:image-channels-refused",
    )
    assert wrong.json()["detail"] == (
        f"The image has {2 * channels} channels; a network of {channels} reads {channels} or 1."
    )


def test_a_grey_model_reads_no_image_of_two_channels(client: TestClient) -> None:
    answer = post(client, tiff(noise(*SHAPE, 2), planarconfig="contig"), "image/tiff")
    assert answer.status_code == 422
    assert answer.json()["detail"] == "The image has 2 channels; a network of 1 reads 1 or 3."


def test_the_exif_orientation_is_applied_before_the_model(client: TestClient) -> None:
    pixels = noise(*SHAPE)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it turned clockwise by 90°
    np.testing.assert_array_equal(
        labels_of(post(client, png(pixels, exif=exif))),
        labels_of(post(client, png(np.ascontiguousarray(np.rot90(pixels, -1))))),
    )


def test_the_tile_edge_changes_no_label(client: TestClient, model_dir: Path) -> None:
    body = png(noise(300, 270))
    answers = {TILE_EDGE: labels_of(post(client, body))}
    for edge in (188, 572, 1084):
        with serving(settings_of(model_dir, tile_edge=edge)) as other:
            answers[edge] = labels_of(post(other, body))
    for edge, labels in answers.items():
        np.testing.assert_array_equal(labels, answers[TILE_EDGE], f"{edge} px")


def test_a_tile_edge_too_small_to_tile_is_raised_with_a_warning(
    model_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "service.models"):
        Models.open(settings_of(model_dir, tile_edge=188))
    assert "tiles of 188 px cannot cover an image without seams; taking 204 px" in caplog.text


def test_models_describes_every_model(client: TestClient, runtime: Runtime) -> None:
    (described,) = client.get("/models").json()["models"]
    manifest = described.pop("manifest")
    assert manifest == runtime.manifest.model_dump(mode="json")
    assert described == {
        "name": "tiny",
        "sha256": runtime.artefact.sha256,
        "provider": "cpu",
        "device": "cpu",
        "precision": "fp32",
        "state": "ready",
    }


def test_healthz_says_that_it_is_alive(client: TestClient) -> None:
    assert client.get("/healthz").json() == {"status": "alive"}


def test_readyz_names_what_really_runs_and_the_warm_tiles(client: TestClient) -> None:
    answer = client.get("/readyz").json()
    assert answer["status"] == "ready"
    (state,) = answer["models"]
    assert (state["name"], state["state"]) == ("tiny", "ready")
    assert (state["provider"], state["device"], state["precision"]) == ("cpu", "cpu", "fp32")
    assert state["tile_shapes"] == [[204, 204]]


class SlowToWarmUp(Runtime):
    """A runtime that warms up only when it is told to."""

    def __init__(self, opened: Runtime) -> None:
        self.__dict__ |= opened.__dict__
        self.may_go_on = threading.Event()

    def warm_up(self, tile_shape: tuple[int, int], batch: int = 1) -> None:
        assert self.may_go_on.wait(10)


def test_readyz_is_a_problem_until_the_model_is_warmed_up(
    settings: Settings, runtime: Runtime
) -> None:
    slow = SlowToWarmUp(runtime)
    models = models_of(slow)
    with TestClient(create_app(settings, models)) as client:
        early = client.get("/readyz")
        slow.may_go_on.set()
        deadline = time.monotonic() + 10
        while client.get("/readyz").status_code == 503:
            assert time.monotonic() < deadline
    assert (early.status_code, early.json()["type"]) == (503, "urn:unet-service:service-not-ready")
    assert "warming-up" in early.json()["detail"]


def test_an_image_that_comes_during_warm_up_is_answered_after_it(
    settings: Settings, runtime: Runtime
) -> None:
    slow = SlowToWarmUp(runtime)
    models = models_of(slow)
    with TestClient(create_app(settings, models)) as client:
        threading.Timer(0.1, slow.may_go_on.set).start()
        answer = post(client, IMAGE)
    assert answer.status_code == 200


def test_the_root_leads_to_the_documentation(client: TestClient) -> None:
    answer = client.get("/", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (307, "/docs")


def test_the_documentation_is_a_page(client: TestClient) -> None:
    answer = client.get("/docs")
    assert answer.status_code == 200
    assert "swagger" in answer.text


def test_the_documentation_loads_nothing_from_elsewhere(client: TestClient) -> None:
    page = client.get("/docs").text
    loaded = re.findall(r"(?:src|href)=\"([^\"]+)\"", page)
    assert loaded
    for url in loaded:
        assert client.get(url).status_code == 200


def openapi(client: TestClient) -> dict[str, Any]:
    return cast("dict[str, Any]", client.get("/openapi.json").json())


def values_of(node: Any, key: str) -> list[Any]:
    """Collect what stands under a key, at any depth."""
    if isinstance(node, list):
        return [value for item in node for value in values_of(item, key)]
    if isinstance(node, dict):
        own = [node[key]] if key in node else []
        return own + [value for item in node.values() for value in values_of(item, key)]
    return []


def test_every_reference_of_the_openapi_document_leads_somewhere(client: TestClient) -> None:
    document = openapi(client)
    schemas = document["components"]["schemas"]
    references = values_of(document, "$ref")
    assert "#/components/schemas/SegmentAnswer" in references
    assert [name for name in references if name.rpartition("/")[2] not in schemas] == []


def test_the_openapi_document_lists_every_route(client: TestClient) -> None:
    paths = {"/segment", "/models", "/models/reload", "/healthz", "/readyz", "/metrics"}
    assert set(openapi(client)["paths"]) == paths


def test_the_openapi_document_says_that_errors_are_problems(client: TestClient) -> None:
    for path in openapi(client)["paths"].values():
        for operation in path.values():
            for status in ("4XX", "5XX"):
                content = operation["responses"][status]["content"]
                assert list(content) == ["application/problem+json"]


def test_the_example_of_the_json_decodes_to_its_area_and_box(client: TestClient) -> None:
    answers = openapi(client)["paths"]["/segment"]["post"]["responses"]["200"]["content"]
    example = answers["application/json"]["example"]
    assert example["segments"]
    for entry in example["segments"]:
        assert coco.area(entry["rle"]) == entry["area"]
        assert coco.toBbox(entry["rle"]).tolist() == entry["bbox"]


def test_the_example_of_the_json_has_the_fields_of_an_answer(client: TestClient) -> None:
    answers = openapi(client)["paths"]["/segment"]["post"]["responses"]["200"]["content"]
    example, answer = answers["application/json"]["example"], json_of(client)
    assert fields_of(example) == fields_of(answer)


def fields_of(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: fields_of(value) for key, value in node.items()}
    if isinstance(node, list) and node and isinstance(node[0], dict):
        return fields_of(node[0])
    return type(node).__name__


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/models"])
def test_head_is_answered_as_get_without_a_body(client: TestClient, path: str) -> None:
    answer = client.head(path)
    assert (answer.status_code, answer.content) == (200, b"")


def test_a_slash_too_many_is_a_problem_and_not_an_empty_answer(client: TestClient) -> None:
    answer = client.post("/segment/", content=IMAGE, follow_redirects=False)
    assert (answer.status_code, answer.json()["type"]) == (404, "urn:unet-service:not-found")
