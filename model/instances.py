"""From the probability of foreground to objects, each with its own id.

    probability ≥ seed threshold ──────components──> seeds, where large enough ─┐
                                                                                ├─> objects
    probability ≥ decision threshold ──────────────> foreground, shared out ────┘

Ridges of lower probability, by which training keeps touching objects apart, divide the seeds; the
objects then grow over the ridges, as far as these are foreground. Neighbours are the four pixels
that share an edge with one, throughout.
"""

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from model.components import components

_WAITING = -1
"""Mark of a foreground pixel that no object has reached yet."""

_LONGEST_WAY = 4000
"""Steps that objects take through the foreground one by one; what lies farther is given in one."""

Ids = NDArray[np.int32]
"""(H + 2, W + 2) ids, with a frame of background around the map."""


class InstanceRule(BaseModel):
    """How objects are told apart; tuned on validation images."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed_threshold: float = Field(default=0.5, gt=0, lt=1)
    """Each component of the pixels with at least this probability is the seed of an object; at the
    decision threshold or below, the components of the foreground are the objects."""
    smallest_area: int = Field(default=0, ge=0)
    """Smallest area of a seed and of an object, in px. What is smaller does not divide an object
    that holds a larger seed, and is none by itself."""


def separate(
    probabilities: NDArray[np.float32], threshold: float, rule: InstanceRule
) -> NDArray[np.int32]:
    """Tell objects apart.

    A pixel of the foreground belongs to the seed that reaches it in the fewest steps through the
    foreground; of several, to the one that begins last in reading order. A component of the
    foreground without a seed is one object, so that no part of the mask is missing from the objects
    but what is too small.

    Args:
        probabilities: (H, W) probability of foreground, in [0, 1].
        threshold: Decision threshold, in (0, 1): pixels below it belong to no object.
        rule: Where objects begin, and how small they may be.

    Returns:
        (H, W) ids from 1 without gaps, in reading order of each object's first pixel; 0 outside of
        objects. Each object is connected.

    Raises:
        ValueError: The probabilities are no (H, W) array of floats.
    """
    if probabilities.ndim != 2 or not np.issubdtype(probabilities.dtype, np.floating):
        raise ValueError(
            f"probabilities must be (H, W) float, got {probabilities.shape} {probabilities.dtype}"
        )
    ids, _ = components(_framed(probabilities >= max(rule.seed_threshold, threshold)))
    _drop_small(ids, rule.smallest_area)
    if rule.seed_threshold > threshold:
        _share_out(ids, _framed(probabilities >= threshold), rule.smallest_area)
    return _in_order(ids)[ids[1:-1, 1:-1]]


def foreground(probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
    """Give the probability that a pixel belongs to any class but class 0, the background.

    Args:
        probabilities: (K - 1, H, W) probabilities of the others, in [0, 1].

    Returns:
        (H, W) in [0, 1].

    Raises:
        ValueError: The probabilities are no (K - 1, H, W) array.
    """
    if probabilities.ndim != 3:
        raise ValueError(f"probabilities must be (K - 1, H, W), got {probabilities.shape}")
    return np.asarray(probabilities[0] if len(probabilities) == 1 else probabilities.sum(axis=0))


def classes_of(
    objects: NDArray[np.int32], labels: NDArray[np.uint8], num_classes: int
) -> NDArray[np.uint8]:
    """Give the class of every object: that of most of its pixels, background aside.

    Args:
        objects: (H, W) ids from 1 without gaps, 0 outside of objects.
        labels: (H, W) class ids below `num_classes`.
        num_classes: Number of classes, K.

    Returns:
        (n,) class ids from 1, of object 1 first; of equally frequent classes the first.

    Raises:
        ValueError: The arrays differ in shape, or there is no class but background.
    """
    if objects.shape != labels.shape or num_classes < 2:
        raise ValueError(
            f"objects {objects.shape} and labels {labels.shape} of {num_classes} classes "
            "do not fit together"
        )
    inside = np.flatnonzero(objects)
    pairs = objects.ravel()[inside].astype(np.intp) * num_classes + labels.ravel()[inside]
    count = int(objects.max(initial=0)) + 1
    table = np.bincount(pairs, minlength=count * num_classes).reshape(count, num_classes)
    return np.asarray(table[1:, 1:].argmax(axis=1) + 1, np.uint8)


def _framed(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Put a pixel of background around a map, so that no step leaves it or wraps around."""
    return np.pad(mask, 1)


