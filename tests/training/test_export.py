"""Export: one graph for every batch and size, equal to its network, silent about its maker."""

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper

from model.architecture import Architecture
from model.artefact import read_manifest
from model.errors import CheckpointError, ParityError
from model.geometry import Geometry
from model.network import UNet
from model.runtime import Runtime
from tests.training.conftest import Exported, make_manifest, save_network
from training import checkpoint
from training.export import check_parity, export, export_graph, main, round_to_float16
from training.settings import StoredPrecision

PRECISIONS = ("fp32", "fp16")
GEOMETRY = Geometry(4)


def tiles(batch: int, height: int, width: int, channels: int = 1) -> torch.Tensor:
    random = torch.Generator().manual_seed(batch * height + width)
    return torch.randn(batch, channels, height, width, generator=random)


def run_graph(path: Path, tile: torch.Tensor) -> Any:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(["logits"], {"tile": tile.numpy()})[0]


def graph_of(path: Path) -> bytes:
    return path.read_bytes()[: Runtime(path, "cpu").manifest.graph_bytes]


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
    exported: Exported, precision: StoredPrecision, batch: int, height: int, width: int
) -> None:
    """A network of float16 is compared as it is stored: with its parameters rounded."""
    network = exported.network if precision == "fp32" else round_to_float16(exported.network)
    tile = tiles(batch, height, width)
    with torch.no_grad():
        expected = network(tile).numpy()
    found = run_graph(exported.path(precision), tile)
    assert found.shape == (batch, 2, height - 184, width - 184)
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


def test_float16_differs_from_the_network_by_the_rounding_of_its_parameters(
    exported: Exported,
) -> None:
    tile = tiles(1, 188, 188)
    exact = run_graph(exported.fp32, tile)
    difference = np.abs(run_graph(exported.fp16, tile) - exact).max() / np.abs(exact).max()
    assert 1e-5 < difference < 1e-2


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_ports_name_their_batch_and_edges(
    exported: Exported, precision: StoredPrecision
) -> None:
    session = onnxruntime.InferenceSession(
        exported.path(precision), providers=["CPUExecutionProvider"]
    )
    assert session.get_inputs()[0].shape == ["batch", 1, "16*kh + 60", "16*kw + 60"]
    assert session.get_outputs()[0].shape == ["batch", 2, "16*kh - 124", "16*kw - 124"]


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(
    "trace",
    [b".py", b"site-packages", b"stack_trace", b"Traceback", b"forward", sys.prefix, os.getcwd()],  # noqa: PTH109 (as text)
)
def test_the_bytes_hold_no_trace_of_the_machine(
    exported: Exported, precision: StoredPrecision, trace: bytes | str
) -> None:
    wanted = trace.encode() if isinstance(trace, str) else trace
    assert wanted not in graph_of(exported.path(precision))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_no_part_of_the_graph_has_a_doc_string_or_metadata(
    exported: Exported, precision: StoredPrecision
) -> None:
    parts = messages(onnx.load_from_string(graph_of(exported.path(precision))))
    assert len(parts) > 100
    assert not [part for part in parts if getattr(part, "doc_string", "")]
    assert not [part for part in parts if len(getattr(part, "metadata_props", ()))]


def test_the_graph_of_figure_1_has_57_nodes(exported: Exported) -> None:
    """Shape arithmetic in place of constant crops would make 140 of them."""
    assert len(onnx.load_from_string(graph_of(exported.fp32)).graph.node) == 57


def test_float16_halves_the_file(exported: Exported) -> None:
    ratio = exported.fp16.stat().st_size / exported.fp32.stat().st_size
    assert 0.49 < ratio < 0.53


def test_float16_stores_the_weights_of_all_23_layers_so(exported: Exported) -> None:
    graph = onnx.load_from_string(graph_of(exported.fp16)).graph
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
    exported: Exported, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = onnx.load_from_string(graph_of(exported.fp32))
    monkeypatch.setattr("training.export.to_onnx", lambda _: graph)
    with pytest.raises(ParityError, match="Graph and network differ"):
        export_graph(UNet(exported.network.architecture).eval(), "fp32")


