"""Scores against scikit-image, against naive counting, and by their properties."""

import json
import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage, stats
from skimage import metrics

from model.errors import DatasetError
from training.metrics import (
    THRESHOLDS,
    Contingency,
    Scores,
    intersection_over_union,
    pixel_error,
    score_label_maps,
    sweep_thresholds,
    thin_borders,
)

Ids = NDArray[np.integer[Any]]

independent: Any = metrics  # scikit-image gives these functions no types


def rand_score(segments: Ids, reference: Ids) -> float:
    return Contingency.of(segments, reference).v_rand


def information_score(segments: Ids, reference: Ids) -> float:
    return Contingency.of(segments, reference).v_info


def blocks(seed: int, count: int, edge: int = 48) -> NDArray[np.int32]:
    """Gives (edge, edge) ids 1 … count of the cells around random points."""
    points = np.random.default_rng(seed).uniform(0, edge, (count, 2))
    rows, columns = np.mgrid[:edge, :edge]
    distance = np.hypot(rows[..., None] - points[:, 0], columns[..., None] - points[:, 1])
    ids: NDArray[np.int32] = distance.argmin(axis=-1).astype(np.int32) + 1
    return ids


def with_borders(ids: Ids) -> NDArray[np.int32]:
    """Sets the pixels that have another id within one pixel to 0."""
    same = ndimage.maximum_filter(ids, 3) == ndimage.minimum_filter(ids, 3)
    return np.where(same, ids, 0).astype(np.int32)


@pytest.fixture(params=range(4))
def pair(request: pytest.FixtureRequest) -> tuple[Ids, Ids]:
    return blocks(request.param, 9), with_borders(blocks(request.param + 100, 7))


def test_v_rand_is_that_of_pair_counting_without_pairs_of_a_pixel_with_itself(
    pair: tuple[Ids, Ids],
) -> None:
    table, pixels = Contingency.of(*pair), np.count_nonzero(pair[1])
    both, of_segments, of_objects = (
        np.square(shares).sum() * pixels**2 - pixels
        for shares in (table.joint, table.segments, table.objects)
    )
    error, precision, recall = independent.adapted_rand_error(pair[1], pair[0], ignore_labels=(0,))
    assert 1 - error == pytest.approx(2 * both / (of_segments + of_objects), abs=1e-12)
    assert {round(precision, 9), round(recall, 9)} == {
        round(both / of_segments, 9),
        round(both / of_objects, 9),
    }
    assert rand_score(*pair) == pytest.approx(1 - error, abs=0.01)


def test_v_rand_is_the_formula_on_the_contingency_table_of_scikit_image(
    pair: tuple[Ids, Ids],
) -> None:
    table = independent.contingency_table(pair[1], pair[0], ignore_labels=(0,)).toarray()
    squares = (table**2).sum() / ((table.sum(0) ** 2).sum() + (table.sum(1) ** 2).sum())
    assert rand_score(*pair) == pytest.approx(2 * squares, abs=1e-12)


def test_v_info_is_one_less_the_relative_variation_of_information(pair: tuple[Ids, Ids]) -> None:
    foreground = pair[1] != 0
    entropies = sum(stats.entropy(np.bincount(ids[foreground]), base=2) for ids in pair)
    variation = independent.variation_of_information(pair[1], pair[0], ignore_labels=(0,)).sum()
    assert information_score(*pair) == pytest.approx(1 - variation / entropies, abs=1e-12)


