"""Label maps: what they may hold, and the objects in them."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.components import components_by_class
from model.errors import DatasetError

IntArray = NDArray[np.integer[Any]]


def objects_of(semantic: IntArray) -> NDArray[np.int32]:
    """Give the objects of a semantic label map: the components (4-connectivity) of its classes.

    Class 0 is background. Touching pixels of different classes belong to different objects.

    Args:
        semantic: (H, W) integer classes.

    Returns:
        (H, W) int32 ids from 1, in order of class; 0 where the class is 0.

    Raises:
        ValueError: The label map is no (H, W) array of integers.
        DatasetError: A class is negative.
    """
    require_ids(semantic=semantic)
    ids, _ = components_by_class(semantic)
    return ids


def require_labels(**arrays: IntArray) -> None:
    """Refuse what is no label map, and label maps of one image that differ in shape.

    Raises:
        ValueError: An array is no (H, W) array of integers, or their shapes differ.
    """
    for name, array in arrays.items():
        if array.ndim != 2 or not np.issubdtype(array.dtype, np.integer):
            raise ValueError(f"{name} must be (H, W) integer, got {array.shape} {array.dtype}")
    if len({array.shape for array in arrays.values()}) > 1:
        shapes = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
        raise ValueError(f"arrays of one image differ in shape: {shapes}")


def require_ids(**arrays: IntArray) -> None:
    """Refuse label maps with negative ids.

    Raises:
        ValueError: As `require_labels`.
        DatasetError: An id is negative.
    """
    require_labels(**arrays)
    for name, array in arrays.items():
        if array.size and array.min() < 0:
            raise DatasetError(f"{name} hold the negative id {array.min()}")


def require_classes(num_classes: int, **arrays: IntArray) -> None:
    """Refuse label maps with classes that there are not.

    Raises:
        ValueError: As `require_labels`.
        DatasetError: A class lies outside 0 … K - 1.
    """
    require_ids(**arrays)
    for name, array in arrays.items():
        if array.size and array.max() >= num_classes:
            raise DatasetError(
                f"{name} hold class {array.max()}, but the {num_classes} classes end at "
                f"{num_classes - 1}"
            )