@pytest.mark.parametrize("change", [2e-3, float("nan")])
def test_a_graph_with_one_changed_weight_fails_the_parity_check(
    exported: Exported, change: float
) -> None:
    graph = onnx.load_from_string(graph_of(exported.fp32))
    tensor = next(t for t in graph.graph.initializer if t.name == "classifier.weight")
    weights = numpy_helper.to_array(tensor).copy()
    weights[1, 0, 0, 0] += change * np.abs(weights).max() if change == change else change
    tensor.CopyFrom(numpy_helper.from_array(weights, tensor.name))
    with pytest.raises(ParityError, match=r"differ by .* on a batch of 1 tiles of 188×188 px"):
        check_parity(exported.network, graph.SerializeToString())


def test_a_graph_that_is_right_for_one_size_alone_fails_the_parity_check(
    exported: Exported,
) -> None:
    """Its lowest skip connection ends where that of the smallest tile does."""
    graph = onnx.load_from_string(graph_of(exported.fp32))
    ends = [node.input[2] for node in graph.graph.node if node.op_type == "Slice"]
    tensor = next(t for t in graph.graph.initializer if t.name == ends[0])
    cropped = numpy_helper.to_array(tensor).copy()
    smallest_skip = GEOMETRY.contracting_edges(GEOMETRY.smallest_edge)[3]
    tensor.CopyFrom(numpy_helper.from_array(np.full_like(cropped, smallest_skip - 4), tensor.name))
    with pytest.raises(ParityError, match="cannot run a batch of 2 tiles of 204×252 px"):
        check_parity(exported.network, graph.SerializeToString())


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_artefact_says_how_its_parameters_are_stored_and_where_classes_part(
    exported: Exported, precision: StoredPrecision
) -> None:
    manifest = Runtime(exported.path(precision), "cpu").manifest
    assert (manifest.precision, manifest.decision_threshold) == (precision, 0.35)


def test_the_artefact_says_after_how_many_steps_its_parameters_were_kept(
    exported: Exported,
) -> None:
    assert Runtime(exported.fp32, "cpu").manifest.training.steps == 3


def test_a_checkpoint_without_a_threshold_gives_an_artefact_without_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one with more than two classes has none; its manifest must be one that can be read."""
    network = UNet(Architecture(num_classes=3, depth=1, base_channels=1))
    save_network(tmp_path / "best.pt", network, threshold=None)
    monkeypatch.setattr("training.export.export_graph", lambda *_: b"")
    tail = onnx.load_from_string(export(tmp_path / "best.pt", "fp32"))
    metadata = {entry.key: entry.value for entry in tail.metadata_props}
    assert read_manifest(tmp_path, metadata).decision_threshold is None


@pytest.mark.parametrize("missing", ["model", "manifest", "validation"])
def test_a_checkpoint_that_lacks_a_part_is_refused(tmp_path: Path, missing: str) -> None:
    network = UNet(Architecture(depth=1, base_channels=1))
    manifest = make_manifest(network.architecture).model_dump_json()
    state = {
        "model": network.state_dict(),
        "manifest": manifest,
        "validation": {"step": 1, "threshold": None},
    }
    del state[missing]
    checkpoint.save(tmp_path / "best.pt", state)
    with pytest.raises(CheckpointError, match=r"best\.pt holds no network that fits its manifest"):
        export(tmp_path / "best.pt", "fp32")


def test_parameters_of_another_architecture_are_refused(tmp_path: Path) -> None:
    network = UNet(Architecture(depth=1, base_channels=1))
    manifest = make_manifest(Architecture(depth=1, base_channels=2)).model_dump_json()
    state = {
        "model": network.state_dict(),
        "manifest": manifest,
        "validation": {"step": 1, "threshold": None},
    }
    checkpoint.save(tmp_path / "best.pt", state)
    with pytest.raises(CheckpointError, match="fits its manifest"):
        export(tmp_path / "best.pt", "fp32")


def test_the_command_says_in_one_line_what_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path / "none.pt"), str(tmp_path / "out.onnx")]) == 1
    assert capsys.readouterr().err == f"There is no checkpoint {tmp_path}/none.pt.\n"


def test_the_command_refuses_a_precision_that_it_does_not_store(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main([str(tmp_path / "best.pt"), str(tmp_path / "out.onnx"), "--precision", "int8"])
    assert "invalid choice: 'int8'" in capsys.readouterr().err
