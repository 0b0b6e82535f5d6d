"""What is in a data set, in numbers: sizes, classes, objects and the space between them.

The doctor judges these numbers, the plan of a run is made from them.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from model.artefact import LabelKind
from model.errors import DatasetError
from training.data.dataset import AnnotatedImage, Dataset
from training.data.labels import IntArray, require_ids
from training.data.split import Regions

REACH = 40.0
"""Objects farther apart than this, in px, are no neighbours: nothing is learnt between them."""
PERCENTILES = (5, 50, 95)
SPAN = (0.5, 99.5)
"""Percentiles of an image's values between which its scale lies: a few that are out of place do not
move it."""
MOST_APART = 0.25
"""Part of its width by which the ends of a span may differ from the typical one, if images have a
scale in common: exposures that differ, mostly do so by more."""

_EIGHT = np.ones((3, 3), np.uint8)


@dataclass(frozen=True, slots=True)
class ObjectFacts:
    """The objects of one image, one value an object."""

    ids: NDArray[np.int64]
    """(K,) as in the labels, ascending."""
    areas: NDArray[np.int64]
    """(K,) in px."""
    parts: NDArray[np.int64]
    """(K,) number of pieces (8-connectivity): 1 unless an id stands in several places."""
    second: NDArray[np.int64]
    """(K,) area of the second largest piece in px, 0 for an object in one piece."""
    gaps: NDArray[np.float64]
    """(K,) background to the nearest other object in px: 0 where they touch, inf beyond `REACH`."""
    touches: NDArray[np.bool_]
    """(K,) whether it shares a side of a pixel with another object of its class."""


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """One image in numbers, without its pixels."""

    name: str
    shape: tuple[int, int, int]
    """Channels, height and width."""
    dtype: str
    low: float
    high: float
    """Smallest and largest value of any channel; not finite where the pixels are not."""
    span: tuple[float, float]
    """Percentiles of the values of all channels."""
    class_pixels: NDArray[np.int64]
    """(number of the highest class here + 1,) pixels of each class, without ignored ones."""
    objects: ObjectFacts


@dataclass(frozen=True, slots=True)
class Census:
    """A data set in numbers."""

    images: int
    pixels: int
    """Of all images, each counted once whatever its channels."""
    median_edge: float
    """Median over the images of the edge of a square of equal area, in px."""
    in_channels: int
    """Channels of the widest image."""
    dtypes: tuple[str, ...]
    low: float
    high: float
    """Smallest and largest value of any pixel."""
    common_span: tuple[float, float] | None
    """5th percentile over the images of the lower ends of their spans, 95th of the upper ones; None
    where these spans differ, or one image says nothing of others."""
    label_kind: LabelKind
    num_classes: int
    class_shares: tuple[float, ...]
    """Share of each class in the pixels that are not ignored."""
    object_count: int
    diameters: tuple[float, float, float] | None
    """5th, 50th and 95th percentile of the diameter of a disc of equal area, in px."""
    typical_diameters: tuple[float, float] | None
    """5th and 95th percentile over the images of the median diameter of an image's objects: how
    much the magnification differs, in px."""
    median_gap: float | None
    """Median distance to the nearest other object in px, over objects with one within `REACH`:
    background between them, 0 where they touch. None where no object has a neighbour."""
    concentration: float
    """Chance that two pixels of objects of an image lie in the same one, the median over images
    with objects: 1 where each has one object, and without any."""
    touching: float
    """Share of the objects that touch another one of their class."""


def take_census(images: Sequence[AnnotatedImage]) -> Census:
    """Count a data set, one image in memory at a time.

    Of a plain sequence, labels are semantic where every object is a component of its class.

    Raises:
        DatasetError: There is no image, or one cannot be read.
    """
    facts = [measure(entry) for entry in images]
    if isinstance(images, Dataset | Regions):
        return summarise(facts, images.label_kind, images.num_classes)
    num_classes = max([2, *(len(entry.class_pixels) for entry in facts)])
    components = all(
        not entry.objects.touches.any() and (entry.objects.parts == 1).all() for entry in facts
    )
    kind: LabelKind = "semantic" if num_classes > 2 or components else "instance"
    return summarise(facts, kind, num_classes)


def measure(entry: AnnotatedImage) -> ImageFacts:
    """Take the numbers of one image."""
    semantic = entry.semantic if entry.ignored is None else entry.semantic[~entry.ignored]
    channels, height, width = entry.image.shape
    return ImageFacts(
        name=entry.name,
        shape=(channels, height, width),
        dtype=str(entry.image.dtype),
        low=float(entry.image.min()),
        high=float(entry.image.max()),
        span=_span(entry.image),
        class_pixels=np.bincount(semantic.ravel()),
        objects=measure_objects(entry.objects, entry.semantic),
    )


def measure_objects(objects: IntArray, semantic: IntArray) -> ObjectFacts:
    """Take the numbers of the objects of one image.

    Args:
        objects: (H, W) object ids, 0 outside.
        semantic: (H, W) classes: objects of different classes lie side by side without touching.

    Raises:
        ValueError: The ids are no (H, W) array of integers.
        DatasetError: An id is negative.
    """
    require_ids(objects=objects, semantic=semantic)
    ids, objects = _consecutive(objects)
    parts, second = _pieces(objects)
    return ObjectFacts(
        ids=ids,
        areas=np.bincount(objects.ravel(), minlength=len(ids) + 1)[1:],
        parts=parts,
        second=second,
        gaps=_gaps(objects, len(ids)),
        touches=_touches(objects, semantic, len(ids)),
    )


def summarise(facts: Iterable[ImageFacts], label_kind: LabelKind, num_classes: int) -> Census:
    """Make the census of a data set from the numbers of its images.

    Raises:
        DatasetError: There is no image.
    """
    facts = tuple(facts)
    if not facts:
        raise DatasetError("a census needs at least one annotated image")
    counts = np.zeros(num_classes, np.int64)
    for entry in facts:
        counts[: len(entry.class_pixels)] += entry.class_pixels
    areas = np.concatenate([entry.objects.areas for entry in facts])
    gaps = np.concatenate([entry.objects.gaps for entry in facts])
    gaps = gaps[np.isfinite(gaps)]
    return Census(
        images=len(facts),
        pixels=sum(entry.shape[1] * entry.shape[2] for entry in facts),
        median_edge=float(np.median([math.sqrt(math.prod(entry.shape[1:])) for entry in facts])),
        in_channels=max(entry.shape[0] for entry in facts),
        dtypes=tuple(sorted({entry.dtype for entry in facts})),
        low=min(entry.low for entry in facts),
        high=max(entry.high for entry in facts),
        common_span=_common_span(facts),
        label_kind=label_kind,
        num_classes=num_classes,
        class_shares=tuple((counts / max(counts.sum(), 1)).tolist()),
        object_count=len(areas),
        diameters=_diameters(areas),
        typical_diameters=_typical_diameters(facts),
        median_gap=float(np.median(gaps)) if len(gaps) else None,
        concentration=_concentration(facts),
        touching=float(np.mean(np.concatenate([entry.objects.touches for entry in facts])))
        if len(areas)
        else 0.0,
    )


def diameter(areas: NDArray[np.integer] | float) -> NDArray[np.float64]:
    """Give the diameter of a disc of this area, in px."""
    return 2 * np.sqrt(np.asarray(areas) / np.pi)


def _span(image: NDArray[Any]) -> tuple[float, float]:
    low, high = np.percentile(image, SPAN, method="lower")
    return float(low), float(high)


def _common_span(facts: Sequence[ImageFacts]) -> tuple[float, float] | None:
    spans = np.array([entry.span for entry in facts])
    lows, typical, highs = np.percentile(spans, PERCENTILES, axis=0)
    apart = max(abs(typical - lows).max(), abs(typical - highs).max())
    if len(facts) == 1 or not apart < MOST_APART * (typical[1] - typical[0]):
        return None
    return float(lows[0]), float(highs[1])


def _diameters(areas: NDArray[np.int64]) -> tuple[float, float, float] | None:
    if not len(areas):
        return None
    small, middle, large = np.percentile(diameter(areas), PERCENTILES)
    return float(small), float(middle), float(large)


def _typical_diameters(facts: Sequence[ImageFacts]) -> tuple[float, float] | None:
    medians = [np.median(diameter(areas)) for entry in facts if len(areas := entry.objects.areas)]
    if not medians:
        return None
    small, large = np.percentile(medians, (PERCENTILES[0], PERCENTILES[-1]))
    return float(small), float(large)


def _concentration(facts: Sequence[ImageFacts]) -> float:
    shares = [areas / areas.sum() for entry in facts if len(areas := entry.objects.areas)]
    return float(np.median([np.square(share).sum() for share in shares])) if shares else 1.0


def _consecutive(objects: IntArray) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Give the ids, and the objects numbered from 1 in their order."""
    if int(objects.max(initial=0)) > objects.size:  # too sparse for a table of all ids
        values = np.unique(objects)
        places = np.searchsorted(values, objects) + int(values[0] != 0)
        return values[values != 0].astype(np.int64), places.astype(np.int32)
    present = np.bincount(objects.ravel(), minlength=1) > 0
    present[0] = False
    numbers = np.where(present, np.cumsum(present), 0).astype(np.int32)
    return np.flatnonzero(present), np.take(numbers, objects)


