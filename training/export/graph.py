"""From a network to an ONNX graph of any batch and size, silent about where it was made."""

import copy
import logging
import warnings

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from torch.export import Dim

from model.errors import ParityError
from model.geometry import Geometry
from model.network import UNet
from training.settings import StoredPrecision

PARITY_TOLERANCE = 1e-4
"""Largest difference of a logit, relative to the largest logit, or to 1 if that is smaller."""
LARGEST_BOTTOM_EDGE = 1 << 16
FLOAT16_SUFFIX = ".float16"
"""Ends the name of parameters that are stored as float16."""


def export_graph(network: UNet, precision: StoredPrecision) -> bytes:
    """Export a network to a serialised ONNX graph whose batch and edges are dynamic.

    Raises:
        ParityError: if the graph does not give what the network gives, at its precision.
    """
    if precision == "fp16":
        network = round_to_float16(network)
    model = to_onnx(network)
    strip(model)
    name_ports(model, Geometry(network.architecture.depth))
    if precision == "fp16":
        store_as_float16(model)
    onnx.checker.check_model(model)
    graph: bytes = model.SerializeToString()
    check_parity(network, graph)
    return graph


def round_to_float16(network: UNet) -> UNet:
    """Copy a network with the parameters that its float16 file will have."""
    rounded = copy.deepcopy(network)
    with torch.no_grad():
        for parameter in rounded.parameters():
            parameter.copy_(parameter.half().float())
    return rounded


def to_onnx(network: UNet) -> ModelProto:
    """Trace a network; the crops of its skip connections become constants."""
    geometry = Geometry(network.architecture.depth)
    height = geometry.smallest_tiling_edge
    tile = torch.zeros(2, network.architecture.in_channels, height, height + geometry.stride)
    kh, kw = (
        Dim(name, min=geometry.smallest_bottom_edge, max=LARGEST_BOTTOM_EDGE)
        for name in ("kh", "kw")
    )
    edges = {2: geometry.stride * kh + geometry.offset, 3: geometry.stride * kw + geometry.offset}
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it warns of packages we do not use
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter's own internals
        program = torch.onnx.export(
            network,
            (tile,),
            dynamo=True,
            external_data=False,
            verbose=False,
            input_names=["tile"],
            output_names=["logits"],
            dynamic_shapes={"tile": {0: Dim("batch"), **edges}},
        )
    if program is None:
        raise ParityError("The exporter gave no graph.")
    return program.model_proto


def strip(model: ModelProto) -> None:
    """Remove what the exporter notes down for itself: stack traces, paths, intermediate shapes."""
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    graph.ClearField("value_info")


def name_ports(model: ModelProto, geometry: Geometry) -> None:
    """Say in the graph itself which edges go in and what comes out."""
    lost = geometry.offset - 2 * geometry.halo
    for port, offset in ((model.graph.input[0], geometry.offset), (model.graph.output[0], lost)):
        dims = port.type.tensor_type.shape.dim
        dims[0].dim_param = "batch"
        for axis, name in ((2, "kh"), (3, "kw")):
            dims[axis].dim_param = f"{geometry.stride}*{name} {'+-'[offset < 0]} {abs(offset)}"


def store_as_float16(model: ModelProto) -> None:
    """Store the weights as float16 behind a cast, which is folded when a session opens."""
    graph = model.graph
    casts: list[NodeProto] = []
    for tensor in graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or len(tensor.dims) < 2:
            continue
        name, stored = tensor.name, f"{tensor.name}{FLOAT16_SUFFIX}"
        half = numpy_helper.to_array(tensor).astype(np.float16)
        tensor.CopyFrom(numpy_helper.from_array(half, stored))
        casts.append(helper.make_node("Cast", [stored], [name], name=f"cast {name}", to=1))
    nodes = [*casts, *graph.node]
    graph.ClearField("node")
    graph.node.extend(nodes)


def check_parity(network: UNet, graph: bytes) -> None:
    """Hold a graph against its network, for several sizes and batches.

    Raises:
        ParityError: naming the shape and the difference.
    """
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    architecture = network.architecture
    small = Geometry(architecture.depth).smallest_edge
    step = Geometry(architecture.depth).stride
    random = torch.Generator().manual_seed(0)
    for batch, height, width in (
        (1, small, small),
        (2, small + step, small + 4 * step),
        (3, small + 2 * step, small),
    ):
        tile = torch.randn(batch, architecture.in_channels, height, width, generator=random)
        with torch.no_grad():
            expected = network(tile).numpy()
        shape = f"a batch of {batch} tiles of {height}×{width} px"
        try:
            (found,) = session.run(["logits"], {"tile": tile.numpy()})
        except Exception as exc:  # ONNX Runtime documents no errors of its own
            raise ParityError(f"The graph cannot run {shape}.") from exc
        difference = float(np.abs(found - expected).max())
        if not difference <= PARITY_TOLERANCE * max(1.0, float(np.abs(expected).max())):
            raise ParityError(f"Graph and network differ by {difference:.2e} on {shape}.")
