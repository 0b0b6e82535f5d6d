"""Score of a segmentation against its annotation: V_rand, V_info, pixel error and IoU.

    probabilities ──threshold──> interior ──thin_borders──> segments ─┐
                                                                      ├─> Contingency ─> scores
    object labels ──────────────────────────────> reference segments ─┘

V_rand and V_info compare partitions, so they see merged and split cells which a pixel error hides.
Both are restricted to the foreground: pixels that the reference gives to no object are ignored.

Source: Arganda-Carreras et al. 2015, Crowdsourcing the creation of image segmentation algorithms
for connectomics, Frontiers in Neuroanatomy 9:142.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from model.errors import DatasetError
from training.labels import IntArray, objects_of, require_classes, require_labels

FloatArray = NDArray[np.floating[Any]]

THRESHOLDS: tuple[float, ...] = tuple(round(0.05 * step, 2) for step in range(1, 20))
"""Decision thresholds that a sweep tries: 0.05, 0.10, …, 0.95."""

_TABLE_CELLS = 1 << 22
"""Largest contingency table, in cells, that is counted in place; larger ones are sorted instead."""

_DIRECT_IDS = 1 << 16
"""Ids below this number index the table as they are; others are renumbered first."""


@dataclass(frozen=True, eq=False)
class Contingency:
    """How the foreground of a reference is shared among the segments that are compared with it."""

    joint: NDArray[np.float64]
    """Shares p_ij of the foreground, one for each occupied pair of segment and object, sum 1."""
    segments: NDArray[np.float64]
    """Shares s_i of the foreground by segment, sum 1."""
    objects: NDArray[np.float64]
    """Shares t_j of the foreground by reference object, sum 1."""

    @classmethod
    def of(cls, segments: IntArray, reference: IntArray) -> Self:
        """Count the pixels of every pair of segment and reference object.

        Args:
            segments: (H, W) integer ids; 0 is a segment like any other.
            reference: (H, W) integer object ids; pixels with 0 are ignored.

        Raises:
            ValueError: An array is no (H, W) array of integers, or their shapes differ.
        """
        require_labels(segments=segments, reference=reference)
        foreground = reference != 0
        rows, columns = _compact(segments[foreground]), _compact(reference[foreground])
        return cls(_joint_shares(rows, columns), _shares(rows), _shares(columns))

    @property
    def v_rand(self) -> float:
        """Rand F-score in [0, 1]: Σ p_ij² / (½ Σ s_i² + ½ Σ t_j²).

        It is 1.0 for the same partition and nan where nothing is foreground.
        """
        if not self.joint.size:
            return math.nan
        agreement = np.square(self.joint).sum()
        return float(2.0 * agreement / (_square_sum(self.segments) + _square_sum(self.objects)))

    @property
    def v_info(self) -> float:
        """Information F-score in [0, 1]: I(S; T) / (½ H(S) + ½ H(T)).

        It is 1.0 for the same partition, also where both sides are one segment (both entropies are
        then 0), and nan where nothing is foreground.
        """
        if not self.joint.size:
            return math.nan
        of_segments, of_objects = _entropy(self.segments), _entropy(self.objects)
        if of_segments + of_objects == 0.0:
            return 1.0
        information = max(of_segments + of_objects - _entropy(self.joint), 0.0)
        return min(2.0 * information / (of_segments + of_objects), 1.0)


@dataclass(frozen=True)
class BestThreshold:
    """The decision threshold with the highest mean V_rand, and the means there."""

    threshold: float
    v_rand: float
    v_info: float


@dataclass(frozen=True)
class Scores:
    """Means over annotated images."""

    v_rand: float
    """Rand F-score after border thinning, higher is better."""
    v_info: float
    """Information F-score after border thinning, higher is better."""
    pixel_error: float
    """Share of pixels with another class than the annotation."""
    iou: tuple[float, ...]
    """Intersection over union by class; nan for a class that no image holds."""
    images: int
    """Number of images that were scored."""

    def as_dict(self) -> dict[str, float | int | list[float | None] | None]:
        """Give the scores as JSON holds them: nan becomes None."""
        return {
            "v_rand": _none_if_nan(self.v_rand),
            "v_info": _none_if_nan(self.v_info),
            "pixel_error": _none_if_nan(self.pixel_error),
            "iou": [_none_if_nan(value) for value in self.iou],
            "images": self.images,
        }


def thin_borders(interior: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Turn a mask of cell interiors into segments that touch, with borders of no width.

    The components of the interior (4-connectivity) are numbered from 1; then every border pixel
    joins the component whose nearest pixel is the nearest to it in Euclidean distance. So a border
    counts by where it separates, not by how wide it was drawn. Where two components are equally
    near, one of them is taken, always the same.

    Args:
        interior: (H, W) bool, True inside a cell.

    Returns:
        (H, W) int32 ids from 1; one segment, all zeros, where nothing is interior.

    Raises:
        ValueError: The mask is no (H, W) bool array.

    Source: Arganda-Carreras et al. 2015, V_rand and V_info "after border thinning".
    """
    if interior.ndim != 2 or interior.dtype != np.bool_:
        raise ValueError(f"interior must be (H, W) bool, got {interior.shape} {interior.dtype}")
    components = np.zeros(interior.shape, np.int32)
    ndimage.label(interior, output=components)
    return _spread(components)


