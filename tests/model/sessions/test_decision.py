"""The decision in the graph is that of the manifest, pixel by pixel."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from model.architecture import Architecture
from model.artefact import Manifest
from model.sessions.decision import decision
from model.sessions.onnx import OnnxSession
from tests.conftest import manifest_of
from tests.model.sessions.graphs import cropping, file_of


def describe(classes: int, **changes: Any) -> Manifest:
    architecture = Architecture(depth=1, base_channels=1, in_channels=classes, num_classes=classes)
    return manifest_of(architecture, **changes)


def labels_of(manifest: Manifest, tiles: NDArray[np.float32]) -> tuple[Any, Any]:
    """Give the labels of the graph, and those of the manifest for the graph's logits."""
    session = OnnxSession(Path("x.onnx"), file_of(manifest) + decision(manifest), threads=1)
    decided = np.stack([manifest.decide(logits) for logits in session.run(tiles)])
    return session.labels(tiles), decided


def noise(classes: int) -> NDArray[np.float32]:
    shape = (3, classes, 30, 44)
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("threshold", [1e-6, 0.25, 0.45, 0.5, 0.55, 0.999])
def test_a_threshold_decides_in_the_graph_as_in_the_manifest(threshold: float) -> None:
    manifest = describe(2, decision_threshold=threshold)
    assert manifest.margin is not None
    tiles = noise(2)
    tiles[:, 1] = tiles[:, 0] + manifest.margin / 2  # the graph doubles: at the bar, or next to it
    found, wanted = labels_of(manifest, tiles)
    assert (found.dtype, found.shape) == (np.uint8, wanted.shape)
    np.testing.assert_array_equal(found, wanted)
    np.testing.assert_array_equal(*labels_of(manifest, noise(2)))
    assert set(np.unique(found)) == {0, 1} or threshold == 0.5


@pytest.mark.parametrize("classes", [2, 3, 4])
def test_the_largest_logit_decides_in_the_graph_as_in_the_manifest(classes: int) -> None:
    found, wanted = labels_of(describe(classes), noise(classes))
    np.testing.assert_array_equal(found, wanted)
    assert set(np.unique(found)) == set(range(classes))


def test_of_equal_logits_the_first_decides() -> None:
    ties = np.round(noise(3))
    found, wanted = labels_of(describe(3), ties)
    np.testing.assert_array_equal(found, wanted)


def test_a_graph_with_its_decision_is_valid_onnx() -> None:
    for manifest in (describe(3), describe(2, decision_threshold=0.3)):
        whole = cropping(manifest.architecture) + decision(manifest)
        model = onnx.load_model_from_string(whole)
        onnx.checker.check_model(model, full_check=True)
        assert [port.name for port in model.graph.output] == ["logits", "labels"]
