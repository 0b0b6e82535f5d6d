"""Layers over an image: what is right is quiet, what is wrong has the colour of its error."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import ImageColor

from model.intensity import IntensityRule
from tests.training.drawn import MASKS
from tests.training.shown import pictures as decoded
from training.report import painting, pictures
from training.report.fates import Fates

Mask = NDArray[np.bool_]


def boxes(*places: tuple[slice, slice]) -> NDArray[np.intp]:
    """Draw boxes with the ids 1, 2, …."""
    ids = np.zeros((30, 40), np.intp)
    for number, place in enumerate(places, 1):
        ids[place] = number
    return ids


LEFT, RIGHT = np.s_[4:16, 4:16], np.s_[4:16, 17:29]
BOTH, BELOW = np.s_[4:16, 4:29], np.s_[20:28, 4:12]


def errors(found: NDArray[np.intp], annotated: NDArray[np.intp]) -> painting.Layer:
    return painting.paint_object_errors(found, annotated, Fates.of(found, annotated))


def is_painted(layer: painting.Layer, colour: str) -> Mask:
    alike = (layer[..., :3] == ImageColor.getrgb(colour)).all(axis=2)
    return np.asarray(alike & (layer[..., 3] > 0))


def test_a_missed_object_is_filled_red_and_an_extra_one_blue() -> None:
    found, annotated = boxes(LEFT), boxes(BELOW)
    layer = errors(found, annotated)
    np.testing.assert_array_equal(is_painted(layer, painting.ERRORS["missed"]), annotated > 0)
    np.testing.assert_array_equal(is_painted(layer, painting.ERRORS["extra"]), found > 0)


def test_a_missed_object_is_seen_inside_an_extra_one() -> None:
    layer = errors(boxes(np.s_[0:30, 0:40]), boxes(BELOW))
    assert is_painted(layer, painting.ERRORS["missed"])[BELOW].all()


def test_merged_objects_are_filled_and_the_outlines_between_them_stand_out() -> None:
    layer = errors(boxes(BOTH), boxes(LEFT, RIGHT))
    merged = is_painted(layer, painting.ERRORS["merged"])
    np.testing.assert_array_equal(merged, boxes(BOTH) > 0)
    assert layer[10, 10, 3] < layer[10, 15, 3] == layer[10, 17, 3] == painting.OPAQUE


def test_split_objects_are_filled() -> None:
    layer = errors(boxes(LEFT, RIGHT), boxes(BOTH))
    np.testing.assert_array_equal(is_painted(layer, painting.ERRORS["split"]), boxes(BOTH) > 0)


def test_a_matched_object_is_no_more_than_an_outline() -> None:
    layer = errors(boxes(LEFT), boxes(LEFT))
    np.testing.assert_array_equal(layer[..., 3] > 0, painting.outlines(boxes(LEFT)))
    assert layer[LEFT][1:-1, 1:-1].sum() == 0


@given(MASKS)
def test_an_outline_is_what_erosion_takes_away(mask: Mask) -> None:
    padded = np.pad(mask, 1, mode="edge")
    kept = mask & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    np.testing.assert_array_equal(painting.outlines(mask.astype(np.intp)), mask & ~kept)


def test_objects_that_touch_are_outlined_on_both_sides() -> None:
    outlined = painting.outlines(np.array([[1, 1, 2, 2]]))
    assert outlined.tolist() == [[False, True, True, False]]


def test_partners_have_one_colour_and_an_object_without_one_has_its_own() -> None:
    annotated, found = boxes(LEFT, RIGHT), boxes(BELOW, RIGHT, LEFT)
    drawn, made = painting.colour_objects(Fates.of(found, annotated))
    assert made[2].tolist() == drawn[2].tolist()
    assert made[3].tolist() == drawn[1].tolist()
    assert made[1].tolist() not in drawn[1:].tolist()


def test_pixels_are_coloured_by_their_error() -> None:
    semantic = np.array([[0, 0, 1, 1, 2, 2]], np.uint8)
    labels = np.array([[0, 1, 0, 1, 1, 2]], np.uint8)
    layer = painting.paint_pixel_errors(labels, semantic, None)
    assert np.flatnonzero(layer[..., 3]).tolist() == [1, 2, 4]
    assert is_painted(layer, painting.ERRORS["extra"])[0, 1]
    assert is_painted(layer, painting.ERRORS["missed"])[0, 2]
    assert is_painted(layer, painting.ERRORS["other class"])[0, 4]


def test_what_is_ignored_is_no_error_and_is_hatched() -> None:
    ignored = np.zeros((16, 16), bool)
    ignored[:, :8] = True
    labels = np.ones((16, 16), np.uint8)
    layer = painting.paint_pixel_errors(labels, np.zeros((16, 16), np.uint8), ignored)
    np.testing.assert_array_equal(layer[..., 3] > 0, ~ignored)
    painting.hatch(layer, ignored)
    assert 0.2 < is_painted(layer, painting.PALE)[ignored].mean() < 0.5
    assert not is_painted(layer, painting.PALE)[~ignored].any()


def test_classes_have_the_colours_of_the_manifest_and_class_0_has_none() -> None:
    layer = painting.paint_classes(
        np.array([[0, 1, 2]], np.uint8), ["#000000", "#010203", "#ff0000"]
    )
    assert layer[0, :, 3].tolist() == [0, painting.FILLED, painting.FILLED]
    assert layer[0, 1:, :3].tolist() == [[1, 2, 3], [255, 0, 0]]


@given(st.integers(1, 5000), st.integers(1, 5000))
def test_a_picture_is_never_large_and_keeps_its_proportions(height: int, width: int) -> None:
    drawn = pictures.drawn_size((height, width))
    assert 1 <= min(drawn) <= max(drawn) <= pictures.LARGEST_EDGE
    assert max(drawn) > pictures.LARGEST_EDGE / 2
    factor = max(drawn) / max(height, width)
    assert drawn == pytest.approx((height * factor, width * factor), abs=1)


def test_a_magnified_map_repeats_its_pixels_and_a_smaller_one_leaves_some_out() -> None:
    labels = np.arange(6).reshape(2, 3)
    np.testing.assert_array_equal(
        pictures.resample(labels, (4, 6)), labels.repeat(2, axis=0).repeat(2, axis=1)
    )
    np.testing.assert_array_equal(
        pictures.resample(np.arange(16).reshape(4, 4), (2, 2)), [[0, 2], [8, 10]]
    )


@pytest.mark.parametrize(("channels", "shape"), [(3, (40, 60, 3)), (1, (40, 60)), (5, (40, 60))])
def test_colour_is_shown_in_colour_and_all_else_by_the_first_channel(
    channels: int, shape: tuple[int, ...]
) -> None:
    image = np.random.default_rng(0).integers(0, 60000, (channels, 40, 60)).astype(np.uint16)
    uri = pictures.photograph(image, IntensityRule())
    (shown,) = decoded(f'href="{uri}"', "jpeg")
    assert shown.shape == shape
    wanted = np.moveaxis(image, 0, 2) if channels == 3 else image[0]
    assert np.corrcoef(shown.ravel(), wanted.ravel())[0, 1] > 0.98


def test_a_large_image_is_shown_small() -> None:
    image = np.random.default_rng(0).integers(0, 256, (1, 600, 1200), np.uint8)
    (shown,) = decoded(f'href="{pictures.photograph(image, IntensityRule())}"', "jpeg")
    assert shown.shape == (256, 512)
