"""The shipped models are what their cards say."""

import numpy as np
import pytest
from PIL import Image

from model.runtime import Runtime
from model.segmentation import DEFAULT_TILE_EDGE, segment
from model.tiling import tile_edges
from service.models import Models
from service.settings import Settings
from tests.conftest import DATA, ROOT
from training.dataset import read_dataset
from training.evaluate import choose_images, evaluate

PRETRAINED = ROOT / "model" / "pretrained"
SAMPLE = ROOT / "docs" / "samples" / "membranes"
LARGEST_BYTES = 16_000_000
BAR = 0.97


@pytest.fixture(scope="module")
def membranes() -> Runtime:
    return Runtime(PRETRAINED / "em-membranes.onnx", "cpu")


def test_every_artefact_has_a_card_and_every_card_an_artefact() -> None:
    artefacts = {path.stem for path in PRETRAINED.glob("*.onnx")}

    assert artefacts
    assert artefacts == {path.stem for path in PRETRAINED.glob("*.md")}


def test_the_card_names_the_file_its_scores_and_its_terms(membranes: Runtime) -> None:
    card = (PRETRAINED / "em-membranes.md").read_text()
    scores = membranes.manifest.scores

    assert scores is not None
    assert membranes.artefact.sha256 in card
    for name in ("v_rand", "v_info", "pixel_error"):
        assert f"{scores.values[name]:.4f}" in card
    assert membranes.manifest.training.licence in card
    assert membranes.manifest.training.command in card
    assert "non-commercial" in membranes.manifest.training.licence


def test_the_file_is_small_and_stores_its_weights_as_float16(membranes: Runtime) -> None:
    assert membranes.manifest.precision == "fp16"
    assert membranes.artefact.path.stat().st_size < LARGEST_BYTES


def test_the_scores_in_the_manifest_are_above_the_bar(membranes: Runtime) -> None:
    scores = membranes.manifest.scores

    assert scores is not None
    assert min(scores.values["v_rand"], scores.values["v_info"]) >= BAR


def test_no_image_was_both_trained_on_and_scored(membranes: Runtime) -> None:
    record = membranes.manifest.training

    assert record.validation_images
    assert not set(record.training_images) & set(record.validation_images)


def test_the_file_holds_no_path_of_the_machine_that_made_it(membranes: Runtime) -> None:
    data = membranes.artefact.path.read_bytes()

    for trace in (b"site-packages", b'.py"', b'File "', str(ROOT).encode()):
        assert trace not in data


def test_a_drawn_sample_is_segmented_right(membranes: Runtime) -> None:
    dataset = read_dataset(SAMPLE)

    scores = evaluate(membranes, dataset.images[:2]).scores

    assert scores.v_rand > 0.95
    assert scores.pixel_error < 0.15


def test_every_tile_edge_that_the_service_is_given_leads_to_the_same_labels(
    membranes: Runtime,
) -> None:
    with Image.open(SAMPLE / "images" / "membranes-000.png") as picture:
        image = np.asarray(picture)[np.newaxis, :150, :170]
    wanted = segment(image, membranes, tile_edges(membranes.manifest.geometry, DEFAULT_TILE_EDGE))

    for largest in (188, 572, 1084):
        settings = Settings(tile_edge=largest, device="cpu", model_dir=PRETRAINED)
        engine = Models.open(settings).find("em-membranes")
        assert np.array_equal(segment(image, engine.runtime, engine.edges), wanted)


def test_the_scores_are_found_again_on_the_data(membranes: Runtime) -> None:
    folder = DATA / "isbi2012"
    if not folder.is_dir():
        pytest.skip(f"no data at {folder.name}: the shipped scores are not measured again")
    images = choose_images(membranes, read_dataset(folder), everything=False)
    recorded = membranes.manifest.scores

    scores = evaluate(membranes, images).as_dict()

    assert recorded is not None
    assert tuple(entry.name for entry in images) == recorded.images
    for name in ("v_rand", "v_info", "pixel_error"):
        assert scores[name] == pytest.approx(recorded.values[name], abs=1e-4)
