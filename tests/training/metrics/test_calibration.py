"""Calibration against torchmetrics, and the table of reliability."""

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torchmetrics.functional.classification import (
    binary_calibration_error,
    multiclass_calibration_error,
)

from training.metrics.calibration import (
    BINS,
    calibration_error,
    reliability_sums,
    reliability_table,
)

Maps = NDArray[np.float32]


def drawn(num_classes: int, seed: int = 0) -> tuple[Maps, NDArray[np.uint8]]:
    """Give probabilities (K, 40, 50) and classes that follow them, but not quite."""
    random = np.random.default_rng(seed)
    probabilities = random.dirichlet(np.full(num_classes, 0.7), (40, 50))
    chances = np.cumsum(probabilities**1.3 / (probabilities**1.3).sum(-1, keepdims=True), axis=-1)
    classes = (random.random((40, 50, 1)) > chances).sum(axis=-1).clip(max=num_classes - 1)
    return np.moveaxis(probabilities, -1, 0).astype(np.float32), classes.astype(np.uint8)


def test_of_two_classes_it_is_the_error_of_the_probability_of_class_1() -> None:
    probabilities, reference = drawn(2)
    pair = torch.from_numpy(probabilities[1].copy()), torch.from_numpy(reference.astype(np.int64))
    expected = float(binary_calibration_error(*pair, n_bins=BINS, norm="l1"))
    found = calibration_error(reliability_sums(probabilities, reference))
    assert found == pytest.approx(expected, abs=1e-6)
    assert expected > 0.01


def test_of_more_classes_it_is_the_error_of_the_most_probable() -> None:
    probabilities, reference = drawn(4)
    pair = torch.from_numpy(probabilities[None]), torch.from_numpy(reference[None].astype(np.int64))
    expected = float(multiclass_calibration_error(*pair, num_classes=4, n_bins=BINS, norm="l1"))
    found = calibration_error(reliability_sums(probabilities, reference))
    assert found == pytest.approx(expected, abs=1e-6)
    assert expected > 0.01


def test_sums_of_two_images_give_the_error_of_all_their_pixels() -> None:
    (first, one), (second, other) = drawn(2, seed=1), drawn(2, seed=2)
    whole = reliability_sums(np.concatenate([first, second], axis=1), np.concatenate([one, other]))
    added = reliability_sums(first, one) + reliability_sums(second, other)
    np.testing.assert_allclose(added, whole, atol=1e-9)


def test_ignored_pixels_are_left_out() -> None:
    probabilities, reference = drawn(2)
    ignored = np.zeros(reference.shape, bool)
    ignored[:, 20:] = True
    np.testing.assert_allclose(
        reliability_sums(probabilities, reference, ignored),
        reliability_sums(probabilities[:, :, :20], reference[:, :20]),
    )


def test_certain_and_right_is_no_error_and_certain_and_wrong_is_the_largest() -> None:
    reference = np.array([[0, 1]], np.uint8)
    certain = np.array([[[1, 0]], [[0, 1]]], np.float32)
    assert calibration_error(reliability_sums(certain, reference)) == 0.0
    assert calibration_error(reliability_sums(certain[::-1], reference)) == 1.0


def test_without_a_pixel_there_is_no_error() -> None:
    assert math.isnan(float(calibration_error(np.zeros((3, BINS)))))


def test_the_table_has_a_row_for_every_bin() -> None:
    probabilities, reference = drawn(2)
    rows = reliability_table(reliability_sums(probabilities, reference))
    assert len(rows) == BINS == 15
    assert sum(row.count for row in rows) == reference.size
    assert (rows[0].low, rows[-1].high) == (0.0, 1.0)
    for row in rows:
        inside = (probabilities[1] >= row.low) & (probabilities[1] < row.high)
        assert row.confidence == pytest.approx(float(probabilities[1][inside].mean()), abs=1e-6)
        assert row.accuracy == pytest.approx(float(reference[inside].mean()), abs=1e-6)


def test_an_empty_bin_has_neither_confidence_nor_accuracy() -> None:
    certain = np.array([[[0.0]], [[1.0]]], np.float32)
    rows = reliability_table(reliability_sums(certain, np.ones((1, 1), np.uint8)))
    assert math.isnan(rows[3].confidence)
    assert math.isnan(rows[3].accuracy)
    assert (rows[-1].confidence, rows[-1].accuracy, rows[-1].count) == (1.0, 1.0, 1)
