"""What is slow to make, made once: a whole run."""

import contextlib
import io
import shlex
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import pytest
import torch

from model.architecture import Architecture
from model.artefact import ClassInfo, Manifest, TrainingRecord
from training import fit

BLOBS = Path(__file__).parents[2] / "docs" / "samples" / "blobs"
NETWORK = shlex.split("--depth 2 --base-channels 4 --warmup-steps 5 --validate-every 40")
TINY = [*NETWORK, *shlex.split("--tile-edge 92 --batch 2 --steps 60")]
"""A network and a pace that take seconds."""


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Keep torch to one thread: for small tensors, waiting for another costs more than it does."""
    torch.set_num_threads(1)


@dataclass(frozen=True)
class Run:
    """A finished run of the command line."""

    folder: Path
    status: int
    printed: str
    progress: str


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Train a tiny network on the blobs that lie in the repository."""
    folder = tmp_path_factory.mktemp("runs") / "Blobs of mine"
    printed, progress = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(progress):
        status = fit.main([str(BLOBS), "--out", str(folder), *TINY])
    return Run(folder, status, printed.getvalue(), progress.getvalue())


def make_manifest(architecture: Architecture) -> Manifest:
    """Describe a network that was trained on nothing."""
    return Manifest(
        name="untrained",
        architecture=architecture,
        classes=tuple(
            ClassInfo(id=index, name=f"class-{index}", colour="#000000")
            for index in range(architecture.num_classes)
        ),
        training=TrainingRecord(
            data="none",
            licence="none",
            data_sha256="0",
            training_images=("a", "b"),
            validation_images=("c",),
            steps=1,
            command="none",
        ),
        created=date(2026, 1, 1),
        software={},
    )
