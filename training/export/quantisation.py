"""From a network to an ONNX graph that computes in integers of 8 bits.

    tile ─▶ float ─▶ ▮ ───── crop ─────┐                    ▮ convolution in integers
         convolution ↓                 ├─▶ ▮▮ ─▶ float ─▶ logits
                    pool ─▶ ▮▮ ▮▮ ─▶ ⇅ ┘       convolution  ⇅ up-convolution in integers

Only convolutions compute. All between them moves bytes, which takes one step for both that meet in
a skip connection, and one value for 0: that of what a ReLU gives, and `raise_up_convolutions` makes
it that of up-convolutions as well. A ReLU is then what cutting at 0 does, and is not written.

The first convolution reads the image and the last one gives the logits. Both stay in float: they
cost little, and what they rounded would be lost for good.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from model.architecture import Architecture
from model.geometry import Geometry
from model.network import UNet
from training.export.calibration import Calibration
from training.export.graph import name_ports
from training.export.rounding import TINY, Numbers, raise_up_convolutions, round_parameters

LARGEST_ACTIVATION = 255
OPSET = 20
IR_VERSION = 10


@dataclass(frozen=True, slots=True)
class Activation:
    """A tensor of the graph: (N, C, H, W) uint8, each 1 worth a step."""

    name: str
    step: float


@dataclass(slots=True)
class Graph:
    """Nodes and constants, in the order in which they were added."""

    nodes: list[NodeProto] = field(default_factory=list)
    constants: list[TensorProto] = field(default_factory=list)

    def constant(self, name: str, value: object, kind: type[np.generic]) -> str:
        """Add a constant."""
        self.constants.append(numpy_helper.from_array(np.asarray(value, kind), name))
        return name

    def node(self, kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        """Add a node of one output, which has its name."""
        self.nodes.append(helper.make_node(kind, inputs, [output], output, **attributes))
        return output

    def serialise(self, architecture: Architecture) -> bytes:
        """Give the bytes of the whole, with the ports that every graph of ours has."""
        channels = {"tile": architecture.in_channels, "logits": architecture.num_classes}
        tile, logits = (
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["", channels[name], "", ""])
            for name in channels
        )
        graph = helper.make_graph(self.nodes, "unet", [tile], [logits], self.constants)
        opset = helper.make_opsetid("", OPSET)
        model: ModelProto = helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION)
        name_ports(model, Geometry(architecture.depth))
        onnx.checker.check_model(model)
        serialised: bytes = model.SerializeToString()
        return serialised


def quantise(network: UNet, calibration: Calibration) -> bytes:
    """Write a network as an ONNX graph in integers, with ports as in float.

    Args:
        network: The network.
        calibration: What its convolutions read and gave on training tiles; what is larger is cut.

    Returns:
        The serialised graph.
    """
    return _Quantiser(*raise_up_convolutions(network, calibration)).run()


class _Quantiser:
    """Walks the network as its `forward` does."""

    def __init__(self, network: UNet, calibration: Calibration) -> None:
        self.network = network
        self.calibration = calibration
        self.graph = Graph()
        self.zero = self.graph.constant("zero", 0, np.uint8)

    def run(self) -> bytes:
        depth = self.network.architecture.depth
        skips = []
        x = self._first("contracting.0.0")
        for level in range(depth):
            x = self._convolve(x, f"contracting.{level}.2", self._joint_step(level))
            skips.append(self._crop(x, level))
            x = self._convolve(self._pool(x, level), f"contracting.{level + 1}.0")
        x = self._convolve(x, f"contracting.{depth}.2")
        for level in reversed(range(depth)):
            x = self._join(skips[level], self._up(x, level), level)
            x = self._convolve(x, f"expansive.{level}.0")
            x = self._convolve(x, f"expansive.{level}.2")
        self._float_convolution(self._dequantise(x, "classifier"), "classifier", "logits")
        return self.graph.serialise(self.network.architecture)

    def _first(self, name: str) -> Activation:
        convolved = self._float_convolution("tile", name, f"{name}.float")
        return self._quantise(convolved, name, self._step(name))

    def _convolve(self, x: Activation, name: str, step: float | None = None) -> Activation:
        weight, bias = self._parameters(name)
        return self._integer_convolution(x, weight, bias, name, step or self._step(name))

    def _up(self, x: Activation, level: int) -> Activation:
        """Convolve 1×1 to four times the channels, and lay them out to twice the edges."""
        name = self._up_name(level)
        weight, bias = self._parameters(name)
        inputs, outputs, *_ = weight.shape
        packed = weight.transpose(3, 2, 1, 0).reshape(4 * outputs, inputs, 1, 1)
        step = self._joint_step(level)
        x = self._integer_convolution(x, packed, np.tile(bias, 4), name, step)
        return Activation(self._unpack(x.name, outputs), step)

    def _unpack(self, packed: str, channels: int) -> str:
        """Give (N, C, 2H, 2W) of (N, 2·2·C, H, W), whose channels count columns, rows and C.

        Written in channels-last order, in which ONNX Runtime convolves integers, so that only whole
        rows are moved; its DepthToSpace takes eight times as long.
        """
        graph, name = self.graph, f"{packed}.unpacked"
        wide = graph.constant(f"{name}.wide", [0, 0, -1, 2, channels], np.int64)
        edge = graph.constant(f"{name}.rows", [-1], np.int64)
        last = graph.constant(f"{name}.channels", [channels], np.int64)
        x = graph.node("Transpose", [packed], f"{name}.1", perm=[0, 2, 3, 1])
        x = graph.node("Reshape", [x, wide], f"{name}.2")
        batch = graph.node("Shape", [x], f"{name}.batch", start=0, end=1)
        columns = graph.node("Shape", [x], f"{name}.columns", start=2, end=3)
        shape = graph.node("Concat", [batch, edge, columns, last], f"{name}.shape", axis=0)
        x = graph.node("Transpose", [x], f"{name}.3", perm=[0, 1, 3, 2, 4])
        x = graph.node("Reshape", [x, shape], f"{name}.4")
        return graph.node("Transpose", [x], name, perm=[0, 3, 1, 2])

    def _pool(self, x: Activation, level: int) -> Activation:
        name = f"pooling.{level}"
        self.graph.node("MaxPool", [x.name], name, kernel_shape=[2, 2], strides=[2, 2])
        return Activation(name, x.step)

    def _crop(self, x: Activation, level: int) -> Activation:
        crop, name = self.network.crops[level], f"crop.{level}"
        places = {"starts": [crop, crop], "ends": [-crop, -crop], "axes": [2, 3]}
        inputs = [self.graph.constant(f"{name}.{key}", places[key], np.int64) for key in places]
        return Activation(self.graph.node("Slice", [x.name, *inputs], name), x.step)

    def _join(self, skip: Activation, up: Activation, level: int) -> Activation:
        name = self.graph.node("Concat", [skip.name, up.name], f"join.{level}", axis=1)
        return Activation(name, skip.step)

    def _integer_convolution(
        self, x: Activation, weight: Numbers, bias: Numbers, name: str, step: float
    ) -> Activation:
        rounded = round_parameters(weight, bias, self.calibration[name].mean_in, x.step)
        inputs = [
            self._dequantise(x, name),
            self._whole(f"{name}.weight", rounded.weight, rounded.weight_step, np.int8),
            self._whole(f"{name}.bias", rounded.bias, rounded.bias_step, np.int32),
        ]
        kernel = weight.shape[2:]
        output = self.graph.node("Conv", inputs, f"{name}.float", kernel_shape=kernel)
        return self._quantise(output, name, step)

    def _float_convolution(self, x: str, name: str, output: str) -> str:
        weight, bias = self._parameters(name)
        inputs = [
            x,
            self.graph.constant(f"{name}.weight", weight, np.float32),
            self.graph.constant(f"{name}.bias", bias, np.float32),
        ]
        return self.graph.node("Conv", inputs, output, kernel_shape=weight.shape[2:])

    def _quantise(self, x: str, name: str, step: float) -> Activation:
        inputs = [x, self.graph.constant(f"{name}.step", step, np.float32), self.zero]
        return Activation(self.graph.node("QuantizeLinear", inputs, f"{name}.uint8"), step)

    def _dequantise(self, x: Activation, reader: str) -> str:
        step = self.graph.constant(f"{reader}.read.step", x.step, np.float32)
        return self.graph.node("DequantizeLinear", [x.name, step, self.zero], f"{reader}.read")

    def _whole(self, name: str, whole: object, step: object, kind: type[np.generic]) -> str:
        inputs = [
            self.graph.constant(f"{name}.whole", whole, kind),
            self.graph.constant(f"{name}.step", step, np.float32),
        ]
        return self.graph.node("DequantizeLinear", inputs, name, axis=0)

    def _parameters(self, name: str) -> tuple[Numbers, Numbers]:
        weight, bias = self.network.get_submodule(name).parameters()
        return weight.detach().double().numpy(), bias.detach().double().numpy()

    def _step(self, name: str) -> float:
        largest = max(float(self.calibration[name].highest.max()), TINY)
        return float(np.float32(largest / LARGEST_ACTIVATION))

    def _joint_step(self, level: int) -> float:
        """Of a skip connection and of the up-convolution that it meets."""
        return max(self._step(f"contracting.{level}.2"), self._step(self._up_name(level)))

    def _up_name(self, level: int) -> str:
        within = ".0" if self.network.architecture.variant == "release" else ""
        return f"up_convolutions.{level}{within}"
