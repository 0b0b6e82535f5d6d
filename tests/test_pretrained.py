"""The shipped models are what their cards say."""

import numpy as np
import pytest
from PIL import Image

from model.artefact import ScoreRecord
from model.errors import DatasetError
from model.runtime import Runtime
from model.segmentation import DEFAULT_SHAPES, segment
from service.models.models import Models
from service.settings import Settings
from tests.conftest import DATA, ROOT
from training.data.dataset import read_dataset
from training.evaluate import choose_images, evaluate

PRETRAINED = ROOT / "model" / "pretrained"
SAMPLE = ROOT / "docs" / "samples" / "membranes"
LARGEST_BYTES = 16_000_000
SHIPPED = {
    "em-membranes": ("isbi2012", {"v_rand": 0.980, "v_info": 0.985}),
    "nuclei": ("dsb2018", {"ap50": 0.74, "f1": 0.85}),
    "phase-contrast-cells": ("t98g", {"seg": 0.70, "iou_1": 0.78}),
}
"""The folder of data that each model was trained on, and what its scores must not fall below."""
AS_GOOD = 0.01
"""What a model of every image may score less on some of them than one that never saw these did."""
EXPLAINED = ("v_rand", "v_info", "seg", "ap50", "f1", "dice_1", "iou_1", "pixel_error")
"""Scores that every card names."""


@pytest.fixture(scope="module", params=SHIPPED)
def shipped(request: pytest.FixtureRequest) -> Runtime:
    return Runtime(PRETRAINED / f"{request.param}.onnx", "cpu")


@pytest.fixture(scope="module")
def membranes() -> Runtime:
    return Runtime(PRETRAINED / "em-membranes.onnx", "cpu")


def card_of(model: Runtime) -> str:
    return (PRETRAINED / f"{model.manifest.name}.md").read_text()


def scores_of(model: Runtime) -> ScoreRecord:
    scores = model.manifest.scores
    assert scores is not None
    return scores


def test_every_artefact_has_a_card_and_every_card_an_artefact() -> None:
    artefacts = {path.stem for path in PRETRAINED.glob("*.onnx")}

    assert artefacts == set(SHIPPED)
    assert artefacts == {path.stem for path in PRETRAINED.glob("*.md")}


def test_a_model_is_called_as_its_file_is(shipped: Runtime) -> None:
    assert shipped.manifest.name == shipped.artefact.path.stem


def test_the_card_names_the_file_its_command_and_its_terms(shipped: Runtime) -> None:
    card = card_of(shipped)

    assert shipped.artefact.sha256 in card
    assert shipped.manifest.training.licence in card
    assert shipped.manifest.training.citation in card
    assert shipped.manifest.training.command in card


def test_the_card_gives_the_scores_of_the_manifest(shipped: Runtime) -> None:
    card, values = card_of(shipped), scores_of(shipped).values

    for name in EXPLAINED:
        assert f"{values[name]['value']:.4f}" in card, name


def test_weights_learnt_from_non_commercial_data_say_so(membranes: Runtime) -> None:
    assert "non-commercial" in membranes.manifest.training.licence


def test_the_file_is_small_and_stores_its_weights_as_float16(shipped: Runtime) -> None:
    assert shipped.manifest.precision == "fp16"
    assert shipped.artefact.path.stat().st_size < LARGEST_BYTES


def test_the_scores_in_the_manifest_do_not_fall_below_what_they_were(shipped: Runtime) -> None:
    values = scores_of(shipped).values

    for name, bar in SHIPPED[shipped.manifest.name][1].items():
        assert values[name]["value"] >= bar, name


def test_no_image_was_both_trained_on_and_scored(shipped: Runtime) -> None:
    """A model of every image has none left: its scores are those of a file made without some."""
    record, scores = shipped.manifest.training, scores_of(shipped)

    assert scores.images
    assert len(record.training_sha256) >= len(record.training_images)
    if not record.began_from:  # otherwise those of the parent are among them
        assert len(record.training_sha256) == len(record.training_images)
    if scores.of:
        assert not record.validation_images
        assert scores.of in card_of(shipped)
    else:
        assert record.validation_images == scores.images
        assert not set(record.training_images) & set(scores.images)


def test_the_file_holds_no_path_of_the_machine_that_made_it(shipped: Runtime) -> None:
    data = shipped.artefact.path.read_bytes()

    for trace in (b"site-packages", b'.py"', b'File "', str(ROOT).encode()):
        assert trace not in data


def test_a_drawn_sample_is_segmented_right(membranes: Runtime) -> None:
    scores = evaluate(membranes, read_dataset(SAMPLE)[:2]).scores

    assert scores["v_rand"].value > 0.95
    assert scores["pixel_error"].value < 0.15


def test_every_tile_shape_that_the_service_is_given_leads_to_the_same_labels(
    membranes: Runtime,
) -> None:
    with Image.open(SAMPLE / "images" / "membranes-000.png") as picture:
        image = np.asarray(picture)[np.newaxis, :150, :170]
    wanted = segment(image, membranes, DEFAULT_SHAPES)

    for largest in (188, 572, 1084):
        settings = Settings(tile_edge=largest, device="cpu", model_dir=PRETRAINED)
        model = Models.open(settings).loaded["em-membranes"]
        assert np.array_equal(segment(image, model.runtimes[0], model.shapes), wanted)


def test_the_scores_are_found_again_on_the_data(shipped: Runtime) -> None:
    """Nearly, by a model of every image: those that are scored were among them."""
    folder = DATA / SHIPPED[shipped.manifest.name][0]
    if not folder.is_dir():
        pytest.skip(f"no data at {folder.name}: the shipped scores are not measured again")
    recorded = scores_of(shipped)
    dataset = read_dataset(folder)
    images = dataset.named(recorded.images)
    assert images.names == recorded.images

    scores = evaluate(shipped, images).as_dict()

    if recorded.of:
        with pytest.raises(DatasetError, match="was trained on every image"):
            choose_images(shipped, dataset, everything=False)
        for name in SHIPPED[shipped.manifest.name][1]:
            assert scores[name]["value"] >= recorded.values[name]["value"] - AS_GOOD, name
        return
    assert choose_images(shipped, dataset, everything=False).names == images.names
    for name in EXPLAINED:
        assert scores[name]["value"] == pytest.approx(recorded.values[name]["value"], abs=1e-3)
