"""Rounding: parameters in whole steps, and what that takes from the answers given back."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from model.architecture import Architecture, Variant
from model.network import UNet
from tests.training.networks import drawn
from training.export.calibration import Calibration, observe
from training.export.rounding import (
    LARGEST_WEIGHT,
    Numbers,
    raise_up_convolutions,
    round_parameters,
)

STEP = 0.02
"""What 1 is worth in the input."""


def parameters(seed: int = 0) -> tuple[Numbers, Numbers, Numbers]:
    """Draw weights whose output channels differ a thousandfold, biases, and a mean input."""
    random = np.random.default_rng(seed)
    sizes = np.geomspace(0.01, 10, 6)[:, None, None, None]
    return random.normal(0, sizes, (6, 4, 3, 3)), random.normal(0, 1, 6), random.uniform(0, 2, 4)


def calibrated(network: UNet) -> Calibration:
    random = np.random.default_rng(0)
    return observe(network, [random.normal(0, 1, (1, 1, 92, 92)).astype(np.float32)])


def worth(whole: NDArray[Any], step: NDArray[np.float32]) -> Numbers:
    """Give what whole numbers of steps, by output channel, are worth."""
    steps = step.astype(np.float64).reshape(-1, *[1] * (whole.ndim - 1))
    found: Numbers = whole * steps
    return found


def test_weights_are_off_by_half_a_step_of_their_output_channel_at_most() -> None:
    weight, bias, mean_in = parameters()
    found = round_parameters(weight, bias, mean_in, STEP)
    error = np.abs(worth(found.weight, found.weight_step) - weight).max((1, 2, 3))
    assert (error <= 0.5001 * np.abs(weight).max((1, 2, 3)) / LARGEST_WEIGHT).all()


def test_two_products_fit_into_16_bits() -> None:
    """Processors without VNNI add two products of uint8 and int8 in 16 bits, and cut the sum."""
    weight, bias, mean_in = parameters()
    found = round_parameters(weight, bias, mean_in, STEP)
    largest = int(np.abs(found.weight.astype(int)).max())
    assert largest == LARGEST_WEIGHT
    assert 2 * 255 * largest <= np.iinfo(np.int16).max


def test_the_mean_input_is_answered_as_before() -> None:
    weight, bias, mean_in = parameters()
    found = round_parameters(weight, bias, mean_in, STEP)
    exact = weight.sum((2, 3)) @ mean_in + bias
    rounded = worth(found.weight, found.weight_step).sum((2, 3)) @ mean_in
    rounded += worth(found.bias, found.bias_step)
    np.testing.assert_allclose(rounded, exact, atol=float(found.bias_step.max()))
    without = rounded - worth(found.bias, found.bias_step) + bias
    assert np.abs(without - exact).max() > 10 * np.abs(rounded - exact).max()


def test_a_step_of_the_bias_is_a_step_of_the_input_times_one_of_the_weight() -> None:
    """Sums of products are counted in these steps, and the bias is added to such a sum."""
    found = round_parameters(*parameters(), STEP)
    np.testing.assert_allclose(found.bias_step, found.weight_step * STEP, rtol=1e-6)


def test_channels_without_weights_keep_their_bias() -> None:
    bias = np.array([0.0, 3.0, -1e4])
    found = round_parameters(np.zeros((3, 2, 1, 1)), bias, np.ones(2), STEP)
    assert not found.weight.any()
    np.testing.assert_allclose(worth(found.bias, found.bias_step), bias, rtol=1e-6)


@pytest.mark.parametrize("variant", ["paper", "release"])
def test_a_network_with_raised_up_convolutions_answers_as_before(variant: Variant) -> None:
    network = drawn(Architecture(depth=2, base_channels=4, variant=variant))
    raised, _ = raise_up_convolutions(network, calibrated(network))
    tile = torch.randn(2, 1, 76, 84, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        np.testing.assert_allclose(raised(tile), network(tile), atol=1e-5)


def test_raised_up_convolutions_give_nothing_negative_and_calibrate_so() -> None:
    network = drawn(Architecture(depth=2, base_channels=4))
    before = calibrated(network)
    assert all(before[f"up_convolutions.{level}"].lowest.min() < -0.1 for level in (0, 1))
    raised, predicted = raise_up_convolutions(network, before)
    found = calibrated(raised)
    assert all(found[f"up_convolutions.{level}"].lowest.min() > -1e-5 for level in (0, 1))
    for name, statistics in found.items():
        for field in ("mean_in", "lowest", "highest"):
            expected = getattr(predicted[name], field)
            np.testing.assert_allclose(getattr(statistics, field), expected, atol=1e-4)
