"""What pixels say: error, overlap and the distance between boundaries.

Pixel scores hide merged cells, so none of them is reported without the scores of objects.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from model.errors import DatasetError
from training.data.labels import IntArray, require_classes
from training.metrics.bootstrap import Quotients, pool, quotient_of
from training.metrics.partition import THRESHOLDS

TOLERANCE = 2.0
"""Boundaries within this distance of each other agree, in px."""
PERCENTILE = 95

Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Confusion:
    """How many pixels of each class were taken for each class."""

    counts: NDArray[np.intp]
    """(K, K) pixels, by class found and class annotated."""

    @classmethod
    def of(
        cls,
        labels: IntArray,
        reference: IntArray,
        num_classes: int,
        ignored: Mask | None = None,
    ) -> Self:
        """Count the pixels that are not ignored.

        Args:
            labels: (H, W) integer classes below `num_classes`.
            reference: (H, W) integer classes below `num_classes`.
            num_classes: Number of classes, K.
            ignored: (H, W) bool, True where a pixel does not count.

        Raises:
            ValueError: A label map is no (H, W) array of integers, or their shapes differ.
            DatasetError: A class lies outside 0 … K - 1.
        """
        require_classes(num_classes, labels=labels, reference=reference)
        pairs = labels.astype(np.intp) * num_classes + reference
        counted = pairs.ravel() if ignored is None else pairs[~ignored]
        counts = np.bincount(counted, minlength=num_classes**2)
        return cls(counts.reshape(num_classes, num_classes))

    @property
    def pixel_error(self) -> float:
        """Share of pixels whose class differs; nan where no pixel counts."""
        total = int(self.counts.sum())
        return 1 - int(self.counts.trace()) / total if total else math.nan

    @property
    def iou(self) -> tuple[float, ...]:
        """Intersection over union of every class; nan for a class that neither side holds."""
        return tuple(_ratio(both, found + drawn - both) for both, found, drawn in self._classes())

    @property
    def dice(self) -> tuple[float, ...]:
        """Dice coefficient of every class, 2|A∩B| / (|A| + |B|); nan where neither side has it."""
        return tuple(_ratio(2 * both, found + drawn) for both, found, drawn in self._classes())

    def _classes(self) -> list[tuple[int, int, int]]:
        both, found, drawn = np.diagonal(self.counts), self.counts.sum(1), self.counts.sum(0)
        return list(zip(both.tolist(), found.tolist(), drawn.tolist(), strict=True))


@dataclass(frozen=True, eq=False)
class BoundaryDistances:
    """How far the boundaries of two masks lie from each other.

    A mask's boundary are its pixels with a neighbour (4-connectivity) outside of it; outside of the
    image is outside of the mask.
    """

    of_found: NDArray[np.float64]
    """From each boundary pixel found to the nearest one annotated, in px; inf if there is none."""
    of_reference: NDArray[np.float64]
    """From each boundary pixel annotated to the nearest one found, in px; inf if there is none."""
    diagonal: float
    """Of the image, in px: no two pixels are farther apart."""

    @classmethod
    def of(cls, found: Mask, reference: Mask) -> Self:
        """Measure the distances between two (H, W) masks of one image."""
        drawn, annotated = boundary(found), boundary(reference)
        diagonal = math.hypot(*found.shape)
        return cls(_distances(drawn, annotated), _distances(annotated, drawn), diagonal)

    @property
    def f1(self) -> float:
        """Boundary F1 at a tolerance of 2 px: harmonic mean of precision and recall.

        Precision is the share of boundary pixels found that lie within the tolerance of the
        annotated boundary, recall that of those annotated. It is 0 where one mask is empty, and nan
        where both are.

        Source: Csurka et al. 2013, What is a good evaluation measure for semantic segmentation?
        """
        if not self.of_found.size and not self.of_reference.size:
            return math.nan
        precision, recall = _share_near(self.of_found), _share_near(self.of_reference)
        return 2 * precision * recall / (precision + recall) if precision + recall else 0.0

    @property
    def hausdorff_95(self) -> float:
        """95th percentile of the distances, of the two directions the larger, in px.

        It is the image's diagonal where one mask is empty, and nan where both are.

        Source: Huttenlocher et al. 1993, Comparing images using the Hausdorff distance.
        """
        if not self.of_found.size and not self.of_reference.size:
            return math.nan
        if not self.of_found.size or not self.of_reference.size:
            return self.diagonal
        both = (self.of_found, self.of_reference)
        return max(float(np.percentile(distances, PERCENTILE)) for distances in both)


def boundary(mask: Mask) -> Mask:
    """Give the pixels of an (H, W) mask that have a neighbour (4-connectivity) outside of it."""
    return np.asarray(mask & ~ndimage.binary_erosion(mask))


def mask_quotients(
    labels: IntArray, reference: IntArray, num_classes: int, ignored: Mask | None = None
) -> Quotients:
    """Give what one image adds to the means over images of all scores of this module.

    They are `pixel_error`; `iou_0` and `dice_0` and so on, of every class; `boundary_f1_1` and
    `hausdorff_95_1` and so on, of every class but class 0. A class that neither side holds has no
    score in this image and the image is left out of its means.

    Args:
        labels: (H, W) integer classes found.
        reference: (H, W) integer classes annotated, 0 where ignored.
        num_classes: Number of classes, K.
        ignored: (H, W) bool, True where a pixel does not count; for boundaries, nothing is found
            there.

    Raises:
        ValueError: A label map is no (H, W) array of integers, or their shapes differ.
        DatasetError: A class lies outside 0 … K - 1.
    """
    confusion = Confusion.of(labels, reference, num_classes, ignored)
    quotients = {"pixel_error": quotient_of(confusion.pixel_error)}
    quotients |= _by_class("iou", confusion.iou) | _by_class("dice", confusion.dice)
    shown = labels if ignored is None else np.where(ignored, 0, labels)
    for index in range(1, num_classes):
        distances = BoundaryDistances.of(shown == index, reference == index)
        quotients[f"boundary_f1_{index}"] = quotient_of(distances.f1)
        quotients[f"hausdorff_95_{index}"] = quotient_of(distances.hausdorff_95)
    return quotients


def mean_iou(labels: Iterable[IntArray], references: Iterable[IntArray], num_classes: int) -> float:
    """Give the mean over classes of each class's mean intersection over union over images.

    Args:
        labels: (H, W) integer classes found, for each image.
        references: (H, W) integer classes annotated, for each image.
        num_classes: Number of classes, K.

    Raises:
        ValueError: A label map is no (H, W) array of integers, or two of one image differ in shape.
        DatasetError: A class lies outside 0 … K - 1.
    """
    pairs = zip(labels, references, strict=True)
    return _mean_of_classes([Confusion.of(*pair, num_classes) for pair in pairs])


@dataclass(frozen=True)
class BestOverlap:
    """The decision threshold with the highest mean intersection over union, and the mean there."""

    threshold: float
    iou: float


def sweep_overlap(
    probabilities: Iterable[NDArray[np.floating[Any]]],
    references: Iterable[IntArray],
    thresholds: Sequence[float] = THRESHOLDS,
) -> BestOverlap:
    """Find the decision threshold between two classes whose `mean_iou` is highest.

    Of thresholds that are equally good the one nearest to 0.5 is taken, the lower of two as near.

    Args:
        probabilities: (H, W) float of class 1 for each image, in [0, 1].
        references: (H, W) integer classes annotated, for each image.
        thresholds: Candidates; a pixel is of class 1 where its probability is at least that.

    Raises:
        ValueError: A label map is no (H, W) array of integers, or two of one image differ in shape.
        DatasetError: There is no pixel or no threshold, or a class is neither 0 nor 1.
    """
    preferred = sorted(thresholds, key=lambda threshold: (abs(threshold - 0.5), threshold))
    tables = [
        [Confusion.of((values >= bar).astype(np.uint8), reference, 2) for bar in preferred]
        for values, reference in zip(probabilities, references, strict=True)
    ]
    means = [_mean_of_classes(column) for column in zip(*tables, strict=True)]
    if not means or math.isnan(means[0]):
        raise DatasetError("a threshold needs a candidate and an image with an annotated pixel")
    best = int(np.argmax(means))
    return BestOverlap(preferred[best], means[best])


def _mean_of_classes(tables: Sequence[Confusion]) -> float:
    by_class = pool([_by_class("iou", table.iou) for table in tables])
    defined = [value[0] for value in by_class.values() if not np.isnan(value[0])]
    return float(np.mean(defined)) if defined else math.nan


def _by_class(name: str, values: Sequence[float]) -> Quotients:
    return {f"{name}_{index}": quotient_of(value) for index, value in enumerate(values)}


def _distances(places: Mask, targets: Mask) -> NDArray[np.float64]:
    if not targets.any():
        return np.full(np.count_nonzero(places), np.inf)
    distances: NDArray[np.float64] = ndimage.distance_transform_edt(~targets)
    return distances[places]


def _share_near(distances: NDArray[np.float64]) -> float:
    return float(np.mean(distances <= TOLERANCE)) if distances.size else 0.0


def _ratio(above: int, below: int) -> float:
    return above / below if below else math.nan
