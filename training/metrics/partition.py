"""V_rand and V_info: what a segmentation merged and what it split.

    probabilities ──threshold──> interior ──thin_borders──> segments ─┐
                                                                      ├─> Contingency ─> scores
    object labels ──────────────────────────────> reference segments ─┘

Both compare partitions, so they see merged and split cells which a pixel error hides. Both are
restricted to the foreground: pixels that the reference gives to no object are ignored.

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

from model.components import components
from model.errors import DatasetError
from training.data.labels import IntArray, require_labels
from training.metrics.bootstrap import Quotients, pool, quotient_of
from training.metrics.counting import count_pairs, small_ids

FloatArray = NDArray[np.floating[Any]]

THRESHOLDS: tuple[float, ...] = tuple(round(0.05 * step, 2) for step in range(1, 20))
"""Decision thresholds that a sweep tries: 0.05, 0.10, …, 0.95."""


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
        rows, columns = small_ids(segments[foreground]), small_ids(reference[foreground])
        joint = count_pairs(rows, columns)[2]
        return cls(_shares(joint), _shares(np.bincount(rows)), _shares(np.bincount(columns)))

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


def partition_quotients(segments: IntArray, reference: IntArray) -> Quotients:
    """Give what one image adds to the means over images: `v_rand` and `v_info`.

    An image without an annotated object has neither and is left out of the means.

    Args:
        segments: (H, W) integer ids, with borders of no width.
        reference: (H, W) integer object ids, 0 outside objects.

    Raises:
        ValueError: An array is no (H, W) array of integers, or their shapes differ.
    """
    table = Contingency.of(segments, reference)
    return {"v_rand": quotient_of(table.v_rand), "v_info": quotient_of(table.v_info)}


def thin_borders(interior: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Turn a mask of cell interiors into segments that touch, with borders of no width.

    The components of the interior (4-connectivity) are numbered from 1 and `spread`. So a border
    counts by where it separates, not by how wide it was drawn.

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
    ids, _ = components(interior)
    return spread(ids)


def spread(objects: NDArray[np.int32]) -> NDArray[np.int32]:
    """Give every pixel without an id that of the nearest pixel with one, in Euclidean distance.

    Where two objects are equally near, one of them is taken, always the same.

    Args:
        objects: (H, W) ids, 0 outside of objects.

    Returns:
        (H, W) ids, all zeros where there is no object.
    """
    if objects.all() or not objects.any():
        return objects
    rows, columns = ndimage.distance_transform_edt(
        objects == 0, return_distances=False, return_indices=True
    )
    segments: NDArray[np.int32] = objects[rows, columns]
    return segments


def threshold_curve(
    probabilities: FloatArray,
    reference: IntArray,
    thresholds: Sequence[float] = THRESHOLDS,
    ignored: NDArray[np.bool_] | None = None,
) -> list[Quotients]:
    """Give what one image adds to `v_rand` and `v_info` at every threshold.

    Args:
        probabilities: (H, W) float of class 1, in [0, 1].
        reference: (H, W) integer object ids, 0 outside objects.
        thresholds: Candidates; a pixel is interior where its probability is at least that.
        ignored: (H, W) bool, True where nothing is interior whatever its probability.

    Raises:
        ValueError: An array has the wrong rank, type or shape.
    """
    if probabilities.ndim != 2:
        raise ValueError(f"probabilities must be (H, W), got {probabilities.shape}")
    shown = probabilities if ignored is None else np.where(ignored, -np.inf, probabilities)
    return [
        partition_quotients(thin_borders(np.asarray(shown >= threshold)), reference)
        for threshold in thresholds
    ]


def sweep_thresholds(
    probabilities: Iterable[FloatArray],
    references: Iterable[IntArray],
    thresholds: Sequence[float] = THRESHOLDS,
) -> BestThreshold:
    """Find the decision threshold whose mean V_rand over the images is highest.

    Of thresholds that are equally good the one nearest to 0.5 is taken, the lower of two as near.
    Each image is looked at once, so that a generator of many large ones will do.

    Args:
        probabilities: (H, W) float of class 1 for each image, in [0, 1].
        references: (H, W) integer object ids for each image, 0 outside objects.
        thresholds: Candidates; a pixel is interior where its probability is at least that.

    Raises:
        ValueError: An array has the wrong rank, type or shape, or one image lacks its partner.
        DatasetError: No image, no threshold, or no object in any image.
    """
    curves = [
        threshold_curve(values, reference, thresholds)
        for values, reference in zip(probabilities, references, strict=True)
    ]
    if not thresholds or not any(curve[0]["v_rand"][1] for curve in curves):
        raise DatasetError("a threshold needs a candidate and an image with an annotated object")
    best = best_on(curves, None, thresholds)
    return BestThreshold(*(float(values[0]) for values in best.values()))


def best_on(
    curves: Sequence[Sequence[Quotients]],
    weights: NDArray[np.float64] | None = None,
    thresholds: Sequence[float] = THRESHOLDS,
) -> dict[str, NDArray[np.float64]]:
    """Find the best threshold for choices of images, as `sweep_thresholds` does for all.

    Args:
        curves: The `threshold_curve` of each of N images.
        weights: (R, N) how often each choice holds each image; None is every image once, R = 1.
        thresholds: Those that the curves were made with.

    Returns:
        (R,) values of `best_threshold`, `v_rand_best` and `v_info_best`; the scores are nan for a
        choice without an annotated object.
    """
    preferred = sorted(zip(thresholds, zip(*curves, strict=True), strict=True), key=_from_middle)
    means = [pool(column, weights) for _, column in preferred]
    v_rand, v_info = (np.array([mean[name] for mean in means]) for name in ("v_rand", "v_info"))
    first = np.argmax(np.nan_to_num(v_rand, nan=-1.0), axis=0)
    choices = np.arange(first.size)
    return {
        "best_threshold": np.array([threshold for threshold, _ in preferred])[first],
        "v_rand_best": v_rand[first, choices],
        "v_info_best": v_info[first, choices],
    }


def _from_middle(candidate: tuple[float, Any]) -> tuple[float, float]:
    return abs(candidate[0] - 0.5), candidate[0]


def _shares(counts: NDArray[np.intp]) -> NDArray[np.float64]:
    present = counts[counts > 0]
    return present / max(int(present.sum()), 1)


def _square_sum(shares: NDArray[np.float64]) -> float:
    return float(np.square(shares).sum())


def _entropy(shares: NDArray[np.float64]) -> float:
    return max(-float((shares * np.log(shares)).sum()), 0.0)