def _runs(ids: Ids) -> tuple[NDArray[np.intp], NDArray[np.int32]]:
    """Give the place where each run of equal ids begins, but for the first, and its id."""
    flat = ids.ravel()
    starts = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    return starts, flat[starts]


def _areas(ids: Ids) -> NDArray[np.intp]:
    """Give the number of pixels of every id from 0; of id 0 itself it means nothing."""
    starts, found = _runs(ids)
    areas = np.bincount(found, weights=np.diff(starts, append=ids.size), minlength=1)
    return areas.astype(np.intp)


def _drop_small(ids: Ids, smallest_area: int) -> None:
    areas = _areas(ids)
    kept = np.arange(len(areas), dtype=np.int32)
    kept[areas < smallest_area] = 0
    if np.count_nonzero(kept) < len(kept) - 1:
        ids[:] = kept[ids]


def _share_out(ids: Ids, mask: NDArray[np.bool_], smallest_area: int) -> None:
    """Give every pixel of the mask to the object that reaches it first."""
    flat, steps = ids.ravel(), _steps(ids)
    waiting = mask & (ids == 0)
    front = np.flatnonzero(waiting & _beside(ids > 0))
    ids[waiting] = _WAITING
    for _ in range(_LONGEST_WAY):
        if not front.size:
            break
        flat[front] = flat[front + steps].max(axis=0)
        front = _next_front(flat, (front + steps).ravel())
    _share_out_rest(ids, front, smallest_area)


def _next_front(flat: NDArray[np.int32], near: NDArray[np.intp]) -> NDArray[np.intp]:
    """Give those pixels that are waiting, each once."""
    near = near[flat[near] == _WAITING]
    marks = np.arange(_WAITING - 1, _WAITING - 1 - near.size, -1, dtype=np.int32)
    flat[near] = marks
    return np.asarray(near[flat[near] == marks])


def _share_out_rest(ids: Ids, front: NDArray[np.intp], smallest_area: int) -> None:
    """Give each component of what is waiting to an object that came to it, or make it one."""
    parts, _ = components(ids < 0)
    areas = _areas(parts)
    owners = np.arange(len(areas), dtype=np.int32) + ids.max()
    owners[areas < smallest_area] = 0
    owners[parts.ravel()[front]] = ids.ravel()[front + _steps(ids)].max(axis=0)
    np.copyto(ids, owners[parts], where=ids < 0)


def _steps(ids: Ids) -> NDArray[np.intp]:
    """Give the ways to the four neighbours of a pixel, as (4, 1) differences of flat indices."""
    return np.array([[-ids.shape[1]], [-1], [1], [ids.shape[1]]])


def _beside(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Give the pixels inside of the frame that have a neighbour in a mask."""
    beside = np.zeros_like(mask)
    beside[1:-1, 1:-1] = mask[:-2, 1:-1] | mask[2:, 1:-1] | mask[1:-1, :-2] | mask[1:-1, 2:]
    return beside


def _in_order(ids: Ids) -> NDArray[np.int32]:
    """Give the id that each object has once they are numbered in reading order."""
    starts, found = _runs(ids)
    first = np.full(int(found.max(initial=0)) + 1, ids.size)
    first[found[::-1]] = starts[::-1]  # of one object's runs, the first is written last
    first[0] = ids.size
    order = np.argsort(first, kind="stable")[: np.count_nonzero(first < ids.size)]
    numbers = np.zeros(len(first), np.int32)
    numbers[order] = np.arange(1, len(order) + 1)
    return numbers