def pixel_error(labels: IntArray, reference: IntArray) -> float:
    """Give the share of pixels whose class differs.

    Args:
        labels: (H, W) integer classes.
        reference: (H, W) integer classes.

    Raises:
        ValueError: An array is no (H, W) array of integers, or their shapes differ.
    """
    require_labels(labels=labels, reference=reference)
    return float(np.mean(labels != reference))


def intersection_over_union(
    labels: IntArray, reference: IntArray, num_classes: int
) -> tuple[float, ...]:
    """Give the Jaccard index of every class; nan for a class that neither side holds.

    Args:
        labels: (H, W) integer classes below `num_classes`.
        reference: (H, W) integer classes below `num_classes`.
        num_classes: Number of classes, K.

    Returns:
        K values in [0, 1] or nan.

    Raises:
        ValueError: An array is no (H, W) array of integers, or their shapes differ.
        DatasetError: A class lies outside 0 … K - 1.
    """
    require_classes(num_classes, labels=labels, reference=reference)
    pairs = labels.astype(np.intp).ravel() * num_classes + reference.ravel()
    confusion = np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)
    both = np.diagonal(confusion)
    either = confusion.sum(axis=0) + confusion.sum(axis=1) - both
    return tuple(int(b) / int(e) if e else math.nan for b, e in zip(both, either, strict=True))


def sweep_thresholds(
    probabilities: Sequence[FloatArray],
    references: Sequence[IntArray],
    thresholds: Sequence[float] = THRESHOLDS,
) -> BestThreshold:
    """Find the decision threshold whose mean V_rand over the images is highest.

    Of thresholds that are equally good the one nearest to 0.5 is taken, the lower of two as near.

    Args:
        probabilities: (H, W) float of class 1 for each image, in [0, 1].
        references: (H, W) integer object ids for each image, 0 outside objects.
        thresholds: Candidates; a pixel is interior where its probability is at least that.

    Raises:
        ValueError: An array has the wrong rank, type or shape.
        DatasetError: No image, no threshold, unequal numbers of arrays, or no object in any image.
    """
    _require_same_number(probabilities=probabilities, references=references)
    means = [
        BestThreshold(threshold, *_mean_partition_scores(probabilities, references, threshold))
        for threshold in thresholds
    ]
    defined = [mean for mean in means if not math.isnan(mean.v_rand)]
    if not defined:
        raise DatasetError("a threshold needs a candidate and an image with an annotated object")
    return max(defined, key=lambda mean: (mean.v_rand, -abs(mean.threshold - 0.5), -mean.threshold))


