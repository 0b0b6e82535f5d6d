"""The manifest's score in bfloat16: measured where it can be, absent where not."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from model.artefact import Manifest
from model.geometry import Geometry
from model.runtime import Runtime
from model.sessions import processor
from model.sessions.onnx import OnnxSession
from tests.training.networks import bright_is_object, manifest_for, write_spots
from training.data.dataset import Dataset
from training.export import computation
from training.export.graph import export_graph
from training.scoring import settle_and_score


class Rounding(OnnxSession):
    """Computes as ONNX Runtime does, and says that it was in bfloat16."""

    def __init__(self, path: Path, data: bytes, geometry: Geometry, precision: str) -> None:
        super().__init__(path, data, 1, precision=precision)


class Ruinous(Rounding):
    """Rounds until nothing is left."""

    def run(self, tiles: NDArray[np.float32], /) -> NDArray[np.float32]:
        return 0 * super().run(tiles)


class Pretending(Rounding):
    """Takes any precision, and computes in float32."""

    @property
    def precision(self) -> str:
        return "fp32"


@pytest.fixture(scope="module")
def graph() -> bytes:
    return export_graph(bright_is_object(), "fp32")


@pytest.fixture(scope="module")
def spots(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return write_spots(tmp_path_factory.mktemp("spots"))


@pytest.fixture(autouse=True)
def has_bfloat16(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cpuinfo").write_text("flags : avx512_bf16\n")
    monkeypatch.setattr(processor, "CPUINFO", tmp_path / "cpuinfo")


def scored(
    folder: Path,
    graph: bytes,
    spots: Dataset,
    session: Any,
    monkeypatch: pytest.MonkeyPatch,
    **changes: Any,
) -> Manifest:
    """Score an artefact where that session would be OpenVINO's; give what was written."""
    monkeypatch.setattr(computation, "OpenvinoSession", session)
    path = folder / "model.onnx"
    draft = manifest_for(bright_is_object(), spots, **changes)
    settle_and_score(path, graph, draft, [spots[1]])
    return Runtime(path, "cpu", 1).manifest


def test_a_score_in_bfloat16_stands_beside_that_in_float32(
    tmp_path: Path, graph: bytes, spots: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = scored(tmp_path, graph, spots, Rounding, monkeypatch)
    found = manifest.precisions["bf16"]
    assert manifest.scores is not None
    assert (found.score, found.fp32) == ("ap50", manifest.scores.values["ap50"]["value"])
    assert found.this == found.fp32 > 0
    assert found.passed


def test_a_score_that_is_lost_is_written_and_does_not_pass(
    tmp_path: Path, graph: bytes, spots: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = scored(tmp_path, graph, spots, Ruinous, monkeypatch).precisions["bf16"]
    assert found.this < found.fp32
    assert not found.passed


def test_nothing_is_written_where_the_runtime_computes_in_float32_after_all(
    tmp_path: Path, graph: bytes, spots: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert scored(tmp_path, graph, spots, Pretending, monkeypatch).precisions == {}


def test_nothing_is_written_where_the_processor_has_no_bfloat16(
    tmp_path: Path, graph: bytes, spots: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpuinfo").write_text("flags : avx2\n")
    assert scored(tmp_path, graph, spots, Rounding, monkeypatch).precisions == {}


def test_a_graph_in_integers_has_no_floats_to_round(
    tmp_path: Path, graph: bytes, spots: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = scored(tmp_path, graph, spots, Rounding, monkeypatch, precision="int8")
    assert found.precisions == {}
