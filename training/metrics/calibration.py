"""Whether a probability of 0.9 is right nine times in ten."""

from dataclasses import dataclass
from itertools import starmap

import numpy as np
from numpy.typing import NDArray

BINS = 15
"""Equal parts of [0, 1] that probabilities are sorted into."""


@dataclass(frozen=True, slots=True)
class Bin:
    """Pixels whose probabilities lie in one bin: a row of the reliability table."""

    low: float
    high: float
    confidence: float
    """Mean probability; nan in an empty bin."""
    accuracy: float
    """Share of pixels whose class it was; nan in an empty bin."""
    count: int


def reliability_sums(
    probabilities: NDArray[np.float32],
    reference: NDArray[np.uint8],
    ignored: NDArray[np.bool_] | None = None,
) -> NDArray[np.float64]:
    """Sort the pixels of one image by the probability that they were given.

    With two classes that is the probability of class 1, and right is what was annotated as class 1.
    With more it is that of the most probable class, and right is what has that class.

    Args:
        probabilities: (K, H, W) of every class, in [0, 1].
        reference: (H, W) classes annotated.
        ignored: (H, W) bool, True where a pixel does not count.

    Returns:
        (3, 15): by bin, the sum of probabilities, the pixels that were right, and all pixels.
    """
    if len(probabilities) == 2:
        confidence, right = probabilities[1], reference == 1
    else:
        confidence, right = probabilities.max(axis=0), probabilities.argmax(axis=0) == reference
    counted = slice(None) if ignored is None else ~ignored
    shown = confidence[counted].ravel().astype(np.float64)
    bins = np.minimum((shown * BINS).astype(np.intp), BINS - 1)
    sums = [np.bincount(bins, weights, BINS) for weights in (shown, right[counted].ravel(), None)]
    return np.array(sums, dtype=np.float64)


def calibration_error(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Give the expected calibration error: Σ over bins of their share · |accuracy − confidence|.

    Args:
        sums: (..., 3, 15) as `reliability_sums` gives them, added over images.

    Returns:
        (...) errors in [0, 1], nan without a pixel.

    Source: Naeini et al. 2015, Obtaining well calibrated probabilities using Bayesian binning;
    Guo et al. 2017, On calibration of modern neural networks (15 bins).
    """
    gaps = np.abs(sums[..., 0, :] - sums[..., 1, :]).sum(axis=-1)
    pixels = sums[..., 2, :].sum(axis=-1)
    errors: NDArray[np.float64] = np.divide(
        gaps, pixels, out=np.full_like(gaps, np.nan), where=pixels != 0
    )
    return errors


def reliability_table(sums: NDArray[np.float64]) -> tuple[Bin, ...]:
    """Give the reliability table of sums (3, 15)."""
    edges = np.linspace(0, 1, BINS + 1)
    counts = sums[2]
    means = np.divide(sums[:2], counts, out=np.full((2, BINS), np.nan), where=counts > 0)
    columns = (edges[:-1], edges[1:], *means, counts.astype(np.intp))
    return tuple(starmap(Bin, zip(*(column.tolist() for column in columns), strict=True)))
