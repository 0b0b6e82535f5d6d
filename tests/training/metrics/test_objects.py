"""Scores of objects against StarDist's definition, py-ctcmetrics and torchmetrics."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from ctc_metrics.metrics import seg as independent_seg  # type: ignore[import-untyped]  # no types
from ctc_metrics.utils.representations import match  # type: ignore[import-untyped]  # no types
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from torchmetrics.functional.detection import panoptic_quality

from model.errors import DatasetError
from tests.training.drawn import SMALL_IDS, Ids, blocks, discs, with_borders
from training.metrics.bootstrap import pool
from training.metrics.objects import IOU_THRESHOLDS, Overlaps, object_quotients

PAIRS = [(discs(seed, 1.5), discs(seed + 50, 1.5)) for seed in range(4)]
NAMES = ("seg", "ap50", "ap60", "ap70", "ap80", "ap90", "f1", "pq", "ap50_by_image")


def scores(*pairs: tuple[Ids, Ids]) -> dict[str, float]:
    """Pool the scores of several images."""
    pooled = pool([object_quotients(*pair) for pair in pairs])
    return {name: float(value[0]) for name, value in pooled.items()}


def naive_matching(found: Ids, reference: Ids, threshold: float) -> tuple[int, int, int, float]:
    """Match as StarDist does, visiting every pair: TP, FP, FN and the sum of IoU."""
    names, drawn = np.unique(found[found > 0]), np.unique(reference[reference > 0])
    iou = np.array(
        [
            [((found == a) & (reference == b)).sum() / ((found == a) | (reference == b)).sum()]
            for a in names
            for b in drawn
        ]
    ).reshape(len(names), len(drawn))
    most = max(min(iou.shape), 1)
    chosen = linear_sum_assignment(-(iou >= threshold).astype(float) - iou / (2 * most))
    agreed = iou[chosen][iou[chosen] >= threshold]
    return (
        len(agreed),
        len(names) - len(agreed),
        len(drawn) - len(agreed),
        float(agreed.sum()),
    )


@pytest.mark.parametrize("threshold", IOU_THRESHOLDS)
def test_average_precision_is_that_of_counts_over_all_images(threshold: float) -> None:
    counts = np.sum([naive_matching(*pair, threshold) for pair in PAIRS], axis=0)
    matched, false_positives, false_negatives, _ = counts
    expected = matched / (matched + false_positives + false_negatives)
    assert scores(*PAIRS)[f"ap{threshold * 100:.0f}"] == pytest.approx(expected, abs=1e-12)
    assert 0 < expected < 1


def test_f1_and_panoptic_quality_are_those_of_counts_over_all_images() -> None:
    counts = np.sum([naive_matching(*pair, 0.5) for pair in PAIRS], axis=0)
    matched, false_positives, false_negatives, iou_sum = counts
    both = matched + false_positives / 2 + false_negatives / 2
    found = scores(*PAIRS)
    assert found["f1"] == pytest.approx(matched / both, abs=1e-12)
    assert found["pq"] == pytest.approx(iou_sum / both, abs=1e-12)


def test_the_mean_over_images_is_of_each_images_average_precision() -> None:
    alone = [scores(pair)["ap50"] for pair in PAIRS]
    assert scores(*PAIRS)["ap50_by_image"] == pytest.approx(np.mean(alone), abs=1e-12)
    assert len(set(alone)) == len(PAIRS)


@pytest.mark.parametrize("pair", [PAIRS[0], PAIRS[1], PAIRS[3]])
def test_panoptic_quality_is_that_of_torchmetrics_but_for_an_overlap_of_exactly_half(
    pair: tuple[Ids, Ids],
) -> None:
    assert not (Overlaps.of(*pair).iou == 0.5).any()
    found, reference = (
        torch.from_numpy(np.stack([ids > 0, ids], axis=-1).astype(np.int64))[None] for ids in pair
    )
    quality: Any = panoptic_quality(found, reference, {1}, {0}, return_per_class=True)
    assert scores(pair)["pq"] == pytest.approx(float(quality[0, 0]), abs=1e-6)


@pytest.mark.parametrize("pair", PAIRS)
def test_seg_is_that_of_py_ctcmetrics(pair: tuple[Ids, Ids], tmp_path: Path) -> None:
    for name, ids in zip(("found.tif", "reference.tif"), pair, strict=True):
        tifffile.imwrite(tmp_path / name, ids.astype(np.uint16))
    matched = match(str(tmp_path / "reference.tif"), str(tmp_path / "found.tif"))
    expected = independent_seg([matched[0]], [matched[4]])
    assert scores(pair)["seg"] == pytest.approx(expected, abs=1e-12)


def test_seg_is_a_mean_over_the_objects_of_all_images() -> None:
    many, few = PAIRS[0], (np.ones((4, 4), np.int32), np.ones((4, 4), np.int32))
    count = len(np.unique(many[1])) - 1
    expected = (scores(many)["seg"] * count + 1) / (count + 1)
    assert scores(many, few)["seg"] == pytest.approx(expected, abs=1e-12)


def test_an_object_covered_by_exactly_half_counts_as_missed_by_seg() -> None:
    reference = np.array([[1, 1, 1, 1]])
    assert scores((np.array([[1, 1, 0, 0]]), reference))["seg"] == 0.0
    assert scores((np.array([[1, 1, 1, 0]]), reference))["seg"] == 0.75


def test_one_object_over_two_cells_has_the_seg_of_the_larger_alone() -> None:
    merged, reference = np.ones((1, 5), int), np.array([[1, 1, 1, 2, 2]])
    assert scores((merged, reference))["seg"] == pytest.approx((3 / 5 + 2 / 5) / 2)


def test_an_object_in_two_equal_halves_is_matched_once() -> None:
    """Both halves have an intersection over union of exactly 0.5 with the whole."""
    halves, whole = np.array([[1, 1, 2, 2]]), np.ones((1, 4), int)
    assert scores((halves, whole))["ap50"] == scores((whole, halves))["ap50"] == 1 / 2
    assert scores((halves, whole))["f1"] == 2 / 3


@settings(deadline=None)
@given(SMALL_IDS, SMALL_IDS, st.sampled_from([0.1, 0.2, 0.3, 0.5, 0.6, 0.9]))
def test_matching_has_as_many_pairs_as_that_of_stardist(
    found: Ids, reference: Ids, threshold: float
) -> None:
    matched, false_positives, false_negatives, iou_sum = naive_matching(found, reference, threshold)
    ours = Overlaps.of(found, reference).match(threshold)
    assert (ours.matched, ours.found, ours.reference) == (
        matched,
        matched + false_positives,
        matched + false_negatives,
    )
    assert ours.iou_sum >= iou_sum - 1e-9
    if threshold >= 0.5:
        assert ours.iou_sum == pytest.approx(iou_sum, abs=1e-9)


@settings(deadline=None)
@given(SMALL_IDS, SMALL_IDS)
def test_all_scores_but_seg_are_the_same_with_the_sides_exchanged(
    found: Ids, reference: Ids
) -> None:
    one, other = object_quotients(found, reference), object_quotients(reference, found)
    for name in set(NAMES) - {"seg"}:
        assert one[name] == pytest.approx(other[name], abs=1e-12)


@settings(deadline=None)
@given(SMALL_IDS, SMALL_IDS, st.permutations([1, 2, 3, 4]))
def test_other_ids_for_the_same_objects_change_nothing(
    found: Ids, reference: Ids, others: list[int]
) -> None:
    renamed = np.array([0, *others])[found] * 10**9
    one, other = object_quotients(found, reference), object_quotients(renamed, reference)
    assert set(one) == set(NAMES)
    for name in NAMES:
        assert one[name] == pytest.approx(other[name], abs=1e-12)


@given(SMALL_IDS)
def test_the_same_objects_score_one(ids: Ids) -> None:
    for value in scores((ids, ids)).values():
        assert math.isnan(value) if not ids.any() else value == pytest.approx(1.0)


def test_average_precision_falls_with_the_threshold() -> None:
    found = scores(*PAIRS)
    values = [found[f"ap{percent}"] for percent in (50, 60, 70, 80, 90)]
    assert values == sorted(values, reverse=True)
    assert values[0] > values[-1]


def test_an_image_without_any_object_adds_to_no_score() -> None:
    empty = np.zeros((5, 6), np.int32)
    assert set(object_quotients(empty, empty).values()) == {(0, 0)}
    assert scores(PAIRS[0], (empty, empty)) == scores(PAIRS[0])


def test_where_nothing_is_found_every_score_is_nothing() -> None:
    empty = np.zeros((96, 96), np.int32)
    assert set(scores((empty, PAIRS[0][1])).values()) == {0.0}


def test_where_nothing_is_annotated_seg_is_undefined_and_the_others_are_nothing() -> None:
    empty = np.zeros((96, 96), np.int32)
    found = scores((PAIRS[0][0], empty))
    assert math.isnan(found.pop("seg"))
    assert set(found.values()) == {0.0}


def test_an_object_of_two_pieces_is_one_object() -> None:
    ids = np.array([[1, 0, 1]])
    assert Overlaps.of(ids, ids).match(0.5).found == 1


def test_ids_need_not_be_without_gaps() -> None:
    found, reference = with_borders(blocks(0, 8)), with_borders(blocks(0, 8)) * 70_000
    assert scores((found, reference))["ap90"] == 1.0


def test_large_ids_without_background_are_objects_all() -> None:
    ids = np.array([[100_000, 200_000]])
    assert Overlaps.of(ids, ids).match(0.5).matched == 2


def test_a_negative_id_is_refused() -> None:
    with pytest.raises(DatasetError, match="reference hold the negative id -1"):
        object_quotients(np.ones((2, 2), int), np.full((2, 2), -1))
