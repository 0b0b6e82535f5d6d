"""The border term against the paper's formula, computed the plain way over whole images."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from model.errors import DatasetError
from training.tiles.weight_map import BORDER_SIGMA, BORDER_WEIGHT, border_term, class_weights

Ids = NDArray[np.integer[Any]]


def discs(seed: int, count: int, size: tuple[int, int] = (120, 150)) -> NDArray[np.int32]:
    """Give ids of discs at random places, some of them touching and some of them cut."""
    random = np.random.default_rng(seed)
    rows, columns = np.indices(size)
    objects = np.zeros(size, np.int32)
    for label in range(1, count + 1):
        row, column, radius = random.uniform((0, 0, 3), (*size, 11))
        objects[np.hypot(rows - row, columns - column) < radius] = label
    return objects


def naive_border_term(objects: Ids, w0: float, sigma: float) -> NDArray[np.float64]:
    """Follow equation 2 of the paper, with a distance transform of the whole image per object."""
    ids = [label for label in np.unique(objects) if label]
    distances = [ndimage.distance_transform_edt(objects != label) for label in ids]
    d1, d2 = np.sort(distances, axis=0)[:2]
    return np.asarray(w0 * np.exp(-((d1 + d2) ** 2) / (2 * sigma**2)))


def test_the_constants_are_those_of_the_paper() -> None:
    assert (BORDER_WEIGHT, BORDER_SIGMA) == (10.0, 5.0)


@pytest.mark.parametrize(("count", "seed"), [(2, 0), (12, 1), (60, 2)])
@pytest.mark.parametrize(("w0", "sigma"), [(10.0, 5.0), (3.0, 2.0)])
def test_it_is_that_over_the_whole_image(count: int, seed: int, w0: float, sigma: float) -> None:
    objects = discs(seed, count)
    actual = border_term(objects, w0=w0, sigma=sigma)
    np.testing.assert_allclose(actual, naive_border_term(objects, w0, sigma), rtol=1e-6, atol=1e-12)


def test_a_gap_of_one_pixel_has_the_weight_of_the_formula() -> None:
    objects = np.repeat([[1, 1, 0, 2, 2]], 9, axis=0)
    assert border_term(objects)[4, 2] == pytest.approx(10 * np.exp(-4 / 50))


def test_objects_that_touch_have_it_where_a_ridge_will_be_drawn() -> None:
    """d1 is 0 inside an object, and the neighbour's nearest pixel is 1 px away."""
    term = border_term(np.repeat([[1, 1, 2, 2]], 9, axis=0))
    expected = [10 * np.exp(-4 / 50), 10 * np.exp(-1 / 50)]
    assert term[4].tolist() == pytest.approx(expected + expected[::-1])


def test_it_falls_with_the_width_of_the_gap() -> None:
    peaks = [border_term(np.array([[1] + [0] * gap + [2]]))[0, 1] for gap in range(1, 20)]
    assert peaks == sorted(peaks, reverse=True)
    assert peaks[0] > peaks[-1]


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_objects_have_no_border_between_them(count: int) -> None:
    assert not border_term(discs(3, count)).any()


def test_objects_farther_apart_than_their_reach_have_no_border_between_them() -> None:
    objects = np.zeros((5, 200), np.int32)
    objects[:, 0], objects[:, -1] = 1, 2
    assert not border_term(objects).any()


def test_the_parts_of_one_object_have_no_border_between_them() -> None:
    assert not border_term(np.array([[1, 1, 0, 1, 1]])).any()


def test_ids_with_gaps_of_sixteen_bits_are_objects_like_others() -> None:
    objects = np.array([[7, 0, 65535]], np.uint16)
    assert border_term(objects)[0, 1] == pytest.approx(10 * np.exp(-4 / 50))


def test_a_weight_of_zero_gives_no_border() -> None:
    assert not border_term(discs(0, 5), w0=0.0).any()


def test_it_is_float32_of_the_same_shape() -> None:
    term = border_term(discs(0, 5))
    assert term.shape == (120, 150)
    assert term.dtype == np.float32


def test_a_negative_id_is_refused() -> None:
    with pytest.raises(DatasetError, match="objects hold the negative id -1"):
        border_term(np.array([[-1, 0, 2]]))


@pytest.mark.parametrize("objects", [np.zeros((2, 3, 4), int), np.zeros((3, 4))])
def test_what_is_no_map_of_ids_is_refused(objects: NDArray[Any]) -> None:
    with pytest.raises(ValueError, match=r"objects must be \(H, W\) integer"):
        border_term(objects)


@pytest.mark.parametrize("sigma", [0.0, -1.0])
def test_a_sigma_that_is_not_positive_is_refused(sigma: float) -> None:
    with pytest.raises(ValueError, match=f"sigma must be positive, got {sigma}"):
        border_term(discs(0, 3), sigma=sigma)


def test_equally_frequent_classes_weigh_one() -> None:
    assert class_weights(np.array([40, 40, 40])).tolist() == [1.0, 1.0, 1.0]


def test_a_class_four_times_as_rare_weighs_twice_as_much() -> None:
    rare, frequent = class_weights(np.array([100, 400]))
    assert rare == pytest.approx(2 * frequent)


def test_a_class_that_never_occurs_weighs_nothing() -> None:
    weights = class_weights(np.array([10, 0, 30]))
    assert weights[1] == 0
    assert weights[0] > weights[2] > 0
