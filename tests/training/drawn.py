"""Label maps that tests of scores share: drawn at random, the same for a seed."""

import itertools
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from scipy import ndimage

Ids = NDArray[np.integer[Any]]

SMALL_IDS = arrays.arrays(np.int32, (6, 8), elements=st.integers(0, 4))
"""Few ids over few pixels, so that every way to overlap occurs."""
MASKS = arrays.arrays(np.bool_, (7, 9))


def blocks(seed: int, count: int, edge: int = 48) -> NDArray[np.int32]:
    """Give (edge, edge) ids 1 … count of the cells around random points."""
    points = np.random.default_rng(seed).uniform(0, edge, (count, 2))
    rows, columns = np.mgrid[:edge, :edge]
    distance = np.hypot(rows[..., None] - points[:, 0], columns[..., None] - points[:, 1])
    ids: NDArray[np.int32] = distance.argmin(axis=-1).astype(np.int32) + 1
    return ids


def with_borders(ids: Ids) -> NDArray[np.int32]:
    """Set the pixels that have another id within one pixel to 0."""
    same = ndimage.maximum_filter(ids, 3) == ndimage.minimum_filter(ids, 3)
    return np.where(same, ids, 0).astype(np.int32)


def discs(seed: int, jitter: float = 0.0, edge: int = 96) -> NDArray[np.int32]:
    """Give (edge, edge) ids of discs on a grid, each moved by the jitter and some left out."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[:edge, :edge]
    ids = np.zeros((edge, edge), np.int32)
    places = range(8, edge, 13)
    for number, centre in enumerate(itertools.product(places, places), 1):
        row, column = centre + random.normal(0, jitter, 2)
        radius = random.uniform(3, 7)
        if random.random() < 0.9:
            ids[np.hypot(rows - row, columns - column) < radius] = number
    return ids
