"""A graph that computes in float16: what the types are, and that it gives the same answers.

A CPU without float16 arithmetic computes it in float32, between casts: so its numbers tell that the
graph is the same network of the same rounded parameters, not how a GPU rounds activations.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from model.architecture import Architecture
from model.artefact import Manifest, pack
from model.runtime import Runtime
from model.sessions.decision import decision
from model.sessions.half import in_float16
from model.sessions.onnx import OnnxSession
from tests.conftest import ROOT, graph_of, manifest_of
from tests.model.sessions.graphs import cropping

SMALL = Architecture(base_channels=4, num_classes=3)
SHIPPED = ROOT / "model" / "pretrained" / "em-membranes.onnx"


File = Callable[[], tuple[bytes, Manifest]]


def float32_file() -> tuple[bytes, Manifest]:
    return pack(graph_of(SMALL), manifest_of(SMALL)), manifest_of(SMALL)


def float16_file() -> tuple[bytes, Manifest]:
    return SHIPPED.read_bytes(), Runtime(SHIPPED, "cpu", threads=1).manifest


@pytest.mark.parametrize("file", [float32_file, float16_file])
def test_all_between_the_ports_is_float16(file: File) -> None:
    data, manifest = file()
    model = onnx.load_model_from_string(in_float16(data) + decision(manifest))
    onnx.checker.check_model(model, full_check=True)
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    types = {value.name: value.type.tensor_type.elem_type for value in inferred.value_info}
    heavy = [node for node in model.graph.node if node.op_type in ("Conv", "ConvTranspose")]
    assert len(heavy) == 23
    assert {types[node.output[0]] for node in heavy} == {TensorProto.FLOAT16}
    ports = [*model.graph.input, *model.graph.output]
    assert [(port.name, port.type.tensor_type.elem_type) for port in ports] == [
        ("tile", TensorProto.FLOAT),
        ("logits", TensorProto.FLOAT),
        ("labels", TensorProto.UINT8),
    ]


@pytest.mark.parametrize("file", [float32_file, float16_file])
def test_it_answers_as_the_graph_of_float32_does(file: File) -> None:
    data, manifest = file()
    shape = (2, manifest.architecture.in_channels, 204, 220)
    tiles = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)
    exact = OnnxSession(Path("exact.onnx"), data, threads=1).run(tiles)
    half = OnnxSession(Path("half.onnx"), in_float16(data) + decision(manifest), threads=1)
    found = half.run(tiles)
    assert 0 < np.abs(found - exact).max() < 5e-3 * np.abs(exact).max()
    decided = np.stack([manifest.decide(logits) for logits in found])
    np.testing.assert_array_equal(half.labels(tiles), decided)


def test_what_stands_behind_the_graph_stays() -> None:
    data, manifest = float32_file()
    assert in_float16(data).endswith(data[len(graph_of(SMALL)) :])
    assert manifest.name.encode() in in_float16(data)


def model_with(parameter: TensorProto) -> bytes:
    model = ModelProto.FromString(cropping(Architecture(depth=1, in_channels=2)))
    model.graph.initializer[3].CopyFrom(parameter)
    return bytes(model.SerializeToString())


def test_a_parameter_beyond_float16_is_refused() -> None:
    with pytest.raises(ValueError, match="too large"):
        in_float16(
            model_with(numpy_helper.from_array(np.float32(70_000) * np.ones(1, "f4"), "two"))
        )


def test_a_parameter_that_is_stored_otherwise_is_refused() -> None:
    with pytest.raises(ValueError, match="not as bytes"):
        in_float16(model_with(helper.make_tensor("two", TensorProto.FLOAT, [1], [2.0])))
