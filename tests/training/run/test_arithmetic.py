"""The arithmetic of training: what computes in bfloat16, and how pixels lie in memory."""

import pytest
import torch

from model.architecture import Architecture
from model.network import UNet
from training.run.arithmetic import arithmetic, laid_out, layout
from training.settings import Compute

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(
    ("compute", "dtype"), [("bfloat16", torch.bfloat16), ("float32", torch.float32)]
)
def test_convolutions_compute_in_what_was_planned(compute: Compute, dtype: torch.dtype) -> None:
    convolution = torch.nn.Conv2d(1, 2, 3)
    with arithmetic(CPU, compute):
        found = convolution(torch.zeros(1, 1, 8, 8))
    assert found.dtype == dtype


@pytest.mark.parametrize(
    ("device", "compute", "order"),
    [
        (CPU, "float32", torch.contiguous_format),
        (CPU, "bfloat16", torch.channels_last),
        (CUDA, "float32", torch.channels_last),
        (CUDA, "bfloat16", torch.channels_last),
    ],
)
def test_the_order_in_memory_follows_from_the_arithmetic(
    device: torch.device, compute: Compute, order: torch.memory_format
) -> None:
    assert layout(device, compute) == order


@pytest.mark.parametrize("compute", ["bfloat16", "float32"])
def test_a_network_is_the_same_in_any_order(compute: Compute) -> None:
    torch.manual_seed(0)
    network = UNet(Architecture(depth=1, base_channels=4)).eval()
    tile = torch.randn(1, 1, 44, 46)
    with torch.no_grad():
        before = network(tile)
        moved = laid_out(network, CPU, compute)
        after = moved(tile)
    weight = moved.get_parameter("contracting.0.0.weight")
    assert moved is network
    assert weight.is_contiguous(memory_format=layout(CPU, compute))
    torch.testing.assert_close(after, before)
