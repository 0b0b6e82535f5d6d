"""The graph in integers: what it computes, where it computes it, and for which tiles."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from model.architecture import Architecture
from model.artefact import pack
from model.geometry import Geometry
from model.network import UNet, centre_crop
from model.runtime import Runtime
from tests.training.networks import drawn, manifest_for
from training.export.calibration import Calibration, observe
from training.export.quantisation import quantise

DEPTH = 2
EDGE = Geometry(DEPTH).edge_for(40)
"""Fits one pooling, too."""


def tiles(count: int, edge: int = EDGE, channels: int = 1) -> NDArray[np.float32]:
    """Draw smooth tiles, as images are."""
    random = torch.Generator().manual_seed(edge)
    coarse = torch.randn(count, channels, 12, 12, generator=random)
    smooth = functional.interpolate(coarse, (edge, edge), mode="bicubic", align_corners=False)
    return np.asarray(smooth.clamp(-1, 1))


def calibrate(network: UNet) -> Calibration:
    channels = network.architecture.in_channels
    return observe(network, [tile[np.newaxis] for tile in tiles(4, channels=channels)])


def run_graph(graph: bytes, batch: NDArray[np.float32]) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    logits: NDArray[np.float32] = session.run(["logits"], {"tile": batch})[0]
    return logits


@dataclass(frozen=True)
class Coarse:
    """An activation of whole steps above the least that its channels can have."""

    values: Tensor
    step: float
    least: Tensor

    @classmethod
    def of(cls, exact: Tensor, step: float, least: Tensor | None = None) -> Self:
        least = torch.zeros(exact.shape[1], dtype=exact.dtype) if least is None else least
        above = exact - least[:, None, None]
        values = (above / step).round().clamp(0, 255) * step + least[:, None, None]
        return cls(values, step, least)


class Simulation:
    """The network in float64, each number cut and rounded to what 8 bits have of it.

    Written with a least value of each channel's own, in place of raised up-convolutions.
    """

    def __init__(self, network: UNet, calibration: Calibration) -> None:
        self.network = network
        self.calibration = calibration
        self.has_relu = network.architecture.variant == "release"

    def run(self, tile: Tensor) -> Tensor:
        depth = self.network.architecture.depth
        skips = []
        first = functional.conv2d(tile.double(), *self.parameters("contracting.0.0"))
        x = Coarse.of(functional.relu(first), self.step("contracting.0.0"))
        for level in range(depth):
            x = self.convolve(x, f"contracting.{level}.2", self.joint_step(level))
            skips.append(x)
            x = replace(x, values=functional.max_pool2d(x.values, 2))
            x = self.convolve(x, f"contracting.{level + 1}.0")
        x = self.convolve(x, f"contracting.{depth}.2")
        for level in reversed(range(depth)):
            skip, up = skips[level], self.up(x, level)
            cropped = centre_crop(skip.values, self.network.crops[level])
            least = torch.cat([skip.least, up.least])
            x = Coarse(torch.cat([cropped, up.values], 1), skip.step, least)
            x = self.convolve(x, f"expansive.{level}.0")
            x = self.convolve(x, f"expansive.{level}.2")
        return functional.conv2d(x.values, *self.parameters("classifier"))

    def convolve(self, x: Coarse, name: str, step: float | None = None) -> Coarse:
        rounded = self.rounded(*self.parameters(name), name, x)
        exact = functional.relu(functional.conv2d(x.values, *rounded))
        return Coarse.of(exact, step or self.step(name))

    def up(self, x: Coarse, level: int) -> Coarse:
        """Four 1×1 convolutions, one for each pixel of the 2×2."""
        name, least = self.up_name(level), self.least(level)
        weight, bias = self.parameters(name)
        height, width = x.values.shape[2:]
        exact = torch.empty(len(x.values), len(bias), 2 * height, 2 * width, dtype=bias.dtype)
        for row, column in np.ndindex(2, 2):
            pixel = weight[:, :, row, column].T[:, :, None, None]
            rounded, its_bias = self.rounded(pixel, bias - least, name, x)
            given = functional.conv2d(x.values, rounded, its_bias + least)
            exact[:, :, row::2, column::2] = given
        return Coarse.of(exact, self.joint_step(level), least)

    def parameters(self, name: str) -> tuple[Tensor, Tensor]:
        weight, bias = self.network.get_submodule(name).parameters()
        return weight.detach().double(), bias.detach().double()

    def rounded(self, weight: Tensor, bias: Tensor, name: str, x: Coarse) -> tuple[Tensor, Tensor]:
        """Round weights to 63 steps a channel; take from the bias what that adds in the mean.

        The bias is rounded together with what the least input gives.
        """
        step = (weight.abs().amax((1, 2, 3), keepdim=True) / 63).float().double()
        coarse = (weight / step).round() * step
        surplus = (coarse - weight).sum((2, 3)) @ torch.from_numpy(self.calibration[name].mean_in)
        of_least = coarse.sum((2, 3)) @ x.least
        bias_step = step.flatten() * x.step
        whole = ((bias + of_least - surplus) / bias_step).round() * bias_step
        return coarse, whole - of_least

    def step(self, name: str) -> float:
        return float(np.float32(self.calibration[name].highest.max() / 255))

    def joint_step(self, level: int) -> float:
        up = self.calibration[self.up_name(level)].highest - self.least(level).numpy()
        return max(self.step(f"contracting.{level}.2"), float(np.float32(up.max() / 255)))

    def least(self, level: int) -> Tensor:
        lowest = torch.from_numpy(self.calibration[self.up_name(level)].lowest)
        return torch.zeros_like(lowest) if self.has_relu else lowest.clamp(max=0)

    def up_name(self, level: int) -> str:
        return f"up_convolutions.{level}{'.0' if self.has_relu else ''}"


ARCHITECTURES = [
    Architecture(depth=2, base_channels=8),
    Architecture(3, 4, depth=1, base_channels=5),
    Architecture(1, 3, depth=2, base_channels=4, variant="release"),
]


@pytest.fixture(scope="module", params=ARCHITECTURES, ids=str)
def network(request: pytest.FixtureRequest) -> UNet:
    return drawn(request.param)


@pytest.fixture(scope="module")
def calibration(network: UNet) -> Calibration:
    return calibrate(network)


@pytest.fixture(scope="module")
def graph(network: UNet, calibration: Calibration) -> bytes:
    return quantise(network, calibration)


def test_the_graph_computes_what_its_rounded_network_does(
    network: UNet, calibration: Calibration, graph: bytes
) -> None:
    """But where a number lies in the middle of two steps: then either may come of it."""
    batch = tiles(2, EDGE + 4, network.architecture.in_channels)
    with torch.no_grad():
        expected = Simulation(network, calibration).run(torch.from_numpy(batch)).numpy()
    error = np.abs(run_graph(graph, batch) - expected) / np.abs(expected).max()
    assert np.mean(error < 1e-5) > 0.95
    assert error.max() < 0.02


def test_the_answers_are_nearly_those_of_the_network(network: UNet, graph: bytes) -> None:
    batch = tiles(2, EDGE + 4, network.architecture.in_channels)
    with torch.no_grad():
        expected = network(torch.from_numpy(batch)).numpy()
    error = run_graph(graph, batch) - expected
    assert error.std() < 0.05 * expected.std()


def test_tiles_of_a_batch_are_answered_as_each_alone(network: UNet, graph: bytes) -> None:
    batch = tiles(3, channels=network.architecture.in_channels)
    alone = [run_graph(graph, tile[np.newaxis])[0] for tile in batch]
    np.testing.assert_array_equal(run_graph(graph, batch), alone)


def test_a_tile_is_answered_as_the_same_part_of_a_larger_one(network: UNet, graph: bytes) -> None:
    """Sums of integers do not depend on their order: there is no seam at all between tiles."""
    stride = 1 << network.architecture.depth
    (large,) = tiles(1, EDGE + 2 * stride, network.architecture.in_channels)
    small = large[:, stride : stride + EDGE, stride : stride + EDGE]
    whole, part = (run_graph(graph, pixels[np.newaxis])[0] for pixels in (large, small))
    edge = part.shape[1]
    np.testing.assert_allclose(
        part, whole[:, stride : stride + edge, stride : stride + edge], atol=1e-5
    )


def test_the_runtime_serves_the_graph(network: UNet, graph: bytes, tmp_path: Path) -> None:
    """It holds ports and digest against the manifest."""
    path = tmp_path / "int8.onnx"
    path.write_bytes(pack(graph, manifest_for(network, precision="int8")))
    runtime = Runtime(path, "cpu")
    batch = tiles(1, channels=network.architecture.in_channels)
    np.testing.assert_array_equal(runtime.run(batch), run_graph(graph, batch))


def test_the_ports_name_their_batch_and_edges() -> None:
    network = drawn(Architecture(depth=2, base_channels=2))
    session = onnxruntime.InferenceSession(
        quantise(network, calibrate(network)), providers=["CPUExecutionProvider"]
    )
    assert session.get_inputs()[0].shape == ["batch", 1, "4*kh + 12", "4*kw + 12"]
    assert session.get_outputs()[0].shape == ["batch", 2, "4*kh - 28", "4*kw - 28"]


def test_all_but_the_first_and_the_last_convolution_run_in_integers(
    graph: bytes, network: UNet, tmp_path: Path
) -> None:
    """And nothing else is computed: the graph that ONNX Runtime makes of ours shows it."""
    found = optimised(graph, tmp_path)
    convolutions = 5 * network.architecture.depth + 3
    assert found.count("QLinearConv") == convolutions - 2
    assert found.count("Conv") == 2
    assert (found.count("QuantizeLinear"), found.count("DequantizeLinear")) == (1, 1)
    assert not {"ConvTranspose", "QLinearConcat", "DepthToSpace", "Relu"} & set(found)


def optimised(graph: bytes, folder: Path) -> list[str]:
    """Give the kinds of the nodes that ONNX Runtime runs."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    nodes: Any = onnx.load(folder / "optimised.onnx").graph.node
    return [node.op_type for node in nodes]


def test_the_file_is_a_quarter_of_that_of_float32() -> None:
    network = drawn(Architecture(depth=2, base_channels=32))
    stored = 4 * sum(parameter.numel() for parameter in network.parameters())
    assert 0.25 < len(quantise(network, calibrate(network))) / stored < 0.27


def test_a_network_is_left_as_it_was() -> None:
    network = drawn(Architecture(depth=1, base_channels=2))
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    quantise(network, calibrate(network))
    assert all(torch.equal(before[name], it) for name, it in network.state_dict().items())


def test_a_layer_that_gives_nothing_is_no_obstacle() -> None:
    """As one that died in training."""
    network = drawn(Architecture(depth=1, base_channels=2))
    with torch.no_grad():
        network.get_parameter("contracting.1.0.weight").zero_()
        network.get_parameter("contracting.1.0.bias").fill_(-1)
    batch = tiles(1)
    with torch.no_grad():
        expected = network(torch.from_numpy(batch)).numpy()
    error = run_graph(quantise(network, calibrate(network)), batch) - expected
    assert error.std() < 0.1 * expected.std()
