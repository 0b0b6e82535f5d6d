"""Which ids meet in two label maps of one image, and in how many pixels."""

import numpy as np
from numpy.typing import NDArray

from training.data.labels import IntArray

_TABLE_CELLS = 1 << 22
"""Largest table of pairs, in cells, that is counted in place; larger ones are sorted instead."""

_DIRECT_IDS = 1 << 16
"""Ids below this number index a table as they are; others are renumbered first."""


def small_ids(ids: IntArray) -> NDArray[np.intp]:
    """Give ids that are small enough to index a table with; 0 stays 0.

    Args:
        ids: Integers of any shape, size and sign.

    Returns:
        The ids as they are, or their ranks.
    """
    if not ids.size or 0 <= ids.min() <= ids.max() < _DIRECT_IDS:
        return ids.astype(np.intp)
    values, inverse = np.unique(ids, return_inverse=True)
    ranks = np.arange(1, len(values) + 1)
    ranks[values == 0] = 0
    return np.asarray(ranks[inverse], dtype=np.intp)


def count_pairs(
    rows: NDArray[np.intp], columns: NDArray[np.intp]
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """Count how often each pair of ids occurs.

    Args:
        rows: (N,) ids from 0.
        columns: (N,) ids from 0.

    Returns:
        The ids of rows and of columns and the count, one for each pair that occurs.
    """
    if not rows.size:
        return rows, columns, np.zeros(0, np.intp)
    height, width = int(rows.max()) + 1, int(columns.max()) + 1
    pairs = rows * width + columns
    if height * width <= _TABLE_CELLS:
        table = np.bincount(pairs)
        occupied = np.flatnonzero(table)
        counts = table[occupied]
    else:
        occupied, counts = np.unique(pairs, return_counts=True)
    return occupied // width, occupied % width, counts
