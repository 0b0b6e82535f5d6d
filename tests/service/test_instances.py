"""What `POST /segment` answers where objects, or averages over rotations, are asked for."""

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco
from skimage import measure

from model.architecture import Architecture
from model.artefact import Averaging
from model.averaging import probabilities
from model.instances import InstanceRule, separate
from model.planner import TileShapes
from model.runtime import Runtime
from model.segmentation import decide
from service import masks
from tests.service.conftest import (
    TILE_EDGE,
    TestClient,
    noise,
    png,
    serving,
    settings_of,
    write_artefact,
)

PYCOCOTOOLS_KNOWS_NUMPY_1 = "ignore:__array__ implementation doesn't accept:DeprecationWarning"

PIXELS = noise(150, 110)
RULE = InstanceRule(seed_threshold=0.6, smallest_area=3)
THRESHOLD = 0.3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder of a model of classes, one of objects, one of averages, one that finds none."""
    folder = tmp_path_factory.mktemp("models")
    two = Architecture(base_channels=4)
    write_artefact(folder, name="classes")
    write_artefact(folder, two, "objects", instances=RULE, decision_threshold=THRESHOLD)
    write_artefact(folder, two, "averages", averaging="rotations", decision_threshold=THRESHOLD)
    write_artefact(folder, two, "nothing", instances=RULE, decision_threshold=1 - 1e-9)
    return folder


@pytest.fixture(scope="module")
def models(folder: Path) -> Iterator[TestClient]:
    with serving(settings_of(folder)) as client:
        yield client


def post(client: TestClient, turns: int = 0, **query: str) -> Any:
    """Send the image, turned so often by 90°."""
    answer = post_unchecked(client, turns, **query)
    assert answer.status_code == 200, answer.text
    return answer


def post_unchecked(client: TestClient, turns: int = 0, **query: str) -> Any:
    body = png(np.rot90(PIXELS, turns).copy())
    headers = {"content-type": "image/png"}
    return client.post("/segment", params=query, content=body, headers=headers)


def map_of(client: TestClient, turns: int = 0, **query: str) -> NDArray[Any]:
    content = post(client, turns, **query).content
    return np.asarray(Image.open(BytesIO(content), formats=("PNG",)))


def foreground(folder: Path, model: str, averaging: Averaging) -> NDArray[np.float32]:
    """Give the probabilities of every class but class 0 without a service."""
    runtime = Runtime(folder / f"{model}.onnx", "cpu", 1)
    return probabilities(PIXELS[np.newaxis], runtime, TileShapes(TILE_EDGE**2), averaging)[1:]


def same_parts(found: NDArray[Any], wanted: NDArray[Any]) -> bool:
    """Say whether two maps divide an image alike, whatever their numbers, with one background."""
    pairs = set(zip(found.ravel().tolist(), wanted.ravel().tolist(), strict=True))
    return (0, 0) in pairs and len(pairs) == len(np.unique(found)) == len(np.unique(wanted))


@pytest.mark.parametrize("averaging", ["none", "rotations"])
def test_objects_are_those_of_the_manifest_s_rule(
    models: TestClient, folder: Path, averaging: Averaging
) -> None:
    wanted = separate(foreground(folder, "objects", averaging)[0], THRESHOLD, RULE)

    found = map_of(models, model="objects", output="instances", average=averaging)

    assert wanted.max() > 10
    np.testing.assert_array_equal(found, wanted)


def test_objects_are_a_grey_png_of_16_bits(models: TestClient) -> None:
    content = post(models, model="objects", output="instances").content
    bits, colour_type = content[24], content[25]  # of the IHDR chunk
    assert (bits, colour_type) == (16, 0)


@pytest.mark.filterwarnings(PYCOCOTOOLS_KNOWS_NUMPY_1)
@pytest.mark.parametrize("model", ["objects", "classes"])
def test_the_json_of_objects_decodes_to_the_ids_of_the_png(models: TestClient, model: str) -> None:
    answer = post(models, model=model, output="instances", format="json").json()
    ids = np.zeros(answer["size"], np.uint16)
    for entry in answer["segments"]:
        mask = coco.decode(entry["rle"]).astype(bool)
        assert not ids[mask].any()
        ids[mask] = entry["id"]
    np.testing.assert_array_equal(ids, map_of(models, model=model, output="instances"))


@pytest.mark.filterwarnings(PYCOCOTOOLS_KNOWS_NUMPY_1)
def test_the_json_has_one_segment_an_object(models: TestClient) -> None:
    segments = post(models, model="objects", output="instances", format="json").json()["segments"]
    assert [entry["id"] for entry in segments] == list(range(1, len(segments) + 1))
    for entry in segments:
        assert entry["class"] == "class-1"
        assert entry["area"] == coco.area(entry["rle"]) >= RULE.smallest_area
        assert entry["bbox"] == coco.toBbox(entry["rle"]).tolist()


@pytest.mark.parametrize("averaging", ["none", "rotations"])
def test_objects_of_a_model_without_a_rule_are_components_of_its_classes(
    models: TestClient, averaging: Averaging
) -> None:
    labels = map_of(models, model="classes", average=averaging)
    wanted = measure.label(  # type: ignore[no-untyped-call]  # scikit-image has no types
        labels, background=0, connectivity=1
    )

    found = map_of(models, model="classes", output="instances", average=averaging)

    assert same_parts(found, wanted)


@pytest.mark.filterwarnings(PYCOCOTOOLS_KNOWS_NUMPY_1)
def test_an_object_of_a_model_without_a_rule_has_the_class_of_its_pixels(
    models: TestClient,
) -> None:
    labels = map_of(models, model="classes")
    segments = post(models, model="classes", output="instances", format="json").json()["segments"]
    assert {entry["class"] for entry in segments} == {"class-1", "class-2"}
    for entry in segments:
        inside = labels[coco.decode(entry["rle"]).astype(bool)]
        assert {f"class-{index}" for index in inside.tolist()} == {entry["class"]}


@pytest.mark.parametrize("model", ["classes", "objects"])
def test_averaged_labels_are_decided_from_the_averaged_probabilities(
    models: TestClient, folder: Path, model: str
) -> None:
    threshold = {"classes": None, "objects": THRESHOLD}[model]
    wanted = decide(foreground(folder, model, "rotations"), threshold)

    found = map_of(models, model=model, average="rotations")

    np.testing.assert_array_equal(found, wanted)
    assert not np.array_equal(found, map_of(models, model=model, average="none"))


def test_averaged_labels_of_a_turned_image_are_the_turned_labels(models: TestClient) -> None:
    # Sums in another order round otherwise, so that a pixel at the threshold may differ.
    turned = map_of(models, 1, model="classes", average="rotations")
    upright = map_of(models, model="classes", average="rotations")
    assert (turned != np.rot90(upright)).sum() <= 2


@pytest.mark.parametrize(
    ("model", "query", "used"),
    [
        ("classes", {}, "none"),
        ("classes", {"average": "rotations"}, "rotations"),
        ("averages", {}, "rotations"),
        ("averages", {"average": "none"}, "none"),
    ],
)
def test_the_manifest_says_whether_to_average_unless_the_request_does(
    models: TestClient, model: str, query: dict[str, str], used: Averaging
) -> None:
    answer = post(models, model=model, **query)  # type: ignore[arg-type]  # no key is `turns`
    assert answer.headers["x-averaging"] == used
    assert answer.content == post(models, model=model, average=used).content


@pytest.mark.parametrize("output", ["labels", "instances"])
@pytest.mark.parametrize("averaging", ["none", "rotations"])
def test_an_answer_says_what_was_done(
    models: TestClient, output: str, averaging: Averaging
) -> None:
    answer = post(models, model="objects", output=output, average=averaging, format="json")
    described = answer.json()
    assert (described["output"], described["averaging"]) == (output, averaging)
    assert (answer.headers["x-output"], answer.headers["x-averaging"]) == (output, averaging)


def test_an_image_in_which_nothing_is_found_has_no_segments(models: TestClient) -> None:
    answer = post(models, model="nothing", output="instances", format="json").json()
    assert (answer["size"], answer["segments"]) == ([150, 110], [])
    assert not map_of(models, model="nothing", output="instances").any()


def test_more_objects_than_a_png_can_number_are_a_problem_that_names_the_other_format(
    models: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(masks, "LARGEST_ID", 9)
    answer = post_unchecked(models, model="objects", output="instances")
    problem = answer.json()
    assert (answer.status_code, problem["type"]) == (422, "urn:unet-service:objects-too-many")
    assert "format=json" in problem["detail"]
    other = post(models, model="objects", output="instances", format="json")
    assert len(other.json()["segments"]) > 9
