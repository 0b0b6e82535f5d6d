"""The loss against equation 1 of the paper, written out pixel by pixel."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from training.run.loss import weighted_cross_entropy


def draw(classes: int = 3) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Draw logits (2, K, 4, 5), labels and weights."""
    random = torch.Generator().manual_seed(0)
    logits = 4 * torch.randn(2, classes, 4, 5, generator=random)
    labels = torch.randint(classes, (2, 4, 5), generator=random)
    return logits, labels, 0.1 + 10 * torch.rand(2, 4, 5, generator=random)


def equation_1(logits: NDArray[Any], labels: NDArray[Any], weights: NDArray[Any]) -> float:
    """Follow the paper: E = Σ w(x) log p_l(x)(x), here with its sign, over the sum of weights."""
    energy = 0.0
    for n, row, column in np.ndindex(*labels.shape):
        activations = [float(value) for value in logits[n, :, row, column]]
        total = sum(math.exp(value) for value in activations)
        probability = math.exp(activations[labels[n, row, column]]) / total
        energy -= float(weights[n, row, column]) * math.log(probability)
    return energy / float(weights.sum(dtype=np.float64))


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_the_loss_is_equation_1_over_the_sum_of_the_weights(classes: int) -> None:
    logits, labels, weights = draw(classes)
    expected = equation_1(logits.numpy(), labels.numpy(), weights.numpy())
    assert float(weighted_cross_entropy(logits, labels, weights)) == pytest.approx(expected, 1e-5)


def test_a_common_factor_of_all_weights_changes_nothing() -> None:
    logits, labels, weights = draw()
    once, more = (weighted_cross_entropy(logits, labels, weights * by) for by in (1, 7))
    assert float(more) == pytest.approx(float(once), 1e-6)


def test_a_pixel_without_weight_does_not_count() -> None:
    logits, labels, weights = draw()
    weights[0, 1, 2] = 0
    before = weighted_cross_entropy(logits, labels, weights)
    logits[0, :, 1, 2] += torch.tensor([50.0, -50.0, 7.0])
    assert torch.equal(weighted_cross_entropy(logits, labels, weights), before)


def test_logits_of_half_precision_are_summed_in_single_precision() -> None:
    logits, labels, weights = draw()
    rounded = logits.bfloat16()
    loss = weighted_cross_entropy(rounded, labels, weights)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, weighted_cross_entropy(rounded.float(), labels, weights))


def test_extreme_logits_give_a_finite_loss() -> None:
    logits = torch.tensor([1e4, -1e4]).view(1, 2, 1, 1)
    loss = weighted_cross_entropy(
        logits, torch.ones(1, 1, 1, dtype=torch.int64), torch.ones(1, 1, 1)
    )
    assert float(loss) == pytest.approx(2e4)


def test_a_tile_without_any_weight_has_no_loss_and_no_gradient() -> None:
    """As one has that lies where nothing was annotated."""
    logits, labels, weights = draw()
    logits.requires_grad_()
    loss = weighted_cross_entropy(logits, labels, weights * 0)
    loss.backward()  # type: ignore[no-untyped-call]  # torch's own
    assert float(loss.detach()) == 0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_the_losses_of_the_parts_of_a_batch_add_up_to_that_of_the_batch() -> None:
    logits, labels, weights = draw()
    parts = [
        weighted_cross_entropy(logits[tile], labels[tile], weights[tile], weights.sum())
        for tile in (slice(0, 1), slice(1, 2))
    ]
    whole = float(weighted_cross_entropy(logits, labels, weights))
    assert float(parts[0] + parts[1]) == pytest.approx(whole, 1e-6)
    assert parts[0] != parts[1]


def test_the_gradients_of_the_parts_add_up_too() -> None:
    logits, labels, weights = draw()
    logits.requires_grad_()
    (whole,) = torch.autograd.grad(weighted_cross_entropy(logits, labels, weights), logits)
    total = weights.sum()
    first = weighted_cross_entropy(logits[:1], labels[:1], weights[:1], total)
    (part,) = torch.autograd.grad(first, logits)
    np.testing.assert_allclose(part[:1], whole[:1], rtol=1e-5, atol=1e-9)
