"""Weights against the paper's formula, computed the plain way over whole images."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from model.errors import DatasetError
from training.weight_map import border_weights, class_weights, weight_map

Ids = NDArray[np.integer[Any]]


def discs(seed: int, count: int, size: tuple[int, int] = (150, 190)) -> NDArray[np.int32]:
    """Gives ids of discs at random places, some of them touching and some of them cut."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[: size[0], : size[1]]
    objects = np.zeros(size, np.int32)
    for label in range(1, count + 1):
        row, column, radius = rng.uniform((0, 0, 3), (*size, 11))
        objects[np.hypot(rows - row, columns - column) < radius] = label
    return objects


def naive_border_weights(objects: Ids, w0: float, sigma: float) -> NDArray[np.float32]:
    """Follows equation 2 of the paper, with a distance transform of the whole image per object."""
    ids = [label for label in np.unique(objects) if label]
    distances = [ndimage.distance_transform_edt(objects != label) for label in ids]
    d1, d2 = np.sort(distances, axis=0)[:2]
    term: NDArray[np.float32] = (w0 * np.exp(-((d1 + d2) ** 2) / (2 * sigma**2))).astype(np.float32)
    term[objects != 0] = 0
    return term


@pytest.mark.parametrize(("count", "seed"), [(2, 0), (12, 1), (60, 2)])
@pytest.mark.parametrize(("w0", "sigma"), [(10.0, 5.0), (3.0, 2.0)])
def test_border_weights_are_those_over_the_whole_image(
    count: int, seed: int, w0: float, sigma: float
) -> None:
    objects = discs(seed, count)
    expected = naive_border_weights(objects, w0, sigma)
    actual = border_weights(objects, w0=w0, sigma=sigma)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-12)


def test_a_gap_of_one_pixel_has_the_weight_of_the_formula() -> None:
    objects = np.repeat([[1, 1, 0, 2, 2]], 9, axis=0)
    weights = border_weights(objects)
    assert weights[4].tolist() == pytest.approx([0, 0, 10 * np.exp(-4 / 50), 0, 0])


def test_border_weights_fall_with_the_width_of_the_gap() -> None:
    rows = [border_weights(np.array([[1] + [0] * gap + [2]])).max() for gap in range(1, 20)]
    assert rows == sorted(rows, reverse=True)


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_objects_have_no_border_between_them(count: int) -> None:
    assert not border_weights(discs(3, count)).any()


def test_objects_farther_apart_than_their_reach_have_no_border_between_them() -> None:
    objects = np.zeros((5, 200), np.int32)
    objects[:, 0], objects[:, -1] = 1, 2
    assert not border_weights(objects).any()


def test_the_parts_of_one_object_have_no_border_between_them() -> None:
    assert not border_weights(np.array([[1, 1, 0, 1, 1]])).any()


def test_ids_with_gaps_of_sixteen_bits_are_objects_like_others() -> None:
    objects = np.array([[7, 0, 65535]], np.uint16)
    assert border_weights(objects)[0, 1] == pytest.approx(10 * np.exp(-4 / 50))


def test_border_weights_are_float32_of_the_same_shape() -> None:
    weights = border_weights(discs(0, 5))
    assert weights.dtype == np.float32
    assert weights.shape == (150, 190)


def test_class_weights_are_inverse_to_the_share_of_each_class() -> None:
    labels = [np.array([[0, 0, 0, 1]]), np.array([[0, 0, 0, 1]])]
    assert class_weights(labels, 2).tolist() == pytest.approx([8 / (2 * 6), 8 / (2 * 2)])


def test_class_weights_have_the_mean_one_over_all_pixels() -> None:
    labels = np.random.default_rng(0).choice(3, (40, 50), p=[0.7, 0.2, 0.1])
    assert class_weights([labels], 3)[labels].mean() == pytest.approx(1.0, abs=1e-6)


def test_a_class_that_never_occurs_has_weight_zero() -> None:
    assert class_weights([np.zeros((3, 3), np.uint8)], 2).tolist() == [0.5, 0.0]


def test_class_weights_refuse_a_class_out_of_range() -> None:
    with pytest.raises(DatasetError, match="semantic hold class 255, but the 2 classes end at 1"):
        class_weights([np.full((3, 3), 255, np.uint8)], 2)


def test_class_weights_refuse_labels_without_a_pixel() -> None:
    with pytest.raises(DatasetError, match="at least one pixel"):
        class_weights([], 2)


def test_a_weight_map_is_the_class_weight_plus_the_border_term() -> None:
    objects = discs(4, 20)
    semantic = (objects > 0).astype(np.uint8)
    balance = np.array([0.75, 1.5], np.float32)
    weights = weight_map(semantic, objects, balance, w0=4.0, sigma=3.0)
    assert weights.dtype == np.float32
    expected = balance[semantic] + border_weights(objects, w0=4.0, sigma=3.0)
    np.testing.assert_array_equal(weights, expected)


def test_a_weight_map_refuses_arrays_of_different_shapes() -> None:
    with pytest.raises(ValueError, match=r"semantic \(3, 3\), objects \(3, 4\)"):
        weight_map(np.zeros((3, 3), int), np.zeros((3, 4), int), np.ones(2, np.float32))


def test_a_weight_map_refuses_class_weights_of_wrong_rank() -> None:
    with pytest.raises(ValueError, match=r"class_weights must be \(K,\)"):
        weight_map(np.zeros((3, 3), int), np.zeros((3, 3), int), np.ones((2, 1), np.float32))


def test_a_negative_object_id_is_refused() -> None:
    with pytest.raises(DatasetError, match="objects hold the negative id -1"):
        border_weights(np.array([[-1, 0, 2]]))


def test_a_sigma_that_is_not_positive_is_refused() -> None:
    with pytest.raises(ValueError, match=r"sigma must be positive, got 0\.0"):
        border_weights(discs(0, 3), sigma=0.0)