def score_label_maps(
    labels: Sequence[IntArray],
    objects: Sequence[IntArray],
    semantic: Sequence[IntArray],
    num_classes: int,
) -> Scores:
    """Score label maps, as means over the images.

    Segments are the components of every class but 0, with borders as thin as `thin_borders` makes
    them; so touching objects of different classes are told apart, as `objects_of` does.

    An image without an annotated object has no V_rand and V_info and is left out of their means.

    Args:
        labels: (H, W) integer classes for each image, as the service returns them.
        objects: (H, W) integer object ids for each image, 0 outside objects.
        semantic: (H, W) integer classes for each image.
        num_classes: Number of classes, K.

    Raises:
        ValueError: An array has the wrong rank, type or shape.
        DatasetError: No image, unequal numbers of arrays, or a class outside 0 … K - 1.
    """
    _require_same_number(labels=labels, objects=objects, semantic=semantic)
    tables = [
        Contingency.of(_spread(objects_of(found)), reference)
        for found, reference in zip(labels, objects, strict=True)
    ]
    pairs = list(zip(labels, semantic, strict=True))
    by_class = zip(*(intersection_over_union(*pair, num_classes) for pair in pairs), strict=True)
    return Scores(
        v_rand=_mean_defined(table.v_rand for table in tables),
        v_info=_mean_defined(table.v_info for table in tables),
        pixel_error=_mean_defined(pixel_error(*pair) for pair in pairs),
        iou=tuple(_mean_defined(values) for values in by_class),
        images=len(pairs),
    )


def _spread(components: NDArray[np.int32]) -> NDArray[np.int32]:
    """Give every pixel without an id the id that is nearest to it."""
    if components.all() or not components.any():
        return components
    rows, columns = ndimage.distance_transform_edt(
        components == 0, return_distances=False, return_indices=True
    )
    segments: NDArray[np.int32] = components[rows, columns]
    return segments


def _mean_partition_scores(
    probabilities: Sequence[FloatArray], references: Sequence[IntArray], threshold: float
) -> tuple[float, float]:
    tables = [
        Contingency.of(thin_borders(_interior(values, threshold)), reference)
        for values, reference in zip(probabilities, references, strict=True)
    ]
    return (
        _mean_defined(table.v_rand for table in tables),
        _mean_defined(table.v_info for table in tables),
    )


def _interior(probabilities: FloatArray, threshold: float) -> NDArray[np.bool_]:
    if probabilities.ndim != 2:
        raise ValueError(f"probabilities must be (H, W), got {probabilities.shape}")
    return np.asarray(probabilities >= threshold, dtype=np.bool_)


def _compact(ids: IntArray) -> NDArray[np.intp]:
    """Give ids that are small enough to index a table with: their own, or their ranks."""
    if ids.size and not 0 <= ids.min() <= ids.max() < _DIRECT_IDS:
        return np.unique(ids, return_inverse=True)[1]
    return ids.astype(np.intp)


def _shares(ids: NDArray[np.intp]) -> NDArray[np.float64]:
    counts = np.bincount(ids)
    return counts[counts > 0] / max(ids.size, 1)


def _joint_shares(rows: NDArray[np.intp], columns: NDArray[np.intp]) -> NDArray[np.float64]:
    if not rows.size:
        return np.zeros(0)
    width = int(columns.max()) + 1
    pairs = rows * width + columns
    if (int(rows.max()) + 1) * width <= _TABLE_CELLS:
        return _shares(pairs)
    counts = np.unique(pairs, return_counts=True)[1]
    return np.asarray(counts / pairs.size, dtype=np.float64)


def _square_sum(shares: NDArray[np.float64]) -> float:
    return float(np.square(shares).sum())


def _entropy(shares: NDArray[np.float64]) -> float:
    return max(-float((shares * np.log(shares)).sum()), 0.0)


def _mean_defined(values: Iterable[float]) -> float:
    defined = [value for value in values if not math.isnan(value)]
    return sum(defined) / len(defined) if defined else math.nan


def _none_if_nan(value: float) -> float | None:
    return None if math.isnan(value) else value


def _require_same_number(**sequences: Sequence[Any]) -> None:
    counts = {name: len(sequence) for name, sequence in sequences.items()}
    if len(set(counts.values())) != 1 or 0 in counts.values():
        listed = ", ".join(f"{count} {name}" for name, count in counts.items())
        raise DatasetError(f"every image needs one array of each kind, got {listed}")
