"""Connected components of a mask."""

import numpy as np
from numpy.typing import NDArray


def components(mask: NDArray[np.bool_]) -> tuple[NDArray[np.int32], int]:
    """Number what hangs together; neighbours are the four pixels that share an edge with one.

    Args:
        mask: (H, W).

    Returns:
        (H, W) ids from 1, 0 outside of the mask, and how many there are.
    """
    # Only here, since it takes as long as all else that the service imports from scientific Python.
    from scipy import ndimage

    ids = np.zeros(mask.shape, np.int32)
    return ids, ndimage.label(mask, output=ids)