@pytest.mark.parametrize("score", [rand_score, information_score])
class TestPartitionScores:
    def test_the_same_partition_scores_one(self, score: Any) -> None:
        ids = blocks(0, 8)
        assert score(ids, ids) == pytest.approx(1.0, abs=1e-12)

    def test_other_ids_for_the_same_segments_change_nothing(self, score: Any) -> None:
        segments, reference = blocks(0, 8), blocks(1, 6)
        renamed = np.random.default_rng(2).permutation(9)[segments]
        assert score(renamed, reference) == pytest.approx(score(segments, reference), abs=1e-12)

    def test_ids_of_any_size_and_sign_are_counted(self, score: Any) -> None:
        segments, reference = blocks(0, 8), blocks(1, 6)
        far = segments.astype(np.int64) * 10**12 - 3 * 10**12
        assert score(far, reference * 10**8) == pytest.approx(score(segments, reference), abs=1e-12)

    def test_a_table_too_large_to_count_in_place_gives_the_same(self, score: Any) -> None:
        segments, reference = blocks(0, 8), blocks(1, 6)
        spread = score(segments * 5_000, reference * 5_000)
        assert spread == pytest.approx(score(segments, reference), abs=1e-12)

    def test_the_two_sides_can_be_exchanged(self, score: Any) -> None:
        left, right = blocks(0, 8), blocks(1, 6)
        assert score(left, right) == pytest.approx(score(right, left), abs=1e-12)

    def test_each_further_merge_scores_lower(self, score: Any) -> None:
        reference = blocks(3, 6)
        scores = [score(np.maximum(reference, merged), reference) for merged in range(1, 7)]
        assert scores == sorted(scores, reverse=True)
        assert len(set(scores)) == len(scores)

    def test_a_split_cell_scores_below_one(self, score: Any) -> None:
        reference = blocks(3, 6)
        split = reference + 10 * (np.arange(48) < 24)
        assert score(split, reference) < 0.95

    def test_pixels_outside_the_reference_objects_do_not_count(self, score: Any) -> None:
        reference = with_borders(blocks(0, 8))
        noisy = np.where(reference == 0, np.arange(48) + 50, reference)
        assert score(noisy, reference) == pytest.approx(1.0, abs=1e-12)

    def test_a_single_segment_on_both_sides_scores_one(self, score: Any) -> None:
        assert score(np.zeros((5, 7), np.uint8), np.full((5, 7), 3)) == 1.0

    def test_a_reference_without_objects_has_no_score(self, score: Any) -> None:
        assert math.isnan(score(blocks(0, 4), np.zeros((48, 48), np.int32)))

    def test_arrays_of_different_shapes_are_refused(self, score: Any) -> None:
        with pytest.raises(ValueError, match=r"segments \(4, 4\), reference \(4, 5\)"):
            score(np.ones((4, 4), int), np.ones((4, 5), int))

    def test_an_array_of_wrong_rank_is_refused_by_name(self, score: Any) -> None:
        with pytest.raises(ValueError, match=r"reference must be \(H, W\) integer"):
            score(np.ones((4, 4), int), np.ones((1, 4, 4), int))

    def test_an_array_of_floats_is_refused_by_name(self, score: Any) -> None:
        with pytest.raises(ValueError, match=r"segments must be .* float64"):
            score(np.ones((4, 4)), np.ones((4, 4), int))


def test_one_segment_for_two_equal_halves_has_v_rand_two_thirds_and_v_info_zero() -> None:
    reference = np.repeat([[1, 2]], 6, axis=0)
    merged = np.ones_like(reference)
    assert rand_score(merged, reference) == pytest.approx(2 / 3)
    assert information_score(merged, reference) == 0.0


def test_every_border_pixel_joins_its_nearest_component() -> None:
    bordered = with_borders(blocks(5, 7))
    segments = thin_borders(bordered > 0)
    components, _ = ndimage.label(bordered > 0)
    inside = np.argwhere(components > 0)
    for row, column in np.argwhere(components == 0):
        squares = np.square(inside - (row, column)).sum(axis=1)
        nearest = inside[squares == squares.min()]
        assert segments[row, column] in components[tuple(nearest.T)]


def test_thinning_keeps_the_interior_and_leaves_no_border() -> None:
    bordered = with_borders(blocks(5, 7))
    segments = thin_borders(bordered > 0)
    components, count = ndimage.label(bordered > 0)
    assert segments.dtype == np.int32
    assert set(np.unique(segments)) == set(range(1, count + 1))
    np.testing.assert_array_equal(segments[bordered > 0], components[bordered > 0])


def test_thinned_borders_give_a_perfect_score_whatever_their_width() -> None:
    reference = np.repeat(np.repeat([[1, 2], [3, 4]], 20, axis=0), 20, axis=1)
    for width in (1, 3, 6):
        away = np.abs(np.arange(40) - 19.5) > width
        interior = away[:, None] & away
        assert rand_score(thin_borders(interior), reference) == 1.0


def test_cells_that_touch_by_a_corner_stay_two() -> None:
    assert thin_borders(np.eye(2, dtype=bool)).max() == 2


@pytest.mark.parametrize(("value", "expected"), [(False, 0), (True, 1)])
def test_a_mask_of_one_value_is_one_segment(value: bool, expected: int) -> None:
    segments = thin_borders(np.full((3, 4), value))
    np.testing.assert_array_equal(segments, np.full((3, 4), expected, np.int32))


def test_a_mask_that_is_not_bool_is_refused() -> None:
    with pytest.raises(ValueError, match=r"interior must be \(H, W\) bool, got \(2, 2\) int64"):
        thin_borders(np.ones((2, 2), np.int64))


def test_pixel_error_is_the_share_of_pixels_that_differ() -> None:
    labels = np.array([[0, 1, 1, 0]])
    assert pixel_error(labels, np.array([[0, 1, 0, 0]])) == 0.25


def test_intersection_over_union_agrees_with_counting_by_class() -> None:
    rng = np.random.default_rng(0)
    labels, reference = rng.integers(0, 3, (2, 20, 30))
    expected = [
        ((labels == c) & (reference == c)).sum() / ((labels == c) | (reference == c)).sum()
        for c in range(3)
    ]
    assert intersection_over_union(labels, reference, 3) == pytest.approx(expected)


