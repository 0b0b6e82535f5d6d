"""OpenVINO gives the labels of ONNX Runtime off ties, and says what it computes in."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from model.architecture import Architecture
from model.errors import DeviceError, InferenceFailed
from model.geometry import Geometry
from model.runtime import Runtime
from model.sessions.onnx import OnnxSession
from model.sessions.openvino import OpenvinoSession
from tests.conftest import MakeArtefact, graph_of
from tests.training.export.test_quantisation import calibrate
from tests.training.networks import drawn
from training.export.graph import store_as_float16
from training.export.quantisation import quantise

openvino = pytest.importorskip("openvino", reason="the extra `openvino` is not installed")

HERE = Path("graph")
SMALL = Architecture(base_channels=4)
GEOMETRY = Geometry(SMALL.depth)
SHALLOW = Architecture(depth=2, base_channels=8)
SHAPES = [(1, 204, 188), (2, 188, 236), (3, 188, 188), (1, 204, 188)]
"""Tiles, height and width, of both depths; sizes come and come again, as in a service."""
LOGIT_TOLERANCE = 1e-4
"""As for ONNX Runtime against the network: of the largest logit."""
INTEGER_TOLERANCE = 0.005
"""In the mean, of the largest logit: in integers a number between two steps may go to either."""


def floats() -> bytes:
    return graph_of(SMALL)


def stored_as_float16() -> bytes:
    model = onnx.load_from_string(graph_of(SMALL))
    store_as_float16(model)
    data: bytes = model.SerializeToString()
    return data


def in_integers() -> bytes:
    network = drawn(SHALLOW)
    return quantise(network, calibrate(network))


def tiles(count: int, height: int, width: int) -> NDArray[np.float32]:
    shape = (count, 1, height, width)
    return np.random.default_rng(width).uniform(-1, 1, shape).astype(np.float32)


def both(data: bytes, geometry: Geometry) -> tuple[OpenvinoSession, OnnxSession]:
    return OpenvinoSession(HERE, data, geometry, 1), OnnxSession(HERE, data, 1)


@pytest.mark.parametrize("graph", [floats, stored_as_float16])
def test_logits_and_labels_are_those_of_onnx_runtime_for_tiles_of_any_size(
    graph: Callable[[], bytes],
) -> None:
    ours, theirs = both(graph(), GEOMETRY)
    for shape in SHAPES:
        batch = tiles(*shape)
        found, wanted = ours.run(batch), theirs.run(batch)
        tolerance = LOGIT_TOLERANCE * float(np.abs(wanted).max())
        assert (found.dtype, found.shape) == (wanted.dtype, wanted.shape)
        assert np.abs(found - wanted).max() < tolerance
        low, high = np.sort(wanted, axis=1).transpose(1, 0, 2, 3)
        off_ties = high - low > 2 * tolerance
        assert off_ties.mean() > 0.9
        assert np.array_equal(found.argmax(1)[off_ties], wanted.argmax(1)[off_ties])


def test_integers_give_what_they_give_in_onnx_runtime() -> None:
    """They would not if the batch were left open: then the mean error is several times this."""
    ours, theirs = both(in_integers(), Geometry(SHALLOW.depth))
    for shape in SHAPES:
        batch = tiles(*shape)
        found, wanted = ours.run(batch), theirs.run(batch)
        assert np.abs(found - wanted).mean() < INTEGER_TOLERANCE * np.abs(wanted).max()


def test_what_a_run_gave_stays_when_the_next_one_comes() -> None:
    session = OpenvinoSession(HERE, floats(), GEOMETRY, 1)
    batch = tiles(1, 188, 188)
    first = session.run(batch)
    before = first.copy()
    session.run(-batch)
    assert np.array_equal(first, before)


def test_a_session_says_what_runs_it_where_and_in_what() -> None:
    for data, precision in ((floats(), "fp32"), (in_integers(), "int8")):
        session = OpenvinoSession(HERE, data, GEOMETRY, 1)
        found = session.provider, session.device, session.precision
        assert found == ("openvino", "cpu", precision)


def test_bfloat16_is_what_was_had_and_not_what_was_asked_for() -> None:
    has_it = "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    session = OpenvinoSession(HERE, floats(), GEOMETRY, 1, precision="bf16")
    assert session.precision == ("bf16" if has_it else "fp32")


def test_what_is_no_graph_is_refused() -> None:
    with pytest.raises(DeviceError, match=r"OpenVINO cannot run /a/b\.onnx"):
        OpenvinoSession(Path("/a/b.onnx"), b"no graph", GEOMETRY)


@pytest.mark.parametrize("edge", [100, 190])
def test_a_tile_that_does_not_fit_is_an_error_of_ours(
    make_artefact: MakeArtefact, edge: int
) -> None:
    """OpenVINO itself would answer, with what its buffers hold."""
    runtime = Runtime(make_artefact(SMALL), "openvino", 1)
    runtime.warm_up((188, 188))
    with pytest.raises(InferenceFailed, match=f"1×1×188×{edge}"):
        runtime.run(np.zeros((1, 1, 188, edge), np.float32))


def test_asking_for_it_where_it_is_not_installed_names_the_extra(
    make_artefact: MakeArtefact, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(DeviceError, match="Install the extra `openvino`"):
        Runtime(make_artefact(SMALL), "openvino", 1)
