"""What labels hold, classes or objects, told by their values and said in a sentence."""

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from model.artefact import LabelKind

LabelsAsked = Literal["auto", "semantic", "instance"]
MOST_CLASSES = 16
"""More distinct values than this, in one data set, are ids of objects."""
FEW_IDS = 8
"""Up to so many values may be classes of one region each; more are objects, as in a movie in which
none comes or goes."""
FEWEST_IMAGES = 3
"""In fewer images than this, equal values may be equal numbers of objects by chance."""
NEARLY_ALL = 0.9
"""Share of the images that hold every class; in others one is out of sight."""
NO_BACKGROUND = 0.01
"""Share of pixels below which 0 is no background."""
MASKS = ({0, 1}, {0, 255})
"""The values of a mask drawn in black and white."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The kind of a data set's labels."""

    kind: LabelKind
    reason: str
    """One sentence."""
    is_doubtful: bool = False
    """Whether few values, each in one piece in its image, may be of the other kind as well."""


@dataclass(slots=True)
class Survey:
    """The values of all labels of a data set, counted one label map after the other."""

    ignore: int | None = None
    """The value of pixels that are neither class nor object."""
    holds_ids: bool = False
    """Whether the form of the data set says that more values than those of a mask are ids."""
    values: set[int] = field(default_factory=set)
    """Values seen so far, without the ignored one."""
    found_ignored: bool = False
    _pieces: list[int] = field(default_factory=list)
    """For each image and value but 0, the number of its components."""
    _ids: list[int] = field(default_factory=list)
    """For each image on which something is drawn, the number of its values but 0."""
    _background: int = 0
    _drawn: int = 0
    """Pixels of 0, and of all other values."""

    def add(self, labels: NDArray[Any]) -> None:
        """Count the labels (H, W) of an image."""
        values, counts = np.unique(labels, return_counts=True)
        found = dict(zip(values.tolist(), counts.tolist(), strict=True))
        self.found_ignored |= self.ignore in found
        found = {value: count for value, count in found.items() if value != self.ignore}
        self.values |= found.keys()
        self._background += found.pop(0, 0)
        self._drawn += sum(found.values())
        self._ids += [len(found)] if found else []
        if len(self.values) <= MOST_CLASSES:
            self._pieces += [ndimage.label(labels == value)[1] for value in found]

    @property
    def has_background(self) -> bool:
        """Whether more than stray pixels are 0."""
        return self._background >= NO_BACKGROUND * (self._background + self._drawn)

    @property
    def has_few_ids(self) -> bool:
        """Whether the values but 0 are so few that each may be a class."""
        return len(self.values - {0}) <= FEW_IDS

    def verdict(self, asked: LabelsAsked) -> Verdict:
        """Tell ids of objects from ids of classes.

        Two values over the whole data set are a mask: one id for all objects numbers none, and the
        objects of a class are its components anyway. A few more are classes if they are scattered,
        or if all of them recur in image after image: the number of objects varies.
        """
        kind, reason, is_doubtful = (
            self._judge() if asked == "auto" else (asked, "as was asked", False)
        )
        if self.ignore is not None:
            state = "is ignored" if self.found_ignored else "was to be ignored, and no pixel has it"
            reason += f"; the value {self.ignore} {state}"
        return Verdict(kind, f"The labels are {kind} labels: {reason}.", is_doubtful)

    def _judge(self) -> tuple[LabelKind, str, bool]:
        count = len(self.values)
        if count <= 2:
            only = " and ".join(map(str, sorted(self.values)))
            return "semantic", f"their only values are {only}, as in a mask", False
        if count > MOST_CLASSES:
            return "instance", f"{count} distinct values, more than {MOST_CLASSES}, are ids", False
        if self.holds_ids:
            return "instance", "in a Cell Tracking Challenge folder, values are ids", False
        pieces = float(np.mean(self._pieces))
        if pieces >= 2:
            return "semantic", f"{count} values lie in {pieces:.2g} pieces each in an image", False
        if self._recur():
            return "semantic", f"the same {count} values lie in nearly every image", True
        each = f"each value is in one piece in its image ({pieces:.2g} on average)"
        return "instance", each, self.has_few_ids

    def _recur(self) -> bool:
        """Tell whether nearly every image holds all values, and not by chance."""
        full = np.mean(np.equal(self._ids, len(self.values - {0})))
        is_no_chance = len(self._ids) >= FEWEST_IMAGES or not self.has_background
        return bool(self.has_few_ids and is_no_chance and full >= NEARLY_ALL)
