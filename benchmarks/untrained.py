"""An artefact that nobody trained, for where the service is measured and not the network."""

from datetime import date
from pathlib import Path

import torch

from model.architecture import Architecture
from model.artefact import ClassInfo, Manifest, TrainingRecord, pack
from model.network import UNet
from training.export.graph import export_graph

COLOURS = ("#000000", "#e69f00", "#56b4e9", "#009e73")


def write_artefact(path: Path, architecture: Architecture) -> None:
    """Write a network of random weights, the same each time."""
    torch.manual_seed(0)
    ids = range(architecture.num_classes)
    manifest = Manifest(
        name=path.stem,
        architecture=architecture,
        classes=tuple(ClassInfo(id=i, name=f"class-{i}", colour=COLOURS[i]) for i in ids),
        training=TrainingRecord(
            data="none",
            licence="none",
            data_sha256="0" * 64,
            training_images=(),
            validation_images=(),
            steps=0,
            command="none",
        ),
        created=date(2026, 1, 1),
        software={},
    )
    path.write_bytes(pack(export_graph(UNet(architecture).eval(), "fp32"), manifest))