def test_a_class_that_neither_side_holds_has_no_intersection_over_union() -> None:
    scores = intersection_over_union(np.zeros((2, 2), int), np.zeros((2, 2), int), 2)
    assert scores[0] == 1.0
    assert math.isnan(scores[1])


def test_a_class_out_of_range_is_refused() -> None:
    with pytest.raises(DatasetError, match="reference hold class 2, but the 2 classes end at 1"):
        intersection_over_union(np.zeros((2, 2), int), np.full((2, 2), 2), 2)


def ramp(border: float) -> tuple[NDArray[np.float32], Ids]:
    """Gives two cells of probability 0.9 whose border has the given probability."""
    probabilities = np.full((20, 21), 0.9, np.float32)
    probabilities[:, 10] = border
    reference = np.ones((20, 21), np.int32)
    reference[:, 11:], reference[:, 10] = 2, 0
    return probabilities, reference


def test_the_thresholds_are_round_numbers() -> None:
    assert len(THRESHOLDS) == 19
    assert [str(value) for value in THRESHOLDS[:3]] == ["0.05", "0.1", "0.15"]
    assert THRESHOLDS[-1] == 0.95


def test_a_sweep_finds_the_only_threshold_that_separates_the_cells() -> None:
    probabilities, reference = ramp(0.82)
    best = sweep_thresholds([probabilities], [reference])
    assert (best.threshold, best.v_rand, best.v_info) == (0.85, 1.0, 1.0)


def test_equally_good_thresholds_give_way_to_the_one_nearest_to_one_half() -> None:
    probabilities, reference = ramp(0.22)
    assert sweep_thresholds([probabilities], [reference]).threshold == 0.5


def test_a_sweep_takes_the_mean_over_the_images() -> None:
    (first, reference), (second, _) = ramp(0.22), ramp(0.72)
    best = sweep_thresholds([first, second], [reference, reference], thresholds=(0.3, 0.5))
    assert best.v_rand == pytest.approx((1.0 + 2 / 3) / 2)


def test_a_sweep_over_images_without_objects_is_refused() -> None:
    with pytest.raises(DatasetError, match="an image with an annotated object"):
        sweep_thresholds([np.ones((4, 4), np.float32)], [np.zeros((4, 4), int)])


def test_unequal_numbers_of_arrays_are_refused_by_their_counts() -> None:
    with pytest.raises(DatasetError, match="1 probabilities, 0 references"):
        sweep_thresholds([np.ones((4, 4), np.float32)], [])


def test_a_pixel_at_the_threshold_is_interior() -> None:
    probabilities, reference = ramp(0.5)
    best = sweep_thresholds([probabilities], [reference], thresholds=(0.5,))
    assert best.v_rand == pytest.approx(2 / 3)


def test_the_scores_of_a_label_map_are_those_of_its_thinned_segments() -> None:
    rng = np.random.default_rng(0)
    reference = with_borders(blocks(0, 6))
    semantic = (reference > 0).astype(int)
    labels = (ndimage.gaussian_filter(semantic + rng.normal(0, 1, semantic.shape), 1) > 0.6) + 0
    scores = score_label_maps([labels], [reference], [semantic], 2)
    segments = thin_borders(labels == 1)
    assert scores.v_rand == rand_score(segments, reference) < 1.0
    assert scores.v_info == information_score(segments, reference) < 1.0
    assert scores.pixel_error == pixel_error(labels, semantic) > 0.0
    assert scores.iou == intersection_over_union(labels, semantic, 2)


def test_touching_objects_of_different_classes_are_told_apart() -> None:
    semantic = np.repeat([[1, 1, 2, 2]], 4, axis=0)
    assert score_label_maps([semantic], [semantic], [semantic], 3).v_rand == 1.0


def test_label_maps_with_a_class_out_of_range_are_refused() -> None:
    ones = np.ones((4, 4), int)
    with pytest.raises(DatasetError, match="labels hold class 2, but the 2 classes end at 1"):
        score_label_maps([ones * 2], [ones], [ones], 2)


def test_an_image_without_objects_is_left_out_of_the_means_of_partition_scores() -> None:
    reference = with_borders(blocks(0, 6))
    empty = np.zeros_like(reference)
    semantic = (reference > 0).astype(int)
    scores = score_label_maps([semantic, empty], [reference, empty], [semantic, empty], 2)
    assert scores == Scores(1.0, 1.0, 0.0, (1.0, 1.0), 2)


def test_scores_without_a_value_become_null_in_json() -> None:
    empty = np.zeros((4, 4), np.int32)
    scores = score_label_maps([empty], [empty], [empty], 2)
    assert json.loads(json.dumps(scores.as_dict(), allow_nan=False)) == {
        "v_rand": None,
        "v_info": None,
        "pixel_error": 0.0,
        "iou": [1.0, None],
        "images": 1,
    }
