"""Whether a number grows: a straight line by least squares, and how sure its slope is."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

ERRORS = 2.0
"""Standard errors by which a slope must be above 0 to be more than noise."""
BLOCKS = 10
"""Neighbouring samples are alike, so a line is laid through the means of so many blocks."""


@dataclass(frozen=True, slots=True)
class Trend:
    """A slope, and its standard error."""

    slope: float
    error: float

    @property
    def grows(self) -> bool:
        """Whether the slope is more than noise."""
        return self.slope > ERRORS * self.error


def trend(places: Sequence[float], values: Sequence[float]) -> Trend:
    """Fit a line through samples.

    Raises:
        ValueError: if there are fewer than three blocks of samples.
    """
    count = min(BLOCKS, len(places))
    if count < 3:
        raise ValueError(f"a slope with an error needs three samples; found {len(places)}")
    x, y = (
        np.array([block.mean() for block in np.array_split(np.asarray(each, float), count)])
        for each in (places, values)
    )
    x = x - x.mean()
    slope = float(x @ y / (x @ x))
    left = y - y.mean() - slope * x
    return Trend(slope, math.sqrt(float(left @ left) / (count - 2) / float(x @ x)))
