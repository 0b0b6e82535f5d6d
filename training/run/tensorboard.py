"""A run's log, written for TensorBoard too; the package is wanted only by those who ask for it."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from model.errors import TrainingError

Tell = Callable[[Mapping[str, Any]], None]
"""Takes one entry of the log."""


@contextlib.contextmanager
def follow(folder: Path, step: int = 0) -> Iterator[Tell]:
    """Write entries of a log as event files.

    Args:
        folder: Where the files lie, beside those of earlier starts of the same run.
        step: The step that the run goes on from; what was written of later ones is dropped.

    Raises:
        TrainingError: if TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as exc:
        raise TrainingError(
            "--tensorboard needs the package tensorboard: pip install 'unet-service[tensorboard]'."
        ) from exc

    def tell(entry: Mapping[str, Any]) -> None:
        for tag, value in scalars(entry).items():
            writer.add_scalar(tag, value, entry["step"])
        writer.flush()

    with SummaryWriter(folder, purge_step=step + 1 if step else None) as writer:
        yield tell


def scalars(entry: Mapping[str, Any]) -> dict[str, float]:
    """Give the numbers of an entry of the log, by what TensorBoard groups them under."""
    if entry["kind"] == "validation":
        shown = {entry["score"]: entry["value"], "threshold": entry["threshold"]}
    else:
        shown = {name: entry[name] for name in ("loss", "learning_rate", "steps_per_second")}
    return {f"{entry['kind']}/{name}": value for name, value in shown.items() if value is not None}
