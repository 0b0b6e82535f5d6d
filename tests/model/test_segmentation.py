"""One image through a model: every tiling gives the same label map."""

import numpy as np
import pytest
from numpy.typing import NDArray

from model.architecture import Architecture
from model.runtime import Runtime
from model.segmentation import Segmentation, segment, softmax
from model.tiling import Region, tile_edges
from tests.conftest import MakeArtefact

SMALL = Architecture(base_channels=4)


@pytest.fixture
def runtime(make_artefact: MakeArtefact) -> Runtime:
    return Runtime(make_artefact(SMALL, decision_threshold=0.5), "cpu", threads=1)


def micrograph(height: int, width: int) -> NDArray[np.uint8]:
    return np.random.default_rng(1).integers(0, 256, (1, height, width)).astype(np.uint8)


@pytest.mark.parametrize("shape", [(1, 1), (3, 120), (93, 93), (150, 70)])
def test_the_label_map_has_the_image_s_shape(runtime: Runtime, shape: tuple[int, int]) -> None:
    labels = segment(micrograph(*shape), runtime, [252])

    assert labels.shape == shape
    assert labels.dtype == np.uint8


@pytest.mark.parametrize("largest", [204, 316, 572])
def test_the_tile_edge_changes_no_logit_by_more_than_the_tolerance(
    runtime: Runtime, largest: int
) -> None:
    image = micrograph(97, 130)
    wanted = segment(image, runtime, [700], output="logits")

    found = segment(image, runtime, tile_edges(runtime.manifest.geometry, largest), output="logits")

    assert np.abs(found - wanted).max() < 1e-4


def test_a_region_is_scaled_and_segmented_as_part_of_its_image(runtime: Runtime) -> None:
    image = micrograph(130, 140)
    image[:, :60] //= 3
    region = Region(20, 35, 75, 101)
    whole = segment(image, runtime, [316], output="logits")

    found = segment(image, runtime, [252], region=region, output="logits")

    assert np.abs(found - whole[:, 20:75, 35:101]).max() < 1e-4


def test_labels_are_the_decision_on_the_logits(runtime: Runtime) -> None:
    image = micrograph(60, 60)
    logits = segment(image, runtime, [252], output="logits")

    assert np.array_equal(segment(image, runtime, [252]), runtime.manifest.decide(logits))


def test_tiles_may_be_written_in_any_order(runtime: Runtime) -> None:
    image = micrograph(100, 100)
    work = Segmentation.begin(image, runtime.manifest, [252])
    for tile in reversed(work.plan.tiles):
        work.write(tile, runtime.run(work.read(tile)[None])[0])

    assert len(work.plan.tiles) > 1
    assert np.array_equal(work.canvas, segment(image, runtime, [252]))


def test_the_softmax_survives_large_logits() -> None:
    logits = np.array([[[1000.0]], [[1001.0]]], np.float32)

    found = softmax(logits)

    assert found.sum() == pytest.approx(1)
    assert found[1, 0, 0] == pytest.approx(1 / (1 + np.exp(-1)))
