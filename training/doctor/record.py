"""What the doctor keeps of an image whose pixels it has seen."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dctn, idctn

from model.artefact import LabelKind
from training.data.census import Census, ImageFacts, measure
from training.data.dataset import AnnotatedImage, Dataset, digest
from training.data.forms import Pair

THUMBNAIL_EDGE = 32
SHADING_WAVES = 5
"""Waves along an edge: what has no more of them is illumination, alike in unlike images."""
FLAT = 1e-6
"""A thumbnail whose details are below this part of its values has none."""


@dataclass(frozen=True, slots=True)
class Record:
    """One image, without its pixels."""

    image: str
    labels: str
    """The files, relative to the data set's folder, with the page."""
    facts: ImageFacts
    pixels_digest: str
    labels_digest: str
    thumbnail: NDArray[np.float32]
    """(32, 32) details of mean 0 and norm 1: the product of two is their correlation."""
    clipped: float
    """Share of the values that pile up at the largest one; 0 if none do."""


@dataclass(frozen=True, slots=True)
class Records:
    """A data set in records."""

    name: str
    """Of the data set's folder."""
    dataset: Dataset
    images: tuple[Record, ...]
    census: Census
    held_out: frozenset[str]
    """Names of the images to validate on; none where it is a part of the only one."""

    @property
    def is_instance(self) -> bool:
        """Whether labels are ids of objects."""
        return self.dataset.label_kind == "instance"

    def is_held_out(self, entry: Record) -> bool:
        """Whether an image is validated on, and not trained on."""
        return entry.facts.name in self.held_out


def record(entry: AnnotatedImage, pair: Pair, dataset: Dataset) -> Record:
    """Keep what is needed of an image."""
    image, labels = file_names(pair, dataset.path)
    return Record(
        image=image,
        labels=labels,
        facts=measure(entry),
        pixels_digest=digest(entry),
        labels_digest=_labels_digest(entry, dataset.label_kind),
        thumbnail=thumbnail(entry.image),
        clipped=clipped_share(entry.image),
    )


def file_names(pair: Pair, data: Path) -> tuple[str, str]:
    """Name the two files of a pair as the doctor does: `labels/a.png`, `x-labels.tif, page 3`."""
    page = "" if pair.page is None else f", page {pair.page}"
    image, labels = (file.relative_to(data).as_posix() for file in (pair.image, pair.labels))
    return image + page, labels + page


def thumbnail(image: NDArray[Any]) -> NDArray[np.float32]:
    """Shrink an image (C, H, W) of any size to its details, free of exposure and shading.

    Returns:
        (32, 32) float32 of mean 0 and norm 1; all 0 for an image without details.
    """
    grey = image.mean(axis=0, dtype=np.float64)
    for axis in (0, 1):
        grey = _shrink(grey, axis)
    half_waves = np.add.outer(np.arange(THUMBNAIL_EDGE), np.arange(THUMBNAIL_EDGE))
    waves = dctn(grey, norm="ortho")
    details = idctn(np.where(half_waves < 2 * SHADING_WAVES, 0.0, waves), norm="ortho")
    norm = float(np.linalg.norm(details))
    if norm <= FLAT * float(np.abs(grey).max()):
        return np.zeros(grey.shape, np.float32)
    unit: NDArray[np.float32] = (details / norm).astype(np.float32)
    return unit


def clipped_share(image: NDArray[Any]) -> float:
    """Give the share of values that have the largest one, if they pile up there.

    They do if that value occurs more than twice as often as the next lower one: the tail of a
    histogram that was not cut falls.
    """
    top = image.max()
    is_top = image == top
    at_top = int(np.count_nonzero(is_top))
    if at_top == image.size:
        return 0.0
    beneath = np.count_nonzero(image == image.max(where=~is_top, initial=image.min()))
    return at_top / image.size if at_top > 2 * beneath else 0.0


def _shrink(grey: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    """Average along an axis over 32 spans, as even as the pixels allow."""
    edge = grey.shape[axis]
    starts = np.arange(THUMBNAIL_EDGE) * edge // THUMBNAIL_EDGE
    widths = np.maximum(np.diff(starts, append=edge), 1)  # an edge below 32 px repeats pixels
    widths = widths[:, np.newaxis] if axis == 0 else widths
    means: NDArray[np.float64] = np.add.reduceat(grey, starts, axis) / widths
    return means


def _labels_digest(entry: AnnotatedImage, kind: LabelKind) -> str:
    drawn = entry.objects if kind == "instance" else entry.semantic
    return hashlib.sha256(str(drawn.shape).encode() + drawn.tobytes()).hexdigest()
