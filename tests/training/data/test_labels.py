"""Label maps: the objects in them against scikit-image, and what they may not hold."""

from typing import Any

import numpy as np
import pytest
from skimage import measure

from model.errors import DatasetError
from training.data.labels import objects_of, require_classes

independent: Any = measure  # scikit-image gives its functions no types


def test_objects_are_the_components_of_each_class() -> None:
    semantic = np.random.default_rng(1).integers(0, 3, (40, 40))
    objects = objects_of(semantic)
    expected = independent.label(semantic, background=0, connectivity=1)
    pairs = np.unique(np.stack([objects.ravel(), expected.ravel()]), axis=1)
    assert pairs.shape[1] == expected.max() + 1 == objects.max() + 1
    assert objects.dtype == np.int32


def test_a_label_map_of_background_holds_no_object() -> None:
    assert not objects_of(np.zeros((4, 4), np.uint8)).any()


def test_a_label_map_of_wrong_rank_is_refused() -> None:
    with pytest.raises(ValueError, match=r"semantic must be \(H, W\) integer, got \(2, 3, 3\)"):
        objects_of(np.zeros((2, 3, 3), int))


def test_a_negative_class_is_refused() -> None:
    with pytest.raises(DatasetError, match="semantic hold the negative id -2"):
        objects_of(np.array([[-2, 0, 1]]))


def test_a_class_that_there_is_not_is_refused_by_its_number() -> None:
    with pytest.raises(DatasetError, match="found hold class 3, but the 3 classes end at 2"):
        require_classes(3, found=np.array([[0, 3]]))


def test_every_class_that_there_is_may_occur() -> None:
    require_classes(3, found=np.array([[0, 1, 2]]))
