"""Where the files of a run lie."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The files of a run."""

    path: Path

    @property
    def last(self) -> Path:
        """Checkpoint to resume from."""
        return self.path / "last.pt"

    @property
    def best(self) -> Path:
        """Checkpoint of the best validation."""
        return self.path / "best.pt"

    @property
    def model(self) -> Path:
        """The exported artefact."""
        return self.path / "model.onnx"

    @property
    def draft(self) -> Path:
        """The artefact until it is scored: no service that watches the folder takes it."""
        return self.path / "model.draft"

    @property
    def plan(self) -> Path:
        """What was settled before the first step, with reasons."""
        return self.path / "plan.json"

    def store(self, machine: int) -> Path:
        """Give the place of a machine's training images, as tiles are cut from them."""
        return self.path / f"store-{machine}"

    @property
    def log(self) -> Path:
        """One JSON object a line: losses and validations."""
        return self.path / "log.jsonl"

    @property
    def report(self) -> Path:
        """The report, one self-contained page."""
        return self.path / "report.html"

    @property
    def tensorboard(self) -> Path:
        """What TensorBoard reads, where it was asked for."""
        return self.path / "tensorboard"