def _pieces(objects: NDArray[np.int32]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Give the number of pieces of each object, and the area of its second largest one."""
    boxes = ndimage.find_objects(objects)
    parts, second = np.ones(len(boxes), np.int64), np.zeros(len(boxes), np.int64)
    for index, box in enumerate(boxes):
        pieces, parts[index] = ndimage.label(objects[box] == index + 1, structure=_EIGHT)
        if parts[index] > 1:
            second[index] = np.sort(np.bincount(pieces.ravel())[1:])[-2]
    return parts, second


def _gaps(objects: NDArray[np.int32], count: int) -> NDArray[np.float64]:
    """Measure across the lines at which the nearest object changes, for all objects at once.

    The nearest pixels of two neighbours lie on either side of such a line, so what is found there
    is their distance or, where the line falls between pixels, a fraction of a px more.
    """
    nearest = np.full(count + 1, np.inf)
    if count > 1:
        rows, columns = ndimage.distance_transform_edt(
            objects == 0, return_distances=False, return_indices=True
        )
        owner = objects[rows, columns]
        for here, there in (np.s_[:-1, :], np.s_[1:, :]), (np.s_[:, :-1], np.s_[:, 1:]):
            line = owner[here] != owner[there]
            distance = np.hypot(
                (rows[here] - rows[there])[line], (columns[here] - columns[there])[line]
            )
            for side in here, there:
                np.minimum.at(nearest, owner[side][line], distance)
    gaps = nearest[1:] - 1.0
    return np.where(gaps <= REACH, gaps, np.inf)


def _touches(objects: NDArray[np.int32], semantic: IntArray, count: int) -> NDArray[np.bool_]:
    touches = np.zeros(count + 1, bool)
    for here, there in (np.s_[:-1, :], np.s_[1:, :]), (np.s_[:, :-1], np.s_[:, 1:]):
        border = (objects[here] != objects[there]) & (semantic[here] == semantic[there])
        border &= (objects[here] > 0) & (objects[there] > 0)
        for side in here, there:
            touches[objects[side][border]] = True
    return touches[1:]
