"""What tests of several packages share: small exported artefacts."""

import functools
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import torch

from model.architecture import Architecture
from model.artefact import ClassInfo, Manifest, TrainingRecord, pack
from model.network import UNet
from model.planner import TileShapes
from training.export.graph import export_graph

ROOT = Path(__file__).parents[1]
DATA = ROOT.parent / "shared" / "data"
COLOURS = ("#000000", "#e69f00", "#56b4e9", "#009e73")

torch.set_num_threads(1)  # small networks gain nothing from more, and wait for each other

MakeArtefact = Callable[..., Path]


def network_of(architecture: Architecture) -> UNet:
    """Build a network with weights that are the same in every run."""
    torch.manual_seed(0)
    return UNet(architecture).eval()


@functools.cache
def graph_of(architecture: Architecture) -> bytes:
    """Export a network once for all tests: tracing takes seconds."""
    return export_graph(network_of(architecture), "fp32")


def manifest_of(architecture: Architecture, **changes: Any) -> Manifest:
    """Describe a network that nobody trained."""
    fields: dict[str, Any] = {
        "name": "tiny",
        "architecture": architecture,
        "classes": tuple(
            ClassInfo(id=index, name=f"class-{index}", colour=COLOURS[index])
            for index in range(architecture.num_classes)
        ),
        "training": TrainingRecord(
            data="none",
            licence="none",
            data_sha256="0" * 64,
            training_images=(),
            validation_images=(),
            steps=0,
            command="none",
        ),
        "created": date(2026, 1, 1),
        "software": {},
    }
    return Manifest(**(fields | changes))


def square(edge: int) -> TileShapes:
    """Allow square tiles of one edge alone, in px."""
    return TileShapes(edge**2, (edge,))


@pytest.fixture
def make_artefact(tmp_path: Path) -> MakeArtefact:
    """Give a function that writes an artefact of random weights."""

    def make(
        architecture: Architecture | None = None, file: str = "tiny.onnx", **changes: Any
    ) -> Path:
        architecture = architecture or Architecture(base_channels=4)
        path = tmp_path / file
        path.write_bytes(pack(graph_of(architecture), manifest_of(architecture, **changes)))
        return path

    return make
