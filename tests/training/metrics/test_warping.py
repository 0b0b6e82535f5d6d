"""The warping error: what may be flipped, what stays, and what is left."""

import math
from dataclasses import dataclass, field
from typing import Self

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy import ndimage

from tests.training.drawn import MASKS, blocks, discs, with_borders
from training.data.labels import objects_of
from training.metrics.warping import Mask, part, warp, warping_error

FOUR, EIGHT = ndimage.generate_binary_structure(2, 1), ndimage.generate_binary_structure(2, 2)
TINY = arrays(np.bool_, (3, 4))


def topology(mask: Mask) -> tuple[int, int]:
    """Count objects and the components of their background, that outside of the image included."""
    around = np.pad(mask, 1)
    return ndimage.label(around, FOUR)[1], ndimage.label(~around, EIGHT)[1]


def is_simple(mask: Mask, row: int, column: int) -> bool:
    """Count the components around a pixel, by the definition of Bertrand 1994."""
    ring = np.pad(mask, 1)[row : row + 3, column : column + 3].copy()
    ring[1, 1] = False
    beside, _ = ndimage.label(ring, FOUR)
    outside = ~ring
    outside[1, 1] = False
    touching = {int(beside[place]) for place in ((0, 1), (1, 0), (1, 2), (2, 1))} - {0}
    return len(touching) == 1 and ndimage.label(outside, EIGHT)[1] == 1


@dataclass
class Ways:
    """All ways to deform a tiny reference by one simple pixel that differs after the other."""

    reached: set[bytes] = field(default_factory=set)
    """Every image on a way."""
    left: set[int] = field(default_factory=set)
    """Pixels that differ at the end of a way."""

    @classmethod
    def of(cls, reference: Mask, found: Mask) -> Self:
        """Try every order, by brute force."""
        ways, waiting = cls({reference.tobytes()}), [reference]
        while waiting:
            mask = waiting.pop()
            differing = np.argwhere(mask != found)
            places = [place for place in differing if is_simple(mask, *place)]
            if not places:
                ways.left.add(len(differing))
            for row, column in places:
                flipped = mask.copy()
                flipped[row, column] ^= True
                if flipped.tobytes() not in ways.reached:
                    ways.reached.add(flipped.tobytes())
                    waiting.append(flipped)
        return ways


def frame(gap: int | None = None) -> Mask:
    """Two cells with a border of 3 px between them, with a hole of 1 px at the row of the gap."""
    mask = np.ones((21, 31), bool)
    mask[:, 14:17] = False
    if gap is not None:
        mask[gap, 14:17] = True
    return mask


@settings(deadline=None)
@given(MASKS, MASKS)
def test_warping_keeps_the_topology_of_the_reference(reference: Mask, found: Mask) -> None:
    assert topology(warp(reference, found)) == topology(reference)


@settings(deadline=None)
@given(MASKS, MASKS)
def test_warping_ends_where_no_pixel_that_differs_is_simple(reference: Mask, found: Mask) -> None:
    warped = warp(reference, found)
    assert not [place for place in np.argwhere(warped != found) if is_simple(warped, *place)]


@settings(deadline=None)
@given(MASKS, MASKS)
def test_warping_changes_nothing_that_agreed(reference: Mask, found: Mask) -> None:
    warped = warp(reference, found)
    assert not ((warped != found) & (reference == found)).any()


@settings(deadline=None)
@given(MASKS, MASKS, MASKS)
def test_pixels_that_may_not_be_flipped_stay(reference: Mask, found: Mask, allowed: Mask) -> None:
    warped = warp(reference, found, allowed)
    np.testing.assert_array_equal(warped[~allowed], reference[~allowed])
    assert topology(warped) == topology(reference)


@settings(deadline=None, max_examples=40)
@given(TINY, TINY)
def test_warping_takes_one_of_the_ways_that_there_are(reference: Mask, found: Mask) -> None:
    """One pixel at a time, though it flips many at once."""
    assert warp(reference, found).tobytes() in Ways.of(reference, found).reached


