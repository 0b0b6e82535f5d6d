"""Run lengths of many masks at once, held against those that pycocotools writes one by one."""

from typing import cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from pycocotools import mask as coco

from service.runs import Runs

PYCOCOTOOLS_KNOWS_NUMPY_1 = "ignore:__array__ implementation doesn't accept:DeprecationWarning"

maps = arrays.arrays(
    np.int32, arrays.array_shapes(min_dims=2, max_dims=2, max_side=20), elements=st.integers(0, 4)
)


def one_by_one(ids: NDArray[np.int32], wanted: range) -> list[bytes]:
    masks = [np.asfortranarray(ids == index).view(np.uint8) for index in wanted]
    return [cast("bytes", coco.encode(mask)["counts"]) for mask in masks]


def written(ids: NDArray[np.int32], wanted: range) -> list[bytes]:
    return [text.encode() for text in Runs.of(ids, wanted).counts()]


@pytest.mark.parametrize("wanted", [range(5), range(1, 5), range(2, 9), range(1, 1)])
@settings(deadline=None)
@given(ids=maps)
def test_masks_are_written_as_pycocotools_writes_them(
    ids: NDArray[np.int32], wanted: range
) -> None:
    assert written(ids, wanted) == one_by_one(ids, wanted)


@pytest.mark.parametrize("rarity", [1, 30, 2000])
def test_lengths_of_few_and_of_many_characters_are_written_as_pycocotools_does(
    rarity: int,
) -> None:
    ids = np.random.default_rng(0).integers(0, rarity + 1, (411, 373)).clip(0, 3).astype(np.int32)
    assert written(ids, range(4)) == one_by_one(ids, range(4))


@pytest.mark.parametrize("length", [1 << bits for bits in range(3, 25)])
@pytest.mark.parametrize("more", [-1, 0, 1])
def test_a_length_at_the_limit_of_its_characters_is_written_as_pycocotools_does(
    length: int, more: int
) -> None:
    ids = np.zeros((2 * length + 9, 1), np.int32)
    ids[[3, length + more + 4, -2]] = 1  # the differences are about ± its length
    assert written(ids, range(2)) == one_by_one(ids, range(2))


@settings(deadline=None)
@given(maps)
def test_areas_are_numbers_of_pixels(ids: NDArray[np.int32]) -> None:
    assert Runs.of(ids, range(6)).areas() == np.bincount(ids.ravel(), minlength=6).tolist()


@pytest.mark.filterwarnings(PYCOCOTOOLS_KNOWS_NUMPY_1)
@settings(deadline=None)
@given(maps)
def test_boxes_are_those_of_pycocotools(ids: NDArray[np.int32]) -> None:
    size = list(ids.shape)
    wanted = [coco.toBbox({"size": size, "counts": text}) for text in one_by_one(ids, range(6))]
    assert Runs.of(ids, range(6)).boxes() == [tuple(box) for box in np.array(wanted).tolist()]


def test_as_many_masks_as_there_are_pixels_take_one_pass_over_them() -> None:
    # One pass for each mask would read 2.7e11 pixels.
    ids = np.arange(1, 512 * 1024 + 1, dtype=np.int32).reshape(512, 1024)
    some = np.random.default_rng(0).integers(0, ids.size, 20)
    runs = Runs.of(ids, range(1, ids.size + 1))
    counts, boxes = runs.counts(), runs.boxes()
    assert runs.areas() == [1] * ids.size
    for index in some:
        row, column = divmod(int(index), 1024)
        assert boxes[index] == (column, row, 1, 1)
        assert [counts[index].encode()] == one_by_one(ids, range(index + 1, index + 2))
