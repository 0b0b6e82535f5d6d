"""The images that a network was trained on and validated on, found again for its export."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.artefact import Manifest
from model.errors import DatasetError
from training.data.dataset import AnnotatedImage, Dataset, digest, read_dataset
from training.data.split import hold_out
from training.validation import MOST_SETTLING, spread_over

Source = dict[str, Any]
"""What reads the data again and divides it as before; a checkpoint keeps it."""


@dataclass(frozen=True, slots=True)
class Images:
    """What a network is calibrated on and scored on."""

    training: Sequence[AnnotatedImage]
    validation: Sequence[AnnotatedImage]
    """Where a network was trained on every image, some of those: a precision is held against
    another on them, and no score comes of it."""


def find_images(source: Source | None, manifest: Manifest, data: Path | None) -> Images:
    """Read what a network was trained on, and divide it as it was then.

    Args:
        source: What its checkpoint says about that; None where there is an artefact alone, whose
            manifest tells the images apart by their digests.
        manifest: Its manifest.
        data: Where the data lies now; None is where it lay.

    Raises:
        DatasetError: if it cannot be found, is other data, or cannot be told apart.
    """
    path = data or (None if source is None else Path(source["data"]))
    if path is None or not path.exists():
        place = "" if path is None else f" at {path}"
        raise DatasetError(
            f"The data of {manifest.name} is not found{place}; say where it is with --data."
        )
    asked = source or {
        "labels": manifest.training.label_kind,
        "ignore": manifest.training.ignore,
    }
    dataset = read_dataset(path, asked["labels"], asked["ignore"])
    if dataset.sha256() != manifest.training.data_sha256:
        raise DatasetError(
            f"{path} is not the data that {manifest.name} was trained on: names, pixels or labels "
            "differ, so nobody knows which images it has not seen."
        )
    if source is None:
        return _told_apart(dataset, manifest)
    return Images(*hold_out(dataset, source["folds"], source["fold"]))


def _told_apart(dataset: Dataset, manifest: Manifest) -> Images:
    trained_on = set(manifest.training.training_sha256)
    seen = [digest(dataset[index]) in trained_on for index in range(len(dataset))]
    if all(seen) and not manifest.training.validation_images:
        return Images(dataset, spread_over(dataset, MOST_SETTLING))
    training = dataset.subset(index for index, was in enumerate(seen) if was)
    validation = dataset.subset(index for index, was in enumerate(seen) if not was)
    if not training or not validation:
        raise DatasetError(
            f"The manifest of {manifest.name} does not tell which images of {dataset.path} it was "
            "trained on and which not. Export its checkpoint in place of the artefact."
        )
    return Images(training, validation)