@settings(deadline=None, max_examples=40)
@given(TINY, TINY)
def test_the_error_is_never_below_that_of_the_best_way(reference: Mask, found: Mask) -> None:
    """Nor above that of the worst: it is greedy, and exact where all ways end alike."""
    left, pixels = Ways.of(reference, found).left, round(warping_error(found, reference) * 12)
    assert min(left) <= pixels <= max(left)


@given(MASKS)
def test_the_same_mask_has_no_error(mask: Mask) -> None:
    assert warping_error(mask, mask) == 0.0


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_cells_that_shrank_have_no_error(steps: int) -> None:
    reference = with_borders(blocks(3, 7)) > 0
    kept = [ndimage.binary_erosion(objects_of(reference.astype(int)) == 1, iterations=steps)]
    found = np.logical_or.reduce(kept) | (reference & (objects_of(reference.astype(int)) != 1))
    assert topology(found) == topology(reference)
    assert found.sum() < reference.sum()
    assert warping_error(found, reference) == 0.0


def test_a_border_drawn_thinner_or_thicker_has_no_error() -> None:
    thin, thick = np.ones((21, 31), bool), np.ones((21, 31), bool)
    thin[:, 15], thick[:, 11:20] = False, False
    for found in (thin, thick):
        assert warping_error(found, frame()) == 0.0


def test_cells_merged_through_a_gap_have_an_error_of_one_pixel() -> None:
    assert warping_error(frame(gap=10), frame()) == pytest.approx(1 / frame().size)


def test_a_cell_split_by_a_line_has_an_error_of_the_lines_width() -> None:
    reference = np.ones((21, 31), bool)
    assert warping_error(frame(), reference) == pytest.approx(3 / reference.size)


def test_an_object_that_was_missed_has_an_error_of_the_pixel_that_is_left() -> None:
    reference = np.zeros((20, 20), bool)
    reference[5:12, 5:12] = True
    assert warping_error(np.zeros_like(reference), reference) == pytest.approx(1 / 400)


def test_an_object_found_where_there_is_none_is_an_error_with_all_its_pixels() -> None:
    found = np.zeros((20, 20), bool)
    found[5:12, 5:12] = True
    assert warping_error(found, np.zeros_like(found)) == pytest.approx(49 / 400)


def test_a_hole_in_a_cell_is_an_error_with_all_its_pixels() -> None:
    found = np.ones((20, 20), bool)
    found[8:12, 8:12] = False
    assert warping_error(found, np.ones_like(found)) == pytest.approx(16 / 400)


def test_a_bridge_by_a_corner_merges_nothing() -> None:
    mask = np.eye(6, dtype=bool)
    assert topology(warp(mask, mask))[0] == 6
    assert warping_error(np.rot90(mask), np.rot90(mask)) == 0.0


def test_ignored_pixels_are_no_errors() -> None:
    gap = np.zeros(frame().shape, bool)
    gap[10, 14:17] = True
    assert warping_error(frame(gap=10) & ~gap, frame() & ~gap, ~gap) == 0.0


def test_where_every_pixel_is_ignored_there_is_no_warping_error() -> None:
    mask = np.ones((3, 3), bool)
    assert math.isnan(warping_error(mask, mask, ~mask))


def test_masks_of_different_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"differ in shape: \(3, 4\), \(3, 3\)"):
        warp(np.ones((3, 4), bool), np.ones((3, 3), bool))


@pytest.mark.parametrize("ids", [blocks(0, 9), discs(1, 3.0), np.array([[1, 2], [2, 1]])])
def test_objects_that_touch_are_parted_and_nothing_else_changes(ids: NDArray[np.int32]) -> None:
    mask = part(ids)
    neighbours = [(ids[:-1], ids[1:], mask[:-1] & mask[1:])]
    neighbours += [(ids[:, :-1], ids[:, 1:], mask[:, :-1] & mask[:, 1:])]
    for one, other, both in neighbours:
        np.testing.assert_array_equal(one[both], other[both])
    assert not mask[ids == 0].any()
    inside = with_borders(ids) > 0
    np.testing.assert_array_equal(mask[inside], True)


def test_objects_that_do_not_touch_are_left_as_they_are() -> None:
    ids = with_borders(blocks(0, 9))
    np.testing.assert_array_equal(part(ids), ids != 0)
