"""Graphs that are written by hand, so that no network has to be exported."""

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from model.architecture import Architecture
from model.artefact import Manifest, pack
from tests.conftest import manifest_of


def cropping(architecture: Architecture) -> bytes:
    """Make a graph whose logits are the tile without its halo, times two."""
    halo = manifest_of(architecture).geometry.halo
    ports = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", channels, "h", "w"])
        for name, channels in (
            ("tile", architecture.in_channels),
            ("logits", architecture.num_classes),
        )
    ]
    constants = {
        "starts": np.array([halo, halo]),
        "ends": np.array([-halo, -halo]),
        "axes": np.array([2, 3]),
        "two": np.float32(2),
    }
    nodes = [
        helper.make_node("Slice", ["tile", "starts", "ends", "axes"], ["inner"]),
        helper.make_node("Mul", ["inner", "two"], ["logits"]),
    ]
    initializers = [
        numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()
    ]
    graph = helper.make_graph(nodes, "cropping", ports[:1], ports[1:], initializers)
    opset = helper.make_opsetid("", 20)
    return bytes(helper.make_model(graph, opset_imports=[opset], ir_version=10).SerializeToString())


def file_of(manifest: Manifest) -> bytes:
    """Pack such a graph as an artefact."""
    return pack(cropping(manifest.architecture), manifest)
