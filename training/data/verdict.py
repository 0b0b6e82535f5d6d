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
MASKS = ({0, 1}, {0, 255})
"""A mask drawn in black and white is one of two classes, whatever white is called."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The kind of a data set's labels."""

    kind: LabelKind
    reason: str
    """One sentence."""


@dataclass(slots=True)
class Survey:
    """The values of all labels of a data set, counted one label map after the other."""

    ignore: int | None = None
    """The value of pixels that are neither class nor object."""
    values: set[int] = field(default_factory=set)
    """Values seen so far, without the ignored one."""
    found_ignored: bool = False
    _pieces: list[int] = field(default_factory=list)
    """For each image and value but 0, the number of its components."""

    def add(self, labels: NDArray[Any]) -> None:
        """Count the labels (H, W) of an image."""
        found = set(np.unique(labels).tolist())
        self.found_ignored |= self.ignore in found
        found.discard(self.ignore)
        self.values |= found
        if len(self.values) <= MOST_CLASSES:
            self._pieces += [ndimage.label(labels == value)[1] for value in found if value]

    def verdict(self, asked: LabelsAsked) -> Verdict:
        """Tell ids of objects from ids of classes.

        Few values over the whole data set are classes, unless each is one connected object in its
        image: a class is scattered, an object is not.
        """
        kind, reason = self._judge() if asked == "auto" else (asked, "as was asked")
        if self.ignore is not None:
            state = "is ignored" if self.found_ignored else "was to be ignored, and no pixel has it"
            reason += f"; the value {self.ignore} {state}"
        return Verdict(kind, f"The labels are {kind} labels: {reason}.")

    def _judge(self) -> tuple[LabelKind, str]:
        count = len(self.values)
        if self.values in MASKS:
            return "semantic", f"their only values are 0 and {max(self.values)}, as in a mask"
        if count > MOST_CLASSES:
            return "instance", f"{count} distinct values, more than {MOST_CLASSES}, are ids"
        pieces = float(np.mean(self._pieces))
        if pieces < 2:
            return "instance", f"each value is in one piece in its image ({pieces:.2g} on average)"
        return "semantic", f"{count} values lie in {pieces:.2g} pieces each in an image"
