"""The network, against figure 1 of the paper."""

import math

import pytest
import torch
from torch import Tensor, nn

from model.architecture import Architecture
from model.geometry import Geometry
from model.network import UNet, centre_crop

SMALL = Architecture(base_channels=2)


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def trace(network: UNet, edge: int) -> dict[str, tuple[int, ...]]:
    """Record the shape (C, H, W) that every module gives."""
    shapes: dict[str, tuple[int, ...]] = {}

    def record(name: str) -> None:
        def hook(_module: nn.Module, _inputs: object, output: Tensor) -> None:
            shapes[name] = tuple(output.shape[1:])

        network.get_submodule(name).register_forward_hook(hook)

    for name, _ in network.named_modules():
        if name:
            record(name)
    with torch.no_grad():
        network(torch.zeros(1, network.architecture.in_channels, edge, edge))
    return shapes


def test_the_paper_s_network_has_31_030_658_parameters() -> None:
    assert parameters(UNet(Architecture())) == 31_030_658


def test_the_release_has_31_100_354_parameters() -> None:
    assert parameters(UNet(Architecture(variant="release"))) == 31_100_354


def test_the_network_has_23_convolutional_layers() -> None:
    kinds = (nn.Conv2d, nn.ConvTranspose2d)

    assert sum(isinstance(module, kinds) for module in UNet(SMALL).modules()) == 23


def test_a_tile_of_572_px_gives_388_px_of_every_class() -> None:
    network = UNet(Architecture(in_channels=3, num_classes=5, base_channels=2))

    with torch.no_grad():
        assert network(torch.zeros(2, 3, 572, 572)).shape == (2, 5, 388, 388)


def test_every_level_has_the_size_and_channels_of_figure_1() -> None:
    shapes = trace(UNet(SMALL), 572)

    contracting = [shapes[f"contracting.{level}"] for level in range(5)]
    expansive = [shapes[f"expansive.{level}"] for level in range(4)]
    assert contracting == [(2, 568, 568), (4, 280, 280), (8, 136, 136), (16, 64, 64), (32, 28, 28)]
    assert expansive == [(2, 388, 388), (4, 196, 196), (8, 100, 100), (16, 52, 52)]


def test_up_convolutions_double_the_edge_and_halve_the_channels() -> None:
    shapes = trace(UNet(SMALL), 572)

    ups = [shapes[f"up_convolutions.{level}"] for level in range(4)]
    assert ups == [(2, 392, 392), (4, 200, 200), (8, 104, 104), (16, 56, 56)]


def test_the_release_has_twice_the_channels_in_its_last_up_convolution_and_no_negative_ones() -> (
    None
):
    network = UNet(Architecture(base_channels=2, variant="release"))
    seen: list[Tensor] = []
    network.up_convolutions[0].register_forward_hook(lambda _m, _i, output: seen.append(output))
    with torch.no_grad():
        network(torch.randn(1, 1, 188, 188))

    assert seen[0].shape[1] == 4
    assert seen[0].min() == 0


def test_a_centre_crop_keeps_the_middle() -> None:
    skip = torch.arange(36.0).reshape(1, 1, 6, 6)

    assert centre_crop(skip, 2)[0, 0].tolist() == [[14, 15], [20, 21]]


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_other_depths_follow_their_geometry(depth: int) -> None:
    geometry = Geometry(depth)
    edge = geometry.edge_for(30)
    network = UNet(Architecture(base_channels=2, depth=depth))

    with torch.no_grad():
        output = network(torch.zeros(1, 1, edge, edge + geometry.stride))

    assert output.shape[2:] == (geometry.output_edge(edge), geometry.output_edge(edge) + 2**depth)


def test_weights_are_drawn_with_a_deviation_of_root_2_over_n() -> None:
    torch.manual_seed(0)
    for name, module in UNet(Architecture(base_channels=32)).named_modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nodes = module.in_channels * (
                math.prod(module.kernel_size) if isinstance(module, nn.Conv2d) else 1
            )
            wanted = math.sqrt(2 / nodes)
            tolerance = 5 * wanted / math.sqrt(2 * module.weight.numel())
            assert module.weight.std().item() == pytest.approx(wanted, abs=tolerance), name
            assert module.bias is not None
            assert not module.bias.any(), name


def test_activations_keep_their_scale_through_the_contracting_path() -> None:
    torch.manual_seed(0)
    network = UNet(Architecture(base_channels=16)).eval()
    with torch.no_grad():
        x = torch.randn(1, 1, 188, 188)
        scales = []
        for level in network.contracting:
            x = level(x)
            scales.append(x.pow(2).mean().sqrt().item())
            x = network.pooling(x)

    assert max(scales) / min(scales) < 10


def test_dropout_acts_at_the_end_of_the_contracting_path_in_training_alone() -> None:
    network = UNet(SMALL)
    tile = torch.randn(1, 1, 188, 188)
    torch.manual_seed(0)
    with torch.no_grad():
        trained = [network.train()(tile) for _ in range(2)]
        evaluated = [network.eval()(tile) for _ in range(2)]

    assert not torch.equal(*trained)
    assert torch.equal(*evaluated)
