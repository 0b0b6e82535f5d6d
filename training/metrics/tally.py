"""All scores of one image, and all scores of many."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from training.data.dataset import AnnotatedImage
from training.metrics.bootstrap import FloatArray, Quotients, pool, quotient_of
from training.metrics.calibration import calibration_error, reliability_sums
from training.metrics.masks import mask_quotients
from training.metrics.objects import object_quotients
from training.metrics.partition import best_on, partition_quotients, spread, threshold_curve
from training.metrics.warping import part, warping_error

MEANS = ("iou", "dice", "boundary_f1", "hausdorff_95", "ap")
"""Scores that are the mean of those of all classes, or of all thresholds."""


@dataclass(frozen=True, eq=False)
class Tally:
    """What one image adds to every score."""

    quotients: Quotients
    curve: tuple[Quotients, ...]
    """`v_rand` and `v_info` at every threshold of a sweep; empty if there was none."""
    reliability: NDArray[np.float64]
    """(3, 15) sums by bin of probability."""

    @classmethod
    def of(
        cls,
        probabilities: NDArray[np.float32],
        labels: NDArray[np.uint8],
        found: NDArray[np.int32],
        entry: AnnotatedImage,
        *,
        sweep: bool,
    ) -> Self:
        """Hold what was found in one image against what was drawn on it.

        Args:
            probabilities: (K, H, W) of every class, in [0, 1].
            labels: (H, W) classes found.
            found: (H, W) object ids found, 0 outside of objects.
            entry: What was drawn. Where it is to be ignored, nothing is found either.
            sweep: Whether `v_rand` and `v_info` are also measured at other thresholds of the
                probability of class 1.

        Raises:
            ValueError: The arrays differ in shape.
            DatasetError: A class lies outside 0 … K - 1.
        """
        ignored, objects = entry.ignored, entry.objects
        if ignored is not None:
            found = np.where(ignored, 0, found)
        allowed = None if ignored is None else ~ignored
        warping = warping_error(part(found), part(objects), allowed)
        curve = threshold_curve(probabilities[1], objects, ignored=ignored) if sweep else ()
        return cls(
            partition_quotients(spread(found), objects)
            | {"warping_error": quotient_of(warping)}
            | mask_quotients(labels, entry.semantic, len(probabilities), ignored)
            | object_quotients(found, objects),
            tuple(curve),
            reliability_sums(probabilities, entry.semantic, ignored),
        )


def compute_scores(
    tallies: Sequence[Tally], weights: FloatArray | None = None
) -> dict[str, FloatArray]:
    """Compute every score for choices of images.

    Args:
        tallies: What each of N images adds.
        weights: (R, N) how often each choice holds each image; None is every image once, R = 1.

    Returns:
        (R,) values of every score, nan where it is not defined.
    """
    weights = np.ones((1, len(tallies))) if weights is None else weights
    scores = pool([tally.quotients for tally in tallies], weights)
    for mean in MEANS:
        parts = [name for name in scores if re.fullmatch(rf"{mean}_?\d+", name)]
        values = np.array([scores[name] for name in parts])
        scores[mean] = _mean_defined(values)
        if len(parts) == 1:
            del scores[parts[0]]
    if tallies[0].curve:
        best = best_on([tally.curve for tally in tallies], weights)
        scores |= {name: best[name] for name in ("v_rand_best", "v_info_best")}
    sums = np.tensordot(weights, np.stack([tally.reliability for tally in tallies]), axes=1)
    scores["calibration_error"] = calibration_error(sums)
    return scores


def _mean_defined(values: FloatArray) -> FloatArray:
    """Give the mean over the first axis of what is not nan."""
    counts = np.count_nonzero(~np.isnan(values), axis=0)
    sums = np.nansum(values, axis=0)
    means: FloatArray = np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)
    return means
