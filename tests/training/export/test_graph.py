"""The graph: one for every batch and size, equal to its network, silent about its maker."""

import os
import sys
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper

from model.architecture import Architecture
from model.errors import ParityError
from model.geometry import Geometry
from model.network import UNet
from training.export.graph import check_parity, export_graph, round_to_float16
from training.settings import StoredPrecision

PRECISIONS: tuple[StoredPrecision, ...] = ("fp32", "fp16")
GEOMETRY = Geometry(4)
Graphs = dict[StoredPrecision, bytes]


@pytest.fixture(scope="module")
def network() -> UNet:
    torch.manual_seed(0)
    return UNet(Architecture(base_channels=8)).eval()


@pytest.fixture(scope="module")
def graphs(network: UNet) -> Graphs:
    return {precision: export_graph(network, precision) for precision in PRECISIONS}


def tiles(batch: int, height: int, width: int, channels: int = 1) -> torch.Tensor:
    random = torch.Generator().manual_seed(batch * height + width)
    return torch.randn(batch, channels, height, width, generator=random)


def run_graph(graph: bytes, tile: torch.Tensor) -> Any:
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    return session.run(["logits"], {"tile": tile.numpy()})[0]


def messages(message: Any) -> list[Any]:
    """Give a protobuf message and all that it holds, at any depth."""
    found = [message]
    for field, value in message.ListFields():
        if field.message_type is not None:
            parts = [value] if hasattr(value, "ListFields") else value
            found += [inner for part in parts for inner in messages(part)]
    return found


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(
    ("batch", "height", "width"), [(1, 188, 188), (2, 220, 188), (5, 188, 300), (1, 444, 252)]
)
def test_every_batch_and_size_gives_what_the_network_gives(
    graphs: Graphs, network: UNet, precision: StoredPrecision, batch: int, height: int, width: int
) -> None:
    """A network of float16 is compared as it is stored: with its parameters rounded."""
    stored = network if precision == "fp32" else round_to_float16(network)
    tile = tiles(batch, height, width)
    with torch.no_grad():
        expected = stored(tile).numpy()
    found = run_graph(graphs[precision], tile)
    assert found.shape == (batch, 2, height - 184, width - 184)
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


def test_float16_differs_from_the_network_by_the_rounding_of_its_parameters(
    graphs: Graphs,
    network: UNet,
) -> None:
    tile = tiles(1, 188, 188)
    exact = run_graph(graphs["fp32"], tile)
    difference = np.abs(run_graph(graphs["fp16"], tile) - exact).max() / np.abs(exact).max()
    assert 1e-5 < difference < 1e-2


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_ports_name_their_batch_and_edges(graphs: Graphs, precision: StoredPrecision) -> None:
    session = onnxruntime.InferenceSession(graphs[precision], providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape == ["batch", 1, "16*kh + 60", "16*kw + 60"]
    assert session.get_outputs()[0].shape == ["batch", 2, "16*kh - 124", "16*kw - 124"]


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(
    "trace",
    [b".py", b"site-packages", b"stack_trace", b"Traceback", b"forward", sys.prefix, os.getcwd()],  # noqa: PTH109 (as text)
)
def test_the_bytes_hold_no_trace_of_the_machine(
    graphs: Graphs, precision: StoredPrecision, trace: bytes | str
) -> None:
    wanted = trace.encode() if isinstance(trace, str) else trace
    assert wanted not in graphs[precision]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_no_part_of_the_graph_has_a_doc_string_or_metadata(
    graphs: Graphs, precision: StoredPrecision
) -> None:
    parts = messages(onnx.load_from_string(graphs[precision]))
    assert len(parts) > 100
    assert not [part for part in parts if getattr(part, "doc_string", "")]
    assert not [part for part in parts if len(getattr(part, "metadata_props", ()))]


def test_the_graph_of_figure_1_has_57_nodes(graphs: Graphs) -> None:
    """Shape arithmetic in place of constant crops would make 140 of them."""
    assert len(onnx.load_from_string(graphs["fp32"]).graph.node) == 57


def test_float16_halves_the_file(graphs: Graphs) -> None:
    ratio = len(graphs["fp16"]) / len(graphs["fp32"])
    assert 0.49 < ratio < 0.53


def test_float16_stores_the_weights_of_all_23_layers_so(graphs: Graphs) -> None:
    graph = onnx.load_from_string(graphs["fp16"]).graph
    kinds = {tensor.name: tensor.data_type for tensor in graph.initializer if len(tensor.dims) > 1}
    assert len(kinds) == 23
    assert set(kinds.values()) == {onnx.TensorProto.FLOAT16}


def test_the_release_variant_is_exported() -> None:
    network = UNet(Architecture(3, 4, depth=1, base_channels=2, variant="release")).eval()
    graph = export_graph(network, "fp32")
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    edge = Geometry(1).edge_for(30)
    tile = tiles(2, edge, edge + 2, channels=3)
    with torch.no_grad():
        expected = network(tile).numpy()
    found = session.run(["logits"], {"tile": tile.numpy()})[0]
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


def test_a_graph_of_other_parameters_is_not_exported(
    graphs: Graphs, network: UNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = onnx.load_from_string(graphs["fp32"])
    monkeypatch.setattr("training.export.graph.to_onnx", lambda _: graph)
    with pytest.raises(ParityError, match="Graph and network differ"):
        export_graph(UNet(network.architecture).eval(), "fp32")


@pytest.mark.parametrize("change", [2e-3, float("nan")])
def test_a_graph_with_one_changed_weight_fails_the_parity_check(
    graphs: Graphs, network: UNet, change: float
) -> None:
    graph = onnx.load_from_string(graphs["fp32"])
    tensor = next(t for t in graph.graph.initializer if t.name == "classifier.weight")
    weights = numpy_helper.to_array(tensor).copy()
    weights[1, 0, 0, 0] += change * np.abs(weights).max() if change == change else change
    tensor.CopyFrom(numpy_helper.from_array(weights, tensor.name))
    with pytest.raises(ParityError, match=r"differ by .* on a batch of 1 tiles of 188×188 px"):
        check_parity(network, graph.SerializeToString())


def test_a_graph_that_is_right_for_one_size_alone_fails_the_parity_check(
    graphs: Graphs,
    network: UNet,
) -> None:
    """Its lowest skip connection ends where that of the smallest tile does."""
    graph = onnx.load_from_string(graphs["fp32"])
    ends = [node.input[2] for node in graph.graph.node if node.op_type == "Slice"]
    tensor = next(t for t in graph.graph.initializer if t.name == ends[0])
    cropped = numpy_helper.to_array(tensor).copy()
    smallest_skip = GEOMETRY.contracting_edges(GEOMETRY.smallest_edge)[3]
    tensor.CopyFrom(numpy_helper.from_array(np.full_like(cropped, smallest_skip - 4), tensor.name))
    with pytest.raises(ParityError, match="cannot run a batch of 2 tiles of 204×252 px"):
        check_parity(network, graph.SerializeToString())
