"""Masks that were interpolated, and so are no labels: blurred, resized, turned, stored as JPEG."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from model.errors import DatasetError
from training.data.forms import Pair

WHITE = range(100, 1 << 16)
"""The largest value of a mask in black and white: between lower ones interpolation finds little."""
FEWEST_BETWEEN = 3
"""Values between black and white: of fewer, each may be a class that is drawn around another."""
DOMINANCE = 10
"""How often black and white are there, together, for once that a value in between is."""
RISING = 0.5
"""Share of the pixels between black and white that have a darker and a brighter neighbour. In masks
blurred, resized, turned or stored as JPEG it is 0.6 and more, among ids of objects 0.02 at most."""


def require_uninterpolated(pair: Pair, labels: NDArray[Any]) -> None:
    """Refuse the labels (H, W) of a pair if they are a mask whose edges became grey.

    Raises:
        DatasetError: naming the file, and what to do.
    """
    if int(labels.max(initial=0)) not in WHITE:
        return
    counts = np.bincount(labels.clip(0).astype(np.intp).ravel())
    middle = len(counts) // 2
    black, white = int(counts[:middle].argmax()), middle + int(counts[middle:].argmax())
    rims = counts[black + 1 : white]
    between = np.count_nonzero(rims)
    is_mask = (counts[black] + counts[white]) * between > DOMINANCE * rims.sum()
    if between >= FEWEST_BETWEEN and is_mask and _rising(labels, black, white) > RISING:
        where = "" if pair.page is None else f", page {pair.page},"
        raise DatasetError(
            f"{pair.labels}{where} holds a mask that was interpolated: {between} values lie on "
            f"rims between {black} and {white}; threshold it, or export it without interpolation."
        )


def _rising(labels: NDArray[Any], black: int, white: int) -> float:
    """Give the share of pixels with a darker and a brighter neighbour among those in between."""
    darkest, brightest = ndimage.minimum_filter(labels, 3), ndimage.maximum_filter(labels, 3)
    rises = (darkest < labels) & (labels < brightest)
    return float(rises[(black < labels) & (labels < white)].mean())
