"""What became of each object: found, missed, invented, merged or split."""

from dataclasses import dataclass
from enum import IntEnum
from typing import Self

import numpy as np
from numpy.typing import NDArray

from training.data.labels import IntArray
from training.metrics.objects import IOU_THRESHOLDS, Overlaps

Ids = NDArray[np.intp]


class Fate(IntEnum):
    """What became of an object, annotated or found."""

    NONE = 0
    """Of ids that do not occur, and of id 0."""
    MATCHED = 1
    """It has a partner: one of an intersection over union of at least 0.5."""
    ALONE = 2
    """It has none: annotated, it was missed; found, it is extra."""
    MERGED = 3
    """Annotated, most of it lies in an object found that holds most of another one too; found, it
    is that object."""
    SPLIT = 4
    """Annotated, it holds most of two objects found or more; found, it is one of those."""


@dataclass(frozen=True, eq=False)
class Fates:
    """The fates of all objects of one image.

    One that has a partner is matched, whatever else it took part in, so that those which are not
    matched are the false negatives and false positives of `ap50`.
    """

    annotated: NDArray[np.uint8]
    """Fate by id of the object annotated."""
    found: NDArray[np.uint8]
    """Fate by id of the object found."""
    partners: Ids
    """Object annotated that each object found is matched with, by its id; 0 is none."""

    @classmethod
    def of(cls, found: IntArray, annotated: IntArray) -> Self:
        """Compare the objects of one image.

        Args:
            found: (H, W) object ids, 0 outside of objects; they index tables and should be small.
            annotated: (H, W) object ids, likewise.
        """
        overlaps = Overlaps.of(found, annotated)
        close = overlaps.iou >= IOU_THRESHOLDS[0]
        covered = 2 * overlaps.pixels > overlaps.reference_areas[overlaps.reference]
        within = 2 * overlaps.pixels > overlaps.found_areas[overlaps.found]
        merging = covered & _recurs(overlaps.found, covered)
        splitting = within & _recurs(overlaps.reference, within)
        partners = np.zeros(len(overlaps.found_areas), np.intp)
        partners[overlaps.found[close]] = overlaps.reference[close]
        return cls(
            _fates(overlaps.reference_areas, overlaps.reference, close, merging, splitting),
            _fates(overlaps.found_areas, overlaps.found, close, merging, splitting),
            partners,
        )

    def count(self) -> str:
        """Say how many objects had which fate."""
        annotated, found = (
            np.bincount(fates, minlength=len(Fate)) for fates in (self.annotated, self.found)
        )
        named = {
            "missed": annotated[Fate.ALONE],
            "merged": annotated[Fate.MERGED],
            "split": annotated[Fate.SPLIT],
            "extra": found[Fate.ALONE],
            "broken off": found[Fate.SPLIT],
        }
        whole = f"{annotated[Fate.MATCHED]} of {annotated[1:].sum()} objects found"
        return ", ".join([whole, *(f"{count} {name}" for name, count in named.items() if count)])


def _recurs(ids: Ids, chosen: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Tell for each pair whether its id is that of two of the chosen pairs or more."""
    counts = np.bincount(ids[chosen], minlength=int(ids.max(initial=0)) + 1)
    return np.asarray(counts[ids] > 1)


def _fates(
    areas: Ids,
    ids: Ids,
    close: NDArray[np.bool_],
    merging: NDArray[np.bool_],
    splitting: NDArray[np.bool_],
) -> NDArray[np.uint8]:
    fates = np.where(areas > 0, Fate.ALONE, Fate.NONE).astype(np.uint8)
    for chosen, fate in ((splitting, Fate.SPLIT), (merging, Fate.MERGED), (close, Fate.MATCHED)):
        fates[ids[chosen]] = fate
    return fates
