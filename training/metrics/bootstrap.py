"""Scores of many images, with intervals that say how much they depend on which images these were.

Every score is a quotient of sums over images. What an image adds to numerator and denominator is
kept, so that a score is recomputed for any choice of images without looking at a pixel again.

    one image ──> Quotients ─┐
    one image ──> Quotients ─┼─ weights (R, N) ─ pool ──> (R,) values of every score
    one image ──> Quotients ─┘

A mean over images is the quotient whose denominators are 1; a pooled score has counts there.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Quotients = dict[str, tuple[float, float]]
"""What one image adds to the numerator and the denominator of each score."""

FloatArray = NDArray[np.float64]

RESAMPLES = 1000
COVERAGE = 0.95
SEED = 0


@dataclass(frozen=True, slots=True)
class Score:
    """A score and the 95% interval around it; nan where one is not defined."""

    value: float
    low: float
    high: float

    def as_dict(self) -> dict[str, float | None]:
        """Give the score as JSON holds it: nan becomes None."""
        fields = {"value": self.value, "low": self.low, "high": self.high}
        return {name: none_if_nan(field) for name, field in fields.items()}


def quotient_of(value: float) -> tuple[float, float]:
    """Give what an image adds to the mean of a score: nothing, if its own is nan."""
    return (0.0, 0.0) if math.isnan(value) else (value, 1.0)


def pool(
    quotients: Sequence[Mapping[str, tuple[float, float]]], weights: FloatArray | None = None
) -> dict[str, FloatArray]:
    """Compute every score for choices of images.

    Args:
        quotients: What each of N images adds; all of the same names.
        weights: (R, N) how often each choice holds each image; None is every image once, R = 1.

    Returns:
        (R,) values of every score, nan where the denominator is 0.
    """
    weights = np.ones((1, len(quotients))) if weights is None else weights
    names = list(quotients[0]) if quotients else []
    parts = np.array([[added[name] for name in names] for added in quotients], dtype=np.float64)
    if not names:
        return {}
    above, below = weights @ parts[:, :, 0], weights @ parts[:, :, 1]
    values = np.divide(above, below, out=np.full_like(above, np.nan), where=below != 0)
    return dict(zip(names, values.T, strict=True))


def resampled(images: int) -> FloatArray:
    """Draw images with replacement, as many as there are, again and again.

    Returns:
        (1000, images) how often each image was drawn; the same in every call.
    """
    random = np.random.default_rng(SEED)
    return random.multinomial(images, np.full(images, 1 / images), RESAMPLES).astype(np.float64)


def interval(values: FloatArray) -> tuple[float, float]:
    """Give the percentile interval that holds 95% of a score's resampled values.

    Args:
        values: (R,) values of a score; those that are nan are left out.

    Returns:
        Its two ends, nan where no value is defined.

    Source: Efron 1979, Bootstrap methods: another look at the jackknife, Annals of Statistics 7(1).
    """
    defined = values[~np.isnan(values)]
    if not defined.size:
        return math.nan, math.nan
    low, high = np.quantile(defined, [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2])
    return float(low), float(high)


def none_if_nan(value: float) -> float | None:
    """Give a number as JSON holds it."""
    return None if math.isnan(value) else value
