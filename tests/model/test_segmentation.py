"""One image through a model: every tiling gives the same label map."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from skimage import measure

from model import segmentation
from model.architecture import Architecture
from model.artefact import Averaging, Manifest
from model.geometry import Geometry
from model.instances import InstanceRule
from model.planner import TileShapes
from model.runtime import Runtime
from model.segmentation import (
    Output,
    Segmentation,
    Wanted,
    decide,
    output_for,
    segment,
    softmax,
)
from model.tiling import Region
from tests.conftest import MakeArtefact, manifest_of, square

SMALL = Architecture(base_channels=4)


@pytest.fixture
def runtime(make_artefact: MakeArtefact) -> Runtime:
    return Runtime(make_artefact(SMALL, decision_threshold=0.5), "cpu", threads=1)


def micrograph(height: int, width: int) -> NDArray[np.uint8]:
    return np.random.default_rng(1).integers(0, 256, (1, height, width)).astype(np.uint8)


@pytest.mark.parametrize("shape", [(1, 1), (3, 120), (93, 93), (150, 70)])
def test_the_label_map_has_the_image_s_shape(runtime: Runtime, shape: tuple[int, int]) -> None:
    labels = segment(micrograph(*shape), runtime, square(252))

    assert labels.shape == shape
    assert labels.dtype == np.uint8


@pytest.mark.parametrize(
    "shapes",
    [
        TileShapes(204**2),
        TileShapes(204 * 300),
        TileShapes(572**2),
        TileShapes.fixed(Geometry(SMALL.depth), 316),
    ],
)
def test_the_tile_shape_changes_no_logit_by_more_than_the_tolerance(
    runtime: Runtime, shapes: TileShapes
) -> None:
    image = micrograph(97, 130)
    wanted = segment(image, runtime, square(700), output="logits")

    found = segment(image, runtime, shapes, output="logits")

    assert np.abs(found - wanted).max() < 1e-4


def test_a_region_is_scaled_and_segmented_as_part_of_its_image(runtime: Runtime) -> None:
    image = micrograph(130, 140)
    image[:, :60] //= 3
    region = Region(20, 35, 75, 101)
    whole = segment(image, runtime, square(316), output="logits")

    found = segment(image, runtime, square(252), region=region, output="logits")

    assert np.abs(found - whole[:, 20:75, 35:101]).max() < 1e-4


def test_labels_are_the_decision_on_the_logits(runtime: Runtime) -> None:
    image = micrograph(60, 60)
    logits = segment(image, runtime, square(252), output="logits")

    assert np.array_equal(segment(image, runtime, square(252)), runtime.manifest.decide(logits))


def test_tiles_may_be_written_in_any_order(runtime: Runtime) -> None:
    image = micrograph(100, 100)
    work = Segmentation.begin(image, runtime.manifest, square(252))
    for tile in reversed(work.plan.tiles):
        work.write(tile, runtime.run(work.read(tile)[None])[0])

    assert len(work.plan.tiles) > 1
    assert np.array_equal(work.canvas, segment(image, runtime, square(252)))


def test_the_softmax_survives_large_logits() -> None:
    logits = np.array([[[1000.0]], [[1001.0]]], np.float32)

    found = softmax(logits)

    assert found.sum() == pytest.approx(1)
    assert found[1, 0, 0] == pytest.approx(1 / (1 + np.exp(-1)))


def test_probabilities_are_the_softmax_of_the_logits(runtime: Runtime) -> None:
    image = micrograph(100, 60)
    wanted = softmax(segment(image, runtime, square(252), output="logits"))

    found = segment(image, runtime, square(252), output="probabilities")

    np.testing.assert_array_equal(found, wanted)


def test_the_foreground_is_the_probability_of_every_class_but_class_0(runtime: Runtime) -> None:
    image = micrograph(100, 60)
    probabilities = segment(image, runtime, square(252), output="probabilities")

    foreground = segment(image, runtime, square(252), output="foreground")

    np.testing.assert_array_equal(foreground, probabilities[1:])


def logits_of(classes: int) -> st.SearchStrategy[NDArray[np.float32]]:
    """Draw logits of pixels whose classes are not so close that rounding decides."""
    values = st.integers(-40, 40).map(lambda value: value / 8)
    return arrays.arrays(np.float32, (classes, 3, 4), elements=values)


@settings(deadline=None)
@given(logits_of(2), st.sampled_from([0.03, 0.3, 0.61, 0.97]))
def test_a_threshold_decides_on_probabilities_as_on_logits(
    logits: NDArray[np.float32], threshold: float
) -> None:
    manifest = manifest_of(Architecture(), decision_threshold=threshold)

    labels = decide(softmax(logits)[1:], threshold)

    np.testing.assert_array_equal(labels, manifest.decide(logits))
    assert labels.dtype == np.uint8


@pytest.mark.parametrize("classes", [2, 3, 4])
def test_the_most_probable_class_wins_as_on_logits(classes: int) -> None:
    logits = np.random.default_rng(0).normal(size=(classes, 50, 60)).astype(np.float32)
    manifest = manifest_of(Architecture(num_classes=classes))

    labels = decide(softmax(logits)[1:], None)

    assert set(np.unique(labels)) == set(range(classes))
    np.testing.assert_array_equal(labels, manifest.decide(logits))


def test_of_equally_probable_classes_the_first_wins() -> None:
    thirds = np.full((3, 1, 2), 0.25, np.float32)
    thirds[1:, 0, 1] = 0.375

    assert decide(thirds, None).tolist() == [[0, 2]]


@pytest.mark.parametrize(
    ("wanted", "rule", "averaging", "output"),
    [
        ("labels", None, "none", "labels"),
        ("labels", InstanceRule(), "none", "labels"),
        ("labels", None, "rotations", "foreground"),
        ("instances", None, "none", "labels"),
        ("instances", None, "rotations", "foreground"),
        ("instances", InstanceRule(), "none", "foreground"),
        ("instances", InstanceRule(), "rotations", "foreground"),
    ],
)
def test_a_canvas_holds_no_more_than_what_is_wanted_needs(
    wanted: Wanted, rule: InstanceRule | None, averaging: Averaging, output: Output
) -> None:
    assert output_for(wanted, manifest_of(Architecture(), instances=rule), averaging) == output


def test_the_foreground_of_two_classes_is_a_single_map() -> None:
    manifest = manifest_of(Architecture())
    begun = Segmentation.begin(micrograph(20, 30), manifest, square(252), output="foreground")

    assert begun.canvas.shape == (1, 20, 30)
    assert begun.canvas.dtype == np.float32


def full(manifest: Manifest, canvas: NDArray[Any], output: Output) -> Segmentation:
    """Give a segmentation whose tiles are all written."""
    begun = Segmentation.begin(micrograph(*canvas.shape[-2:]), manifest, square(252), output=output)
    begun.canvas[...] = canvas
    return begun


def test_labels_are_decided_from_the_foreground_by_the_manifest_s_threshold() -> None:
    manifest = manifest_of(Architecture(), decision_threshold=0.7)
    foreground = np.array([[[0.6, 0.7, 0.8]]], np.float32)

    assert full(manifest, foreground, "foreground").labels().tolist() == [[0, 1, 1]]


def test_without_a_rule_objects_are_the_components_of_every_class_but_class_0() -> None:
    labels = np.random.default_rng(0).integers(0, 3, (40, 50)).astype(np.uint8)
    manifest = manifest_of(Architecture(num_classes=3))
    wanted = measure.label(  # type: ignore[no-untyped-call]  # scikit-image has no types
        labels, background=0, connectivity=1
    )

    objects = full(manifest, labels, "labels").objects()

    pairs = set(zip(objects.ids.ravel().tolist(), wanted.ravel().tolist(), strict=True))
    assert len(pairs) == wanted.max() + 1 == objects.ids.max() + 1
    np.testing.assert_array_equal(np.append(0, objects.classes)[objects.ids], labels)


@pytest.mark.parametrize("rule", [None, InstanceRule()])
def test_an_image_without_foreground_has_no_objects(rule: InstanceRule | None) -> None:
    manifest = manifest_of(Architecture(num_classes=3), instances=rule)

    objects = full(manifest, np.zeros((2, 5, 6), np.float32), "foreground").objects()

    assert objects.shape == (5, 6)
    assert not objects.ids.any()
    assert objects.classes.size == 0


@pytest.mark.parametrize(("threshold", "used"), [(0.3, 0.3), (None, 0.5)])
def test_a_rule_separates_the_foreground_at_the_decision_threshold(
    monkeypatch: pytest.MonkeyPatch, threshold: float | None, used: float
) -> None:
    rule = InstanceRule(smallest_area=7)
    manifest = manifest_of(Architecture(), decision_threshold=threshold, instances=rule)
    foreground = np.random.default_rng(0).random((1, 5, 6), np.float32)
    ids = np.arange(30, dtype=np.int32).reshape(5, 6)

    def separate(found: NDArray[np.float32], at: float, by: InstanceRule) -> NDArray[np.int32]:
        np.testing.assert_array_equal(found, foreground[0])
        assert (at, by) == (used, rule)
        return ids

    monkeypatch.setattr(segmentation, "separate", separate)
    objects = full(manifest, foreground, "foreground").objects()

    assert objects.ids is ids
    assert objects.classes.tolist() == [1] * 29


def test_an_object_has_the_class_of_most_of_its_pixels() -> None:
    manifest = manifest_of(Architecture(num_classes=3), instances=InstanceRule())
    foreground = np.zeros((2, 3, 9), np.float32)
    foreground[:, :, 1:4] = np.array([0.1, 0.6])[:, None, None]
    foreground[:, :, 5:8] = np.array([0.6, 0.1])[:, None, None]
    foreground[:, 1, [1, 6]] = 0.2, 0.3

    objects = full(manifest, foreground, "foreground").objects()

    assert objects.ids[0].tolist() == [0, 1, 1, 1, 0, 2, 2, 2, 0]
    assert objects.classes.tolist() == [2, 1]
