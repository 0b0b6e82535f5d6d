"""Pixel and boundary scores against torchmetrics, MONAI, and naive distances."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from monai import metrics
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics.functional.classification import multiclass_jaccard_index

from model.errors import DatasetError
from tests.training.drawn import MASKS, Ids, discs
from training.metrics.bootstrap import pool
from training.metrics.masks import (
    BoundaryDistances,
    Confusion,
    Mask,
    boundary,
    mask_quotients,
    mean_iou,
    sweep_overlap,
)
from training.metrics.partition import THRESHOLDS

independent: Any = metrics  # MONAI declares tensors as int, bool and str
MONAI_WARNS_OF_ITSELF = pytest.mark.filterwarnings(
    "ignore:monai.metrics.utils get_mask_edges:FutureWarning"
)

MASK_PAIRS = [(discs(seed, 1.5) > 0, discs(seed + 50, 1.5) > 0) for seed in range(3)]


def classes(seed: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 3, (20, 30)).astype(np.uint8)


def one_hot(*masks: Mask) -> tuple[Tensor, ...]:
    """Give (1, 1, H, W) as MONAI reads masks."""
    return tuple(torch.from_numpy(mask[None, None].astype(np.float32)) for mask in masks)


def test_pixel_error_is_the_share_of_pixels_that_differ() -> None:
    labels = np.array([[0, 1, 1, 0]])
    assert Confusion.of(labels, np.array([[0, 1, 0, 0]]), 2).pixel_error == 0.25


def test_ignored_pixels_count_for_no_score_of_pixels() -> None:
    labels, reference = np.array([[0, 1, 1, 0]]), np.array([[0, 1, 0, 0]])
    table = Confusion.of(labels, reference, 2, ignored=labels != reference)
    assert table.pixel_error == 0.0
    assert table.iou == table.dice == (1.0, 1.0)
    assert table.counts.sum() == 3


def test_where_every_pixel_is_ignored_there_is_no_pixel_error() -> None:
    labels = np.ones((2, 2), int)
    assert math.isnan(Confusion.of(labels, labels, 2, np.ones((2, 2), bool)).pixel_error)


def test_the_confusion_counts_what_was_found_by_what_was_annotated() -> None:
    table = Confusion.of(np.array([[0, 1, 2, 2]]), np.array([[0, 2, 2, 1]]), 3)
    assert table.counts.tolist() == [[1, 0, 0], [0, 0, 1], [0, 1, 1]]


def test_intersection_over_union_is_that_of_torchmetrics() -> None:
    pair = torch.from_numpy(classes(0)), torch.from_numpy(classes(1))
    expected = multiclass_jaccard_index(*pair, 3, average=None).tolist()
    assert Confusion.of(classes(0), classes(1), 3).iou == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("pair", MASK_PAIRS)
def test_overlaps_of_a_mask_are_those_of_monai(pair: tuple[Mask, Mask]) -> None:
    table = Confusion.of(pair[0].astype(int), pair[1].astype(int), 2)
    assert table.iou[1] == pytest.approx(float(independent.compute_iou(*one_hot(*pair))), abs=1e-6)
    assert table.dice[1] == pytest.approx(
        float(independent.compute_dice(*one_hot(*pair))), abs=1e-6
    )


def test_a_class_that_neither_side_holds_has_no_overlap() -> None:
    table = Confusion.of(np.zeros((2, 2), int), np.zeros((2, 2), int), 2)
    assert table.iou[0] == table.dice[0] == 1.0
    assert math.isnan(table.iou[1])
    assert math.isnan(table.dice[1])


def test_a_class_that_one_side_alone_holds_has_the_overlap_nothing() -> None:
    table = Confusion.of(np.ones((2, 2), int), np.zeros((2, 2), int), 2)
    assert table.iou == table.dice == (0.0, 0.0)


def test_a_class_out_of_range_is_refused() -> None:
    with pytest.raises(DatasetError, match="reference hold class 2, but the 2 classes end at 1"):
        Confusion.of(np.zeros((2, 2), int), np.full((2, 2), 2), 2)


@MONAI_WARNS_OF_ITSELF
@pytest.mark.parametrize("pair", MASK_PAIRS)
def test_hausdorff_95_is_that_of_monai(pair: tuple[Mask, Mask]) -> None:
    expected = float(independent.compute_hausdorff_distance(*one_hot(*pair), percentile=95))
    assert BoundaryDistances.of(*pair).hausdorff_95 == pytest.approx(expected, abs=1e-5)


@MONAI_WARNS_OF_ITSELF
@pytest.mark.parametrize("pair", MASK_PAIRS)
def test_as_many_boundary_pixels_lie_within_the_tolerance_as_monai_finds(
    pair: tuple[Mask, Mask],
) -> None:
    found = BoundaryDistances.of(*pair)
    near = np.concatenate([found.of_found, found.of_reference]) <= 2
    expected = float(independent.compute_surface_dice(*one_hot(*pair), class_thresholds=[2.0]))
    assert near.mean() == pytest.approx(expected, abs=1e-6)


def naive_boundary(mask: Mask) -> list[tuple[int, int]]:
    """Visit every pixel of the mask and its four neighbours."""
    height, width = mask.shape
    return [
        (row, column)
        for row, column in np.argwhere(mask).tolist()
        if any(
            not (0 <= row + down < height and 0 <= column + right < width)
            or not mask[row + down, column + right]
            for down, right in ((1, 0), (-1, 0), (0, 1), (0, -1))
        )
    ]


def naive_f1(found: Mask, reference: Mask) -> float:
    """Measure the distance of every pair of boundary pixels."""
    drawn, annotated = naive_boundary(found), naive_boundary(reference)
    if not drawn or not annotated:
        return 0.0 if drawn or annotated else math.nan
    distances = np.array([[math.dist(a, b) for b in annotated] for a in drawn])
    precision, recall = ((distances.min(axis=axis) <= 2).mean() for axis in (1, 0))
    return float(2 * precision * recall / (precision + recall)) if precision + recall else 0.0


@settings(deadline=None)
@given(MASKS, MASKS)
def test_boundary_f1_is_that_of_all_distances(found: Mask, reference: Mask) -> None:
    score = BoundaryDistances.of(found, reference).f1
    assert score == pytest.approx(naive_f1(found, reference), abs=1e-12, nan_ok=True)


@given(MASKS)
def test_a_boundary_is_made_of_the_pixels_beside_the_outside(mask: Mask) -> None:
    assert list(map(tuple, np.argwhere(boundary(mask)).tolist())) == naive_boundary(mask)


@settings(deadline=None)
@given(MASKS, MASKS)
def test_boundary_scores_are_the_same_with_the_sides_exchanged(one: Mask, other: Mask) -> None:
    ahead, back = BoundaryDistances.of(one, other), BoundaryDistances.of(other, one)
    assert ahead.f1 == pytest.approx(back.f1, nan_ok=True)
    assert ahead.hausdorff_95 == pytest.approx(back.hausdorff_95, nan_ok=True)


@pytest.mark.parametrize("shift", [1, 2, 3])
def test_a_boundary_moved_within_the_tolerance_agrees(shift: int) -> None:
    mask = np.zeros((40, 40), bool)
    mask[10:30, 10:30] = True
    found = BoundaryDistances.of(np.roll(mask, shift, axis=1), mask)
    assert (found.f1 == 1.0) == (shift <= 2)
    assert found.hausdorff_95 == shift


def test_where_one_mask_is_empty_the_boundary_score_is_nothing_and_the_distance_the_diagonal() -> (
    None
):
    empty, full = np.zeros((3, 4), bool), np.ones((3, 4), bool)
    for pair in ((empty, full), (full, empty)):
        assert BoundaryDistances.of(*pair).f1 == 0.0
        assert BoundaryDistances.of(*pair).hausdorff_95 == 5.0


def test_where_both_masks_are_empty_there_is_no_boundary_score() -> None:
    found = BoundaryDistances.of(np.zeros((3, 4), bool), np.zeros((3, 4), bool))
    assert math.isnan(found.f1)
    assert math.isnan(found.hausdorff_95)


def test_boundaries_farther_apart_than_the_tolerance_everywhere_score_nothing() -> None:
    mask = np.zeros((20, 20), bool)
    mask[2:5, 2:5] = True
    assert BoundaryDistances.of(mask, np.roll(mask, 10, axis=0)).f1 == 0.0


def test_an_image_adds_every_class_to_the_means() -> None:
    found = mask_quotients(classes(0), classes(1), 3)
    bounded = [f"{name}_{index}" for name in ("boundary_f1", "hausdorff_95") for index in (1, 2)]
    overlaps = [f"{name}_{index}" for name in ("iou", "dice") for index in range(3)]
    assert set(found) == {"pixel_error", *overlaps, *bounded}


def test_of_an_ignored_region_no_boundary_is_found() -> None:
    reference = np.zeros((30, 30), np.uint8)
    reference[5:15, 5:15] = 1
    labels, ignored = reference.copy(), np.zeros((30, 30), bool)
    labels[20:28, 20:28], ignored[20:28, 20:28] = 1, True
    counted = mask_quotients(labels, reference, 2)
    left_out = mask_quotients(labels, reference, 2, ignored)
    assert left_out["boundary_f1_1"] == (1.0, 1.0)
    assert counted["boundary_f1_1"][0] < 1.0


def test_mean_iou_is_the_mean_over_classes_of_the_means_over_images() -> None:
    maps: tuple[list[Ids], list[Ids]] = ([classes(0), classes(2) % 2], [classes(1), classes(3) % 2])
    means = pool([mask_quotients(*pair, 3) for pair in zip(*maps, strict=True)])
    assert mean_iou(*maps, 3) == np.mean([means[f"iou_{index}"][0] for index in range(3)])


def found_in(seed: int) -> tuple[NDArray[np.float32], Ids]:
    """Give a mask, and probabilities that are higher in it than outside of it, in the mean."""
    mask = discs(seed) > 0
    noise = np.random.default_rng(seed).normal(0, 0.2, mask.shape)
    return np.clip(0.35 + 0.3 * mask + noise, 0, 1).astype(np.float32), mask.astype(np.uint8)


def test_a_sweep_takes_the_threshold_of_the_best_mean_iou() -> None:
    maps, references = zip(*map(found_in, range(3)), strict=True)
    means = {
        bar: mean_iou([(values >= bar).astype(int) for values in maps], references, 2)
        for bar in THRESHOLDS
    }
    best = sweep_overlap(maps, references)
    assert (best.threshold, best.iou) == max(means.items(), key=lambda item: item[1])
    assert best.iou > means[0.5] > 0.5


def test_of_equally_good_thresholds_a_sweep_takes_the_one_nearest_to_one_half() -> None:
    reference = np.array([[0, 1]])
    assert sweep_overlap([np.array([[0.1, 0.9]])], [reference]).threshold == 0.5
    assert sweep_overlap([np.array([[0.1, 0.42]])], [reference]).threshold == 0.4
    assert sweep_overlap([np.array([[0.47, 0.52]])], [reference], (0.6, 0.4)).threshold == 0.4


def test_a_sweep_counts_what_is_found_in_an_image_without_an_object() -> None:
    values, empty = np.array([[0.1, 0.6]]), np.zeros((1, 2), int)
    best = sweep_overlap([values, np.array([[0.1, 0.9]])], [empty, np.array([[0, 1]])])
    assert (best.threshold, best.iou) == (0.65, 1.0)


@pytest.mark.parametrize("count", [0, 1])
def test_a_sweep_over_no_pixel_is_refused(count: int) -> None:
    nothing = np.zeros((1, 0))
    with pytest.raises(DatasetError, match="an image with an annotated pixel"):
        sweep_overlap([nothing] * count, [nothing.astype(int)] * count)


def test_mean_iou_leaves_out_a_class_that_no_image_holds() -> None:
    ones = np.ones((3, 3), int)
    assert mean_iou([ones], [ones], 4) == 1.0
