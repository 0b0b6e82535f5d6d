"""V_rand and V_info against scikit-image, against naive counting, and by their properties."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from numpy.typing import NDArray
from scipy import ndimage, stats
from skimage import metrics

from model.errors import DatasetError
from tests.training.drawn import SMALL_IDS, Ids, blocks, with_borders
from training.metrics.partition import (
    THRESHOLDS,
    Contingency,
    best_on,
    partition_quotients,
    spread,
    sweep_thresholds,
    thin_borders,
    threshold_curve,
)

independent: Any = metrics  # scikit-image gives these functions no types


def rand_score(segments: Ids, reference: Ids) -> float:
    return Contingency.of(segments, reference).v_rand


def information_score(segments: Ids, reference: Ids) -> float:
    return Contingency.of(segments, reference).v_info


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


@given(SMALL_IDS, SMALL_IDS)
def test_scores_lie_between_nothing_and_one(segments: Ids, reference: Ids) -> None:
    for score in (rand_score(segments, reference), information_score(segments, reference)):
        assert math.isnan(score) if not reference.any() else 0 <= score <= 1 + 1e-12


def test_an_image_without_objects_adds_nothing_to_the_means() -> None:
    found = partition_quotients(blocks(0, 4), np.zeros((48, 48), np.int32))
    assert found == {"v_rand": (0.0, 0.0), "v_info": (0.0, 0.0)}


def test_an_image_adds_its_own_scores_to_the_means(pair: tuple[Ids, Ids]) -> None:
    expected = {"v_rand": (rand_score(*pair), 1.0), "v_info": (information_score(*pair), 1.0)}
    assert partition_quotients(*pair) == expected


def test_spreading_keeps_objects_that_touch_apart() -> None:
    ids = np.array([[0, 3, 7, 0]], np.int32)
    assert spread(ids).tolist() == [[3, 3, 7, 7]]


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


def test_an_image_without_a_reference_is_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        sweep_thresholds([np.ones((4, 4), np.float32)], [])


def test_a_sweep_over_no_image_is_refused() -> None:
    with pytest.raises(DatasetError, match="an image with an annotated object"):
        sweep_thresholds([], [])


def test_a_sweep_over_no_threshold_is_refused() -> None:
    probabilities, reference = ramp(0.5)
    with pytest.raises(DatasetError, match="a threshold needs a candidate"):
        sweep_thresholds([probabilities], [reference], thresholds=())


def test_a_sweep_looks_at_each_image_once() -> None:
    probabilities, reference = ramp(0.82)
    maps = (probabilities for _ in range(2))
    assert sweep_thresholds(maps, [reference, reference]).threshold == 0.85


def test_an_image_without_objects_is_left_out_of_the_means_of_a_sweep() -> None:
    probabilities, reference = ramp(0.82)
    pair = [probabilities, probabilities], [reference, np.zeros_like(reference)]
    assert sweep_thresholds(*pair) == sweep_thresholds([probabilities], [reference])


def test_the_best_threshold_is_found_anew_for_each_choice_of_images() -> None:
    (first, reference), (second, _) = ramp(0.22), ramp(0.72)
    curves = [threshold_curve(values, reference, (0.3, 0.5, 0.75)) for values in (first, second)]
    weights = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    best = best_on(curves, weights, (0.3, 0.5, 0.75))
    assert best["best_threshold"].tolist() == [0.5, 0.75, 0.75]
    assert best["v_rand_best"].tolist() == [1.0, 1.0, 1.0]


def test_of_a_choice_without_objects_there_is_no_best_v_rand() -> None:
    probabilities, reference = ramp(0.5)
    curves = [threshold_curve(probabilities, np.zeros_like(reference), (0.5,))]
    assert math.isnan(best_on(curves, thresholds=(0.5,))["v_rand_best"][0])


def test_nothing_is_interior_where_the_annotation_is_to_be_ignored() -> None:
    """The two cells are one at this threshold; without the bridge between them they are two."""
    probabilities, reference = ramp(0.82)
    bridge = np.zeros(reference.shape, bool)
    bridge[:, 10] = True
    joined, parted = (
        threshold_curve(probabilities, reference, (0.5,), ignored)[0]["v_rand"][0]
        for ignored in (None, bridge)
    )
    assert joined == pytest.approx(2 / 3)
    assert parted == 1.0


def test_probabilities_of_wrong_rank_are_refused() -> None:
    with pytest.raises(ValueError, match=r"probabilities must be \(H, W\), got \(1, 4, 4\)"):
        threshold_curve(np.ones((1, 4, 4), np.float32), np.ones((4, 4), int))


def test_a_pixel_at_the_threshold_is_interior() -> None:
    probabilities, reference = ramp(0.5)
    best = sweep_thresholds([probabilities], [reference], thresholds=(0.5,))
    assert best.v_rand == pytest.approx(2 / 3)
