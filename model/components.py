"""Connected components of masks and label maps."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def components(mask: NDArray[np.bool_]) -> tuple[NDArray[np.int32], int]:
    """Number what hangs together; neighbours are the four pixels that share an edge with one.

    Args:
        mask: (H, W).

    Returns:
        (H, W) ids from 1, 0 outside of the mask, and how many there are.
    """
    # Imported on first use: nothing else that the service imports takes as long.
    from scipy import ndimage

    ids = np.zeros(mask.shape, np.int32)
    return ids, ndimage.label(mask, output=ids)


def components_by_class(
    labels: NDArray[np.integer[Any]],
) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
    """Number the components of every class but class 0, class after class.

    Args:
        labels: (H, W) class ids, from 0 to 255.

    Returns:
        (H, W) ids from 1, 0 where the class is 0; and (n,) the class of each component.
    """
    ids = np.zeros(labels.shape, np.int32)
    counts = [0]
    for label in range(1, int(labels.max(initial=0)) + 1):
        inside = labels == label
        numbers, count = components(inside)
        ids[inside] = numbers[inside] + sum(counts)
        counts.append(count)
    return ids, np.repeat(np.arange(len(counts)), counts).astype(np.uint8)
