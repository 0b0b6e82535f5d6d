"""What became of each object: SEG, average precision, F1 and panoptic quality.

Objects that share no pixel never match, so all scores follow from a sparse table of the pairs that
do; no step visits every pair of objects.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from training.data.labels import IntArray, require_ids
from training.metrics.bootstrap import Quotients
from training.metrics.counting import count_pairs, small_ids

IOU_THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)
"""Two objects match where their intersection over union is at least that."""


@dataclass(frozen=True, slots=True)
class Matching:
    """Objects found and objects annotated, matched one to one."""

    matched: int
    """Pairs: true positives."""
    found: int
    """Objects found; those without a partner are false positives."""
    reference: int
    """Objects annotated; those without a partner are false negatives."""
    iou_sum: float
    """Intersection over union, summed over the pairs."""


@dataclass(frozen=True, eq=False)
class Overlaps:
    """The objects of two label maps of one image, and where they share pixels."""

    found: NDArray[np.intp]
    """(P,) the object found, of each pair that shares pixels."""
    reference: NDArray[np.intp]
    """(P,) the object annotated, of each pair."""
    pixels: NDArray[np.intp]
    """(P,) what each pair shares, in px."""
    found_areas: NDArray[np.intp]
    """By id of the object found, in px; 0 for an id that does not occur, and for id 0."""
    reference_areas: NDArray[np.intp]
    """By id of the object annotated, in px."""

    @classmethod
    def of(cls, found: IntArray, reference: IntArray) -> Self:
        """Count the pixels that pairs of objects share.

        Args:
            found: (H, W) integer object ids, 0 outside of objects.
            reference: (H, W) integer object ids, 0 outside of objects.

        Raises:
            ValueError: An array is no (H, W) array of integers, or their shapes differ.
            DatasetError: An id is negative.
        """
        require_ids(found=found, reference=reference)
        rows, columns = small_ids(found.ravel()), small_ids(reference.ravel())
        inside = (rows != 0) & (columns != 0)
        return cls(*count_pairs(rows[inside], columns[inside]), _areas(rows), _areas(columns))

    @cached_property
    def iou(self) -> NDArray[np.float64]:
        """(P,) intersection over union of every pair."""
        areas = self.found_areas[self.found] + self.reference_areas[self.reference]
        return np.asarray(self.pixels / (areas - self.pixels), dtype=np.float64)

    def match(self, threshold: float) -> Matching:
        """Match objects whose intersection over union is at least the threshold.

        An object has one partner at most. Of all ways to match, one with the most pairs is taken,
        and of those one with the largest sum of intersection over union. From 0.5 on all ways are
        as good, since an object has several candidates only at exactly 0.5.

        Source: StarDist, `stardist.matching.matching` (Schmidt et al. 2018).
        """
        close = self.iou >= threshold
        found, reference, iou = self.found[close], self.reference[close], self.iou[close]
        contested = (np.bincount(found)[found] > 1) | (np.bincount(reference)[reference] > 1)
        agreed = iou[~contested]
        if contested.any():
            assigned = _assign(found[contested], reference[contested], iou[contested])
            agreed = np.concatenate([agreed, assigned])
        return Matching(
            matched=len(agreed),
            found=int(np.count_nonzero(self.found_areas)),
            reference=int(np.count_nonzero(self.reference_areas)),
            iou_sum=float(agreed.sum()),
        )

    @property
    def seg_sum(self) -> float:
        """Jaccard index, summed over the objects annotated; 0 for one that none covers.

        The index is that of the object which covers more than half of the one annotated.

        Source: Maška et al. 2014, A benchmark for comparison of cell tracking algorithms (SEG).
        """
        covering = 2 * self.pixels > self.reference_areas[self.reference]
        return float(self.iou[covering].sum())


def object_quotients(found: IntArray, reference: IntArray) -> Quotients:
    """Give what one image adds to the scores of objects.

    With TP, FP and FN counted over the objects of all images, as `matching_dataset` of StarDist
    does:

    - `seg`: mean Jaccard index of the objects annotated (`Overlaps.seg_sum`);
    - `ap50` … `ap90`: TP / (TP + FP + FN), at an intersection over union of 0.5 … 0.9;
    - `f1`: TP / (TP + ½ FP + ½ FN), at 0.5;
    - `pq`: ΣIoU of the matched / (TP + ½ FP + ½ FN), at 0.5;
    - `ap50_by_image`: `ap50` of each image, averaged over images.

    An image with no object, neither found nor annotated, adds to none of them.

    Args:
        found: (H, W) integer object ids, 0 outside of objects.
        reference: (H, W) integer object ids, 0 outside of objects.

    Raises:
        ValueError: An array is no (H, W) array of integers, or their shapes differ.
        DatasetError: An id is negative.

    Source: Schmidt et al. 2018, Cell detection with star-convex polygons (AP); Kirillov et al.
    2019, Panoptic segmentation (PQ).
    """
    overlaps = Overlaps.of(found, reference)
    half = overlaps.match(IOU_THRESHOLDS[0])
    both = half.found + half.reference
    quotients: Quotients = {"seg": (overlaps.seg_sum, half.reference)}
    for threshold in IOU_THRESHOLDS:
        matched = overlaps.match(threshold).matched
        quotients[f"ap{round(100 * threshold)}"] = (matched, both - matched)
    quotients["f1"] = (half.matched, both / 2)
    quotients["pq"] = (half.iou_sum, both / 2)
    ap50 = half.matched / (both - half.matched) if both else 0.0
    quotients["ap50_by_image"] = (ap50, float(both > 0))
    return quotients


def _areas(ids: NDArray[np.intp]) -> NDArray[np.intp]:
    areas = np.bincount(ids, minlength=1)
    areas[0] = 0
    return areas


def _assign(
    found: NDArray[np.intp], reference: NDArray[np.intp], iou: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Give the intersection over union of the pairs of the best assignment."""
    rows = np.unique(found, return_inverse=True)[1]
    columns = np.unique(reference, return_inverse=True)[1]
    table = np.zeros((rows.max() + 1, columns.max() + 1))
    table[rows, columns] = iou
    pairs = min(table.shape)
    chosen = linear_sum_assignment((table > 0) + table / (2 * pairs), maximize=True)
    assigned: NDArray[np.float64] = table[chosen]
    return assigned[assigned > 0]
