"""Test-time averaging: an image in all its rotations and mirrors."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from model.architecture import Architecture
from model.averaging import begin, probabilities
from model.intensity import IntensityRule
from model.planner import TileShapes, work
from model.runtime import Runtime
from model.segmentation import Output, segment, softmax
from tests.conftest import MakeArtefact, manifest_of, square

SMALL = Architecture(base_channels=4, num_classes=3)
MANIFEST = manifest_of(SMALL)
ROUNDING = 1e-5

Pixels = NDArray[Any]
Move = Callable[[Pixels], Pixels]


def upside_down(array: Pixels) -> Pixels:
    return array[:, ::-1]


def mirrored(array: Pixels) -> Pixels:
    return array[:, :, ::-1]


def transposed(array: Pixels) -> Pixels:
    return array.transpose(0, 2, 1)


MOVES: list[list[Move]] = [
    [],
    [mirrored],
    [upside_down],
    [upside_down, mirrored],
    [transposed],
    [transposed, mirrored],
    [transposed, upside_down],
    [transposed, upside_down, mirrored],
]
"""The eight rotations and mirrors; each move is its own inverse."""


@pytest.fixture
def runtime(make_artefact: MakeArtefact) -> Runtime:
    return Runtime(make_artefact(SMALL), "cpu", threads=1)


def micrograph(height: int, width: int, channels: int = 1) -> NDArray[np.uint8]:
    rng = np.random.default_rng(1)
    image = rng.integers(0, 200, (channels, height, width)).astype(np.uint8)
    image[:, : height // 3] += 55  # so that up is not down
    return image


def test_without_averaging_there_are_the_probabilities_of_one_pass(runtime: Runtime) -> None:
    image = micrograph(70, 101)
    wanted = softmax(segment(image, runtime, square(252), output="logits"))

    np.testing.assert_array_equal(probabilities(image, runtime, square(252), "none"), wanted)


def test_the_average_is_the_mean_over_eight_images_segmented_one_by_one(runtime: Runtime) -> None:
    image = micrograph(70, 101)
    wanted = np.zeros((3, 70, 101))
    for moves in MOVES:
        turned: Pixels = image
        for move in moves:
            turned = move(turned)
        found = softmax(segment(turned.copy(), runtime, square(252), output="logits"))
        for move in reversed(moves):
            found = move(found)
        wanted += found / len(MOVES)

    averaged = probabilities(image, runtime, square(252), "rotations")

    assert averaged.shape == (3, 70, 101)
    assert averaged.dtype == np.float32
    assert np.abs(averaged - wanted).max() < ROUNDING
    assert (
        np.abs(averaged - probabilities(image, runtime, square(252), "none")).max() > 100 * ROUNDING
    )


@pytest.mark.parametrize("moves", MOVES[1:])
def test_the_average_of_a_turned_image_is_the_turned_average(
    runtime: Runtime, moves: list[Move]
) -> None:
    turned: Pixels = micrograph(40, 61)
    wanted: Pixels = probabilities(turned, runtime, square(252), "rotations")
    for move in moves:
        turned, wanted = move(turned), move(wanted)

    found = probabilities(turned, runtime, square(252), "rotations")

    assert np.abs(found - wanted).max() < ROUNDING


@pytest.mark.parametrize(
    "shapes", [TileShapes(204**2), TileShapes(204 * 300), TileShapes.fixed(MANIFEST.geometry, 316)]
)
def test_the_tile_shape_changes_no_average(runtime: Runtime, shapes: TileShapes) -> None:
    image = micrograph(97, 130)
    wanted = probabilities(image, runtime, square(572), "rotations")

    found = probabilities(image, runtime, shapes, "rotations")

    assert np.abs(found - wanted).max() < 1e-4


def test_averaged_probabilities_sum_to_1(runtime: Runtime) -> None:
    sums = probabilities(micrograph(50, 60), runtime, square(252), "rotations").sum(axis=0)

    assert np.abs(sums - 1).max() < ROUNDING


def test_colours_are_averaged_as_grey_is(make_artefact: MakeArtefact) -> None:
    colours = Architecture(in_channels=3, base_channels=4, num_classes=3)
    runtime = Runtime(make_artefact(colours), "cpu", threads=1)
    image = micrograph(30, 41, channels=3)

    found = probabilities(mirrored(image), runtime, square(252), "rotations")

    wanted = mirrored(probabilities(image, runtime, square(252), "rotations"))
    assert np.abs(found - wanted).max() < ROUNDING


def test_the_averaged_foreground_is_the_average_without_class_0(runtime: Runtime) -> None:
    image = micrograph(50, 60)
    passes = begin(image, MANIFEST, square(252), averaging="rotations", output="foreground")
    for each in passes:
        each.complete(runtime)

    wanted = probabilities(image, runtime, square(252), "rotations")[1:]
    np.testing.assert_array_equal(passes[0].canvas, wanted)


def test_the_eight_passes_see_eight_different_images() -> None:
    passes = begin(
        micrograph(20, 20), MANIFEST, square(252), averaging="rotations", output="foreground"
    )

    assert len({each.image.tobytes() for each in passes}) == 8


def test_passes_share_the_image_and_one_canvas() -> None:
    image = micrograph(20, 30)

    first, *others = begin(image, MANIFEST, square(252), averaging="rotations", output="foreground")

    assert first.canvas.shape == (2, 20, 30)
    for each in (first, *others):
        assert np.shares_memory(each.image, image)
        assert np.shares_memory(each.canvas, first.canvas)


@pytest.mark.parametrize("shapes", [TileShapes(1212**2), TileShapes.fixed(MANIFEST.geometry, 1212)])
@pytest.mark.parametrize(
    ("height", "width"), [(1, 1), (1, 3000), (516, 517), (700, 1500), (1029, 1028), (2100, 90)]
)
def test_all_passes_cost_the_same(height: int, width: int, shapes: TileShapes) -> None:
    image = np.broadcast_to(np.uint8(0), (1, height, width))
    manifest = manifest_of(SMALL, intensity=IntensityRule(kind="range", low=0, high=255))

    passes = begin(image, manifest, shapes, averaging="rotations", output="foreground")

    assert len({work(each.plan, SMALL) for each in passes}) == 1
    assert len({len(each.plan.tiles) for each in passes}) == 1


@pytest.mark.parametrize("output", ["labels", "logits"])
def test_only_probabilities_can_be_averaged(output: Output) -> None:
    with pytest.raises(ValueError, match=f"only probabilities can be averaged; found {output}"):
        begin(micrograph(20, 30), MANIFEST, square(252), averaging="rotations", output=output)
