"""Choice of the decision threshold and of the rule that tells objects apart.

A search from coarse to fine on validation images, with about 25 separations of each: thresholds
alone, lower ones for the foreground, higher ones for the seeds, smallest areas, then half steps.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.instances import InstanceRule, separate
from training.metrics.objects import Overlaps

FloatArray = NDArray[np.floating[Any]]

Candidate = tuple[float, InstanceRule]

THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""What is tried first, for the foreground and for the seeds."""

HALF_STEP = 0.05
"""Distance of what is tried last."""

SMALL_SHARE = 0.05
"""Share of the annotated objects that counts as small; their size sets the areas tried."""

MATCHING_IOU = 0.5
"""Objects match from this intersection over union on."""


@dataclass(frozen=True, slots=True)
class Tuned:
    """The best way found to tell objects apart, and its scores."""

    threshold: float
    """Decision threshold."""
    rule: InstanceRule
    quality: float
    """Panoptic quality: Σ IoU of matched objects / (TP + ½ FP + ½ FN), objects of all images
    together; 0 where there are none."""
    average_precision: float
    """TP / (TP + FP + FN) at the same intersection over union of 0.5; 0 where there are none."""


def tune(
    probabilities: Sequence[FloatArray], references: Sequence[NDArray[np.integer[Any]]]
) -> Tuned:
    """Choose threshold and rule for the highest panoptic quality.

    It asks for the right objects, as the average precision does, and for their right extents: of
    thresholds that find the same objects, one that makes them a pixel too thin everywhere is worse.
    Of equal qualities, the thresholds nearest to one half and the smaller area win.

    Args:
        probabilities: (H, W) probability of foreground of each image, in [0, 1].
        references: (H, W) annotated object ids of each image, 0 outside of objects.

    Raises:
        ValueError: There is no image, or an array or the number of arrays does not fit.
    """
    if not probabilities or len(probabilities) != len(references):
        raise ValueError(
            f"tuning needs images, and one reference each: got {len(probabilities)} probability "
            f"maps and {len(references)} references"
        )
    search = _Search(probabilities, references)
    area = _small_area(references)
    search.try_all(_alone(area // 2))
    search.try_all(_lower(search.best))
    search.try_all(_higher_seeds(search.best))
    search.try_all(_areas(search.best, (0, area // 4, 3 * area // 4, area)))
    search.try_all(_half_steps(search.best))
    return search.best


class _Search:
    """What has been tried on some images, and the best of it."""

    def __init__(
        self, probabilities: Sequence[FloatArray], references: Sequence[NDArray[np.integer[Any]]]
    ) -> None:
        self._images = list(zip(probabilities, references, strict=True))
        self._tried: dict[Candidate, Tuned] = {}

    @property
    def best(self) -> Tuned:
        return max(self._tried.values(), key=_preference)

    def try_all(self, candidates: Iterable[Candidate]) -> None:
        for threshold, rule in candidates:
            if (threshold, rule) not in self._tried:
                self._tried[threshold, rule] = self._score(threshold, rule)

    def _score(self, threshold: float, rule: InstanceRule) -> Tuned:
        matched = unmatched = 0
        shared = 0.0
        for probabilities, reference in self._images:
            found = separate(probabilities, threshold, rule)
            matching = Overlaps.of(found, reference).match(MATCHING_IOU)
            matched += matching.matched
            unmatched += matching.found + matching.reference - 2 * matching.matched
            shared += matching.iou_sum
        objects = max(matched + unmatched, 1)
        quality = shared / max(matched + unmatched / 2, 0.5)
        return Tuned(threshold, rule, quality, matched / objects)


def _preference(tuned: Tuned) -> tuple[float, float, int]:
    from_half = abs(tuned.threshold - 0.5) + abs(tuned.rule.seed_threshold - 0.5)
    return tuned.quality, -round(from_half, 2), -tuned.rule.smallest_area


def _alone(area: int) -> Iterator[Candidate]:
    for threshold in THRESHOLDS:
        yield threshold, InstanceRule(seed_threshold=threshold, smallest_area=area)


def _lower(best: Tuned) -> Iterator[Candidate]:
    for threshold in THRESHOLDS:
        if threshold < best.threshold:
            yield threshold, best.rule


def _higher_seeds(best: Tuned) -> Iterator[Candidate]:
    for seed in THRESHOLDS:
        if seed > best.threshold:
            yield best.threshold, best.rule.model_copy(update={"seed_threshold": seed})


def _areas(best: Tuned, areas: Iterable[int]) -> Iterator[Candidate]:
    for area in areas:
        yield best.threshold, best.rule.model_copy(update={"smallest_area": area})


def _half_steps(best: Tuned) -> Iterator[Candidate]:
    for lower, higher in ((-HALF_STEP, 0), (HALF_STEP, 0), (0, -HALF_STEP), (0, HALF_STEP)):
        threshold = round(best.threshold + lower, 2)
        seed = round(best.rule.seed_threshold + higher, 2)
        if threshold <= seed:
            yield threshold, best.rule.model_copy(update={"seed_threshold": seed})


def _small_area(references: Sequence[NDArray[np.integer[Any]]]) -> int:
    """Give the area in px below which lie the smallest of the annotated objects."""
    areas = [np.unique(reference[reference > 0], return_counts=True)[1] for reference in references]
    pooled = np.concatenate(areas)
    return int(np.quantile(pooled, SMALL_SHARE)) if pooled.size else 0
