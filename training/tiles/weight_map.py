"""The weight of every pixel in the loss: class balance, and borders between touching objects.

    w(x) = wc(x) + w0 · exp(-(d1(x) + d2(x))² / (2 sigma²))

d1 and d2 are the distances of a background pixel to the nearest and the second nearest object, in
px, measured to the centre of the object's nearest pixel: 1 for a pixel that touches the object.

Source: Ronneberger et al. 2015, eq. 2.
"""

import math

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from training.data.labels import IntArray, require_ids

BORDER_WEIGHT = 10.0
"""The paper's w0: the weight of a border of no width."""

BORDER_SIGMA = 5.0
"""The paper's sigma in px: how fast the weight falls with the width of the border."""

_REACH_SIGMAS = 8.0
"""An object matters up to this many sigma away: beyond, its term is below exp(-32) · w0."""


def class_weights(counts: NDArray[np.int64]) -> NDArray[np.float32]:
    """Give the weights of classes that occur so often: the square root of what balances them.

    w_c = √(N / (K · n_c)), N pixels in all and n_c of class c. The root keeps a rare
    foreground from outweighing the borders around it. A class that never occurs gets 0.

    Args:
        counts: (K,) pixels of each class.

    Returns:
        (K,) float32.
    """
    weights = np.sqrt(counts.sum() / (len(counts) * np.maximum(counts, 1)))
    return np.where(counts > 0, weights, 0).astype(np.float32)


def border_term(
    objects: IntArray, *, w0: float = BORDER_WEIGHT, sigma: float = BORDER_SIGMA
) -> NDArray[np.float32]:
    """Give the border term at every pixel, also inside objects, where d1 is 0.

    A ridge that is drawn later between two touching objects finds its weight there.

    Args:
        objects: (H, W) integer object ids, 0 for background; an id may have several components.
        w0: Weight of a border of no width.
        sigma: Fall-off in px.

    Returns:
        (H, W) float32; 0 where fewer than two objects are within 8 sigma.

    Raises:
        ValueError: The ids are no (H, W) array of integers, or sigma is not positive.
        DatasetError: An id is negative.

    Source: Ronneberger et al. 2015, eq. 2.
    """
    require_ids(objects=objects)
    if not sigma > 0.0:
        raise ValueError(f"sigma must be positive, got {sigma}")
    nearest, second = _two_nearest(objects, reach=math.ceil(_REACH_SIGMAS * sigma))
    term = w0 * np.exp(-np.square(nearest + second) / (2.0 * sigma**2))
    return np.asarray(term, np.float32)


def _two_nearest(objects: IntArray, reach: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Give the distances to the two nearest objects, inf where none is within reach."""
    nearest = np.full(objects.shape, np.inf)
    second = np.full(objects.shape, np.inf)
    for label, box in enumerate(ndimage.find_objects(objects.astype(np.int64)), start=1):
        if box is None:
            continue
        around = tuple(slice(max(s.start - reach, 0), s.stop + reach) for s in box)
        distance = ndimage.distance_transform_edt(objects[around] != label)
        second[around] = np.minimum(second[around], np.maximum(nearest[around], distance))
        nearest[around] = np.minimum(nearest[around], distance)
    return nearest, second
