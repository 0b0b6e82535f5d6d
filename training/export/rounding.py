"""From parameters in float to parameters in whole steps, with what that takes from the answers."""

import copy
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from model.network import UNet
from training.export.calibration import Calibration

Numbers = NDArray[np.float64]

LARGEST_WEIGHT = 63
"""Weights have 7 of 8 bits: with all, a processor without VNNI overflows the 16 bits in which it
adds two products, and gives other numbers than those that were scored."""
LARGEST_BIAS = 1 << 30
TINY = 1e-12
"""Keeps the step of what is always 0 from being 0."""


@dataclass(frozen=True, slots=True)
class Rounded:
    """A convolution's parameters, as whole numbers of steps."""

    weight: NDArray[np.int8]
    """(out, in, h, w)"""
    weight_step: NDArray[np.float32]
    """(out,)"""
    bias: NDArray[np.int32]
    """(out,)"""
    bias_step: NDArray[np.float32]
    """(out,)"""


def round_parameters(
    weight: Numbers, bias: Numbers, mean_in: Numbers, input_step: float
) -> Rounded:
    """Round a convolution's parameters, each output channel in steps of its own.

    Rounded weights answer an input with a little more or less than their own did; in the mean over
    the calibration this is known, and taken from the bias.

    Args:
        weight: (out, in, h, w)
        bias: (out,)
        mean_in: (in,) mean of what the convolution reads.
        input_step: What 1 is worth in its input of integers.

    Source: Nagel et al. 2019, Data-free quantization, section 4.2.
    """
    smallest = np.maximum(np.abs(bias) / (input_step * LARGEST_BIAS), TINY)
    step = np.maximum(np.abs(weight).max((1, 2, 3)) / LARGEST_WEIGHT, smallest)
    step = step.astype(np.float32).astype(np.float64)
    whole = np.rint(weight / step[:, None, None, None])
    surplus = (whole * step[:, None, None, None] - weight).sum((2, 3)) @ mean_in
    bias_step = step * input_step
    return Rounded(
        whole.astype(np.int8),
        step.astype(np.float32),
        np.rint((bias - surplus) / bias_step).astype(np.int32),
        bias_step.astype(np.float32),
    )


def raise_up_convolutions(network: UNet, calibration: Calibration) -> tuple[UNet, Calibration]:
    """Make what up-convolutions give positive, so that 0 is the least of all activations.

    A constant is added to each channel's bias, and the convolution behind it subtracts what it
    gives for this constant. Without padding this is exact at the border, too. Where a ReLU follows
    an up-convolution there is nothing to do.

    Returns:
        A network that answers as the given one does, and what calibrating it would find.
    """
    if network.architecture.variant == "release":
        return network, calibration
    raised, found = copy.deepcopy(network), dict(calibration)
    for level in range(network.architecture.depth):
        up, behind = f"up_convolutions.{level}", f"expansive.{level}.0"
        given, read = found[up], found[behind]
        constant = np.maximum(-given.lowest, 0)
        mean_in = read.mean_in.copy()
        mean_in[-len(constant) :] += constant
        found[behind] = replace(read, mean_in=mean_in)
        found[up] = replace(given, lowest=given.lowest + constant, highest=given.highest + constant)
        _shift(raised, up, behind, torch.from_numpy(constant))
    return raised, found


def _shift(network: UNet, up: str, behind: str, constant: torch.Tensor) -> None:
    weight = network.get_parameter(f"{behind}.weight")[:, -len(constant) :].double()
    with torch.no_grad():
        network.get_parameter(f"{up}.bias").add_(constant)
        network.get_parameter(f"{behind}.bias").sub_(weight.sum((2, 3)) @ constant)
