"""What is slow to make, made once: a whole run, and exported artefacts."""

import contextlib
import io
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import pytest
import torch

from model.architecture import Architecture
from model.artefact import ClassInfo, Manifest, TrainingRecord
from model.network import UNet
from training import checkpoint
from training.settings import StoredPrecision

BLOBS = Path(__file__).parents[2] / "docs" / "samples" / "blobs"


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
    from training import fit

    folder = tmp_path_factory.mktemp("runs") / "Blobs of mine"
    size = ["--depth", "2", "--base-channels", "4", "--tile-edge", "92", "--batch", "2"]
    pace = ["--steps", "60", "--warmup-steps", "5", "--validate-every", "40"]
    printed, progress = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(progress):
        status = fit.main([str(BLOBS), "--out", str(folder), *size, *pace])
    return Run(folder, status, printed.getvalue(), progress.getvalue())


@dataclass(frozen=True)
class Exported:
    """A network of figure 1's depth, its checkpoint, and the files made of it."""

    network: UNet
    checkpoint: Path
    fp32: Path
    fp16: Path

    def path(self, precision: StoredPrecision) -> Path:
        """Give the file of a precision."""
        return {"fp32": self.fp32, "fp16": self.fp16}[precision]


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


def save_network(path: Path, network: UNet, threshold: float | None) -> None:
    """Write a checkpoint as a run keeps its best."""
    validation = {"step": 3, "v_rand": 0.5, "v_info": 0.5, "threshold": threshold}
    manifest = make_manifest(network.architecture).model_dump_json()
    state = {"model": network.state_dict(), "manifest": manifest, "validation": validation}
    checkpoint.save(path, state)


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Export an untrained network through the command line, at both precisions."""
    from training import export

    folder = tmp_path_factory.mktemp("exported")
    torch.manual_seed(0)
    network = UNet(Architecture(base_channels=8)).eval()
    made = Exported(network, folder / "best.pt", folder / "fp32.onnx", folder / "fp16.onnx")
    save_network(made.checkpoint, network, threshold=0.35)
    with contextlib.redirect_stdout(io.StringIO()):
        for precision, path in (("fp32", made.fp32), ("fp16", made.fp16)):
            export.main([str(made.checkpoint), str(path), "--precision", precision])
    return made
