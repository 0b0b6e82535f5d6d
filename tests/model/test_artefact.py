"""The artefact: what is wrong with a file is found, and called by its name."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from model.architecture import Architecture
from model.artefact import DIGEST_KEY, MANIFEST_KEY, Manifest, PrecisionScore, pack
from model.errors import (
    ArtefactDamaged,
    ArtefactError,
    ArtefactNotFound,
    ManifestInvalid,
    ManifestMismatch,
    ManifestMissing,
    ManifestVersionError,
)
from model.runtime import Runtime
from tests.conftest import MakeArtefact, graph_of, manifest_of

SMALL = Architecture(base_channels=4)


def open_runtime(path: Path) -> Runtime:
    return Runtime(path, "cpu", threads=1)


def rewrite(path: Path, **fields: Any) -> None:
    """Change fields of a manifest and leave the rest of the file as it is."""
    model = onnx.load(path)
    properties = {entry.key: entry.value for entry in model.metadata_props}
    manifest = json.loads(properties[MANIFEST_KEY]) | fields
    helper.set_model_props(model, properties | {MANIFEST_KEY: json.dumps(manifest)})
    onnx.save(model, path)


def test_a_file_gives_back_the_manifest_it_was_written_with(make_artefact: MakeArtefact) -> None:
    path = make_artefact(name="nerves", decision_threshold=0.3)
    found = open_runtime(path).manifest

    graph_bytes = len(graph_of(SMALL))
    wanted = manifest_of(SMALL, name="nerves", decision_threshold=0.3, graph_bytes=graph_bytes)
    assert found == wanted


def test_a_manifest_of_before_precisions_were_measured_opens(
    make_artefact: MakeArtefact,
) -> None:
    fields = json.loads(open_runtime(make_artefact()).manifest.model_dump_json())
    del fields["precisions"]
    assert Manifest.model_validate(fields).precisions == {}


def test_a_manifest_of_before_main_scores_were_chosen_opens(make_artefact: MakeArtefact) -> None:
    fields = json.loads(open_runtime(make_artefact()).manifest.model_dump_json())
    for name in ("main_score", "ignore"):
        del fields["training"][name]
    record = Manifest.model_validate(fields).training
    assert (record.main_score, record.ignore) == (None, None)


def test_a_file_gives_back_what_it_scores_in_other_precisions(make_artefact: MakeArtefact) -> None:
    measured = {"bf16": PrecisionScore(score="ap50", fp32=0.75, this=0.7479)}
    assert open_runtime(make_artefact(precisions=measured)).manifest.precisions == measured


@pytest.mark.parametrize(
    ("fp32", "this", "passed"),
    [(0.75, 0.7479, True), (0.75, 0.7449, False), (0.75, 0.76, True), (0.5, 0.0, False)],
)
def test_a_precision_passes_that_loses_at_most_five_thousandths(
    fp32: float, this: float, passed: bool
) -> None:
    assert PrecisionScore(score="ap50", fp32=fp32, this=this).passed is passed


def test_a_score_that_is_no_number_cannot_be_recorded() -> None:
    with pytest.raises(ValueError, match="finite"):
        PrecisionScore(score="ap50", fp32=float("nan"), this=0.75)


def test_the_file_is_an_ordinary_onnx_file(make_artefact: MakeArtefact) -> None:
    path = make_artefact()

    onnx.checker.check_model(onnx.load(path), full_check=True)


def test_a_manifest_can_be_written_anew_without_touching_the_graph(
    make_artefact: MakeArtefact, tmp_path: Path
) -> None:
    data = make_artefact().read_bytes()
    graph = graph_of(SMALL)
    other = pack(graph, manifest_of(SMALL, name="other"))

    assert data[: len(graph)] == other[: len(graph)]
    (tmp_path / "other.onnx").write_bytes(other)
    assert open_runtime(tmp_path / "other.onnx").manifest.name == "other"


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtefactNotFound, match=r"nothing\.onnx"):
        open_runtime(tmp_path / "nothing.onnx")


@pytest.mark.parametrize("content", [b"", b"not ONNX at all", b"\x00" * 1000])
def test_a_file_that_is_no_graph_is_damaged(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(content)

    with pytest.raises(ArtefactError):
        open_runtime(path)


def test_a_truncated_file_is_refused_wherever_it_ends(make_artefact: MakeArtefact) -> None:
    path = make_artefact()
    data = path.read_bytes()
    for share in (0.1, 0.5, 0.9, 0.99):
        path.write_bytes(data[: int(len(data) * share)])
        with pytest.raises(ArtefactError):
            open_runtime(path)


def test_a_flipped_bit_in_the_weights_is_found(make_artefact: MakeArtefact) -> None:
    path = make_artefact()
    data = bytearray(path.read_bytes())
    weights = next(entry for entry in onnx.load(path).graph.initializer if len(entry.dims) == 4)
    data[data.find(weights.raw_data) + 5] ^= 1
    path.write_bytes(data)

    with pytest.raises(ArtefactDamaged, match="digest"):
        open_runtime(path)


def test_an_edited_manifest_is_found(make_artefact: MakeArtefact) -> None:
    path = make_artefact(decision_threshold=0.25)
    path.write_bytes(
        path.read_bytes().replace(b'"decision_threshold":0.25', b'"decision_threshold":0.75')
    )

    with pytest.raises(ArtefactDamaged, match="digest"):
        open_runtime(path)


def test_a_graph_without_a_manifest_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bare.onnx"
    path.write_bytes(graph_of(SMALL))

    with pytest.raises(ManifestMissing, match="without a manifest"):
        open_runtime(path)


def test_a_manifest_of_another_version_is_refused(make_artefact: MakeArtefact) -> None:
    path = make_artefact()
    rewrite(path, version=2)

    with pytest.raises(ManifestVersionError, match="version 2"):
        open_runtime(path)


@pytest.mark.parametrize(
    "fields",
    [
        {"name": "No Spaces"},
        {"classes": []},
        {"decision_threshold": 1.5},
        {"architecture": {"depth": 0}},
        {"unheard_of": 1},
    ],
)
def test_a_manifest_of_another_form_is_refused(
    make_artefact: MakeArtefact, fields: dict[str, Any]
) -> None:
    path = make_artefact()
    rewrite(path, **fields)

    with pytest.raises(ManifestInvalid):
        open_runtime(path)


def test_a_manifest_that_is_no_json_is_refused(make_artefact: MakeArtefact) -> None:
    path = make_artefact()
    model = onnx.load(path)
    helper.set_model_props(model, {MANIFEST_KEY: "{", DIGEST_KEY: "0"})
    onnx.save(model, path)

    with pytest.raises(ManifestInvalid, match="no JSON object"):
        open_runtime(path)


@pytest.mark.parametrize("field", ["in_channels", "num_classes"])
def test_a_graph_that_disagrees_with_its_manifest_is_refused(tmp_path: Path, field: str) -> None:
    path = tmp_path / "other.onnx"
    other = Architecture(**{"base_channels": 4, field: 3})  # type: ignore[arg-type]
    path.write_bytes(pack(graph_of(SMALL), manifest_of(other)))

    with pytest.raises(ManifestMismatch, match="its manifest describes"):
        open_runtime(path)


def test_a_graph_of_one_fixed_size_is_refused(make_artefact: MakeArtefact) -> None:
    path = make_artefact()
    model = onnx.load(path)
    for port, edge in ((model.graph.input[0], 188), (model.graph.output[0], 4)):
        for axis in (2, 3):
            port.type.tensor_type.shape.dim[axis].dim_value = edge
    onnx.save(model, path)

    with pytest.raises(ManifestMismatch, match="fixes a batch or an edge"):
        open_runtime(path)


def test_the_threshold_is_the_probability_of_class_1() -> None:
    manifest = manifest_of(SMALL, decision_threshold=0.8)
    odds = np.log(np.array([0.79, 0.81]) / np.array([0.21, 0.19])).astype(np.float32)
    logits = np.stack([np.zeros(2, np.float32), odds])[:, None, :]

    assert manifest.decide(logits).tolist() == [[0, 1]]


def test_without_a_threshold_the_most_probable_class_wins() -> None:
    manifest = manifest_of(Architecture(base_channels=4, num_classes=3))
    logits = np.array([[0.1, 2.0], [0.3, 1.0], [0.2, 3.0]], np.float32)[:, None, :]

    assert manifest.decide(logits).tolist() == [[1, 2]]


def test_a_threshold_needs_two_classes() -> None:
    with pytest.raises(ValueError, match="two classes"):
        manifest_of(Architecture(num_classes=3), decision_threshold=0.5)


def test_classes_are_numbered_from_zero() -> None:
    classes = [entry.model_dump() | {"id": entry.id + 1} for entry in manifest_of(SMALL).classes]

    with pytest.raises(ValueError, match="ids 0 to 1"):
        Manifest.model_validate(manifest_of(SMALL).model_dump() | {"classes": classes})
