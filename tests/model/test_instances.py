"""Objects against a plain flood, scikit-image, and what must hold for every map."""

from collections import deque

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray
from pydantic import ValidationError
from scipy import ndimage
from skimage.graph import MCP
from skimage.segmentation import watershed

from model.instances import InstanceRule, classes_of, foreground, separate

LEVELS = (0.1, 0.3, 0.5, 0.7, 0.9)

Map = NDArray[np.float32]
Pixel = tuple[int, int]

maps = arrays(
    np.float32,
    array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9),
    elements=st.sampled_from(LEVELS).map(np.float32),
)
thresholds = st.sampled_from((0.2, 0.4, 0.6, 0.8))
rules = st.builds(InstanceRule, seed_threshold=thresholds, smallest_area=st.integers(0, 6))


def neighbours(pixel: Pixel, shape: tuple[int, ...]) -> list[Pixel]:
    row, column = pixel
    beside = [(row - 1, column), (row, column - 1), (row, column + 1), (row + 1, column)]
    return [(r, c) for r, c in beside if 0 <= r < shape[0] and 0 <= c < shape[1]]


def naive_components(mask: NDArray[np.bool_]) -> list[list[Pixel]]:
    """Gives the components in reading order of their first pixels, a pixel at a time."""
    components, seen = [], np.zeros(mask.shape, bool)
    for start in zip(*np.nonzero(mask), strict=True):
        if seen[start]:
            continue
        seen[start] = True
        queue, component = deque([start]), []
        while queue:
            pixel = queue.popleft()
            component.append(pixel)
            for near in neighbours(pixel, mask.shape):
                if mask[near] and not seen[near]:
                    seen[near] = True
                    queue.append(near)
        components.append(component)
    return components


def naive_separate(probabilities: Map, threshold: float, rule: InstanceRule) -> NDArray[np.int32]:
    """Follows the rule as it is written, a pixel at a time."""
    mask = probabilities >= np.float32(threshold)
    objects = np.zeros(mask.shape, np.int32)
    seeds = naive_components(probabilities >= np.float32(max(threshold, rule.seed_threshold)))
    for label, seed in enumerate(seeds, start=1):
        for pixel in seed if len(seed) >= rule.smallest_area else ():
            objects[pixel] = label
    while joined := {
        pixel: label
        for pixel in zip(*np.nonzero(mask & (objects == 0)), strict=True)
        if (label := max((objects[near] for near in neighbours(pixel, mask.shape)), default=0))
    }:
        for pixel, label in joined.items():
            objects[pixel] = label
    for label, rest in enumerate(naive_components(mask & (objects == 0)), start=len(seeds) + 1):
        for pixel in rest if len(rest) >= rule.smallest_area else ():
            objects[pixel] = label
    numbered = np.zeros_like(objects)
    for label, old in enumerate(dict.fromkeys(objects[objects > 0].tolist()), start=1):
        numbered[objects == old] = label
    return numbered


def smooth_map(seed: int, size: int = 60) -> Map:
    """Gives hills and valleys between 0 and 1."""
    noise = np.random.default_rng(seed).standard_normal((size, size))
    hills = ndimage.gaussian_filter(noise, 2.5)
    return np.asarray((hills - hills.min()) / np.ptp(hills), np.float32)


@settings(deadline=None)
@given(maps, thresholds, rules)
def test_objects_are_those_of_a_flood_pixel_by_pixel(
    probabilities: Map, threshold: float, rule: InstanceRule
) -> None:
    expected = naive_separate(probabilities, threshold, rule)
    np.testing.assert_array_equal(separate(probabilities, threshold, rule), expected)


@settings(deadline=None)
@given(maps, thresholds, rules)
def test_ids_have_no_gaps_and_follow_the_first_pixels_in_reading_order(
    probabilities: Map, threshold: float, rule: InstanceRule
) -> None:
    objects = separate(probabilities, threshold, rule)
    inside = objects[objects > 0]
    assert list(dict.fromkeys(inside.tolist())) == list(range(1, int(objects.max()) + 1))
    assert objects.dtype == np.int32


@settings(deadline=None)
@given(maps, thresholds, rules)
def test_every_object_is_connected_and_large_enough(
    probabilities: Map, threshold: float, rule: InstanceRule
) -> None:
    objects = separate(probabilities, threshold, rule)
    for label in range(1, int(objects.max()) + 1):
        assert ndimage.label(objects == label)[1] == 1
        assert np.count_nonzero(objects == label) >= rule.smallest_area


@settings(deadline=None)
@given(maps, thresholds, rules)
def test_objects_cover_the_foreground_but_for_components_that_are_too_small(
    probabilities: Map, threshold: float, rule: InstanceRule
) -> None:
    mask = probabilities >= np.float32(threshold)
    components, _ = ndimage.label(mask)
    large = np.bincount(components.ravel()) >= rule.smallest_area
    objects = separate(probabilities, threshold, rule)
    np.testing.assert_array_equal(objects > 0, mask & large[components])


@settings(deadline=None)
@given(maps, thresholds)
def test_without_higher_seeds_objects_are_the_components_of_the_foreground(
    probabilities: Map, threshold: float
) -> None:
    components, _ = ndimage.label(probabilities >= np.float32(threshold))
    objects = separate(probabilities, threshold, InstanceRule(seed_threshold=0.1))
    np.testing.assert_array_equal(objects, components)


@pytest.mark.parametrize("seed", range(4))
def test_objects_are_those_of_shortest_ways_and_of_a_watershed(seed: int) -> None:
    probabilities = smooth_map(seed)
    mask = probabilities >= 0.4
    markers, count = ndimage.label(probabilities >= 0.6)
    costs = np.where(mask, 1.0, -1.0)  # a negative cost cannot be crossed
    ways = np.stack(
        [
            MCP(costs, fully_connected=False).find_costs(np.argwhere(markers == label))[0]
            for label in range(1, count + 1)
        ]
    )
    flooded: NDArray[np.int32] = watershed(  # type: ignore[no-untyped-call]  # ships no types
        np.zeros(mask.shape, np.uint8), markers, mask=mask
    )
    nearest, second = np.sort(ways, axis=0)[:2]
    plain = mask & (nearest < second)  # of equally short ways, others may choose another
    assert plain.sum() > 0.9 * np.count_nonzero(flooded)
    objects = separate(probabilities, 0.4, InstanceRule(seed_threshold=0.6))
    of_seed = np.array([0, *(objects[markers == label][0] for label in range(1, count + 1))])
    assert len(set(of_seed.tolist())) == count + 1 > 6
    np.testing.assert_array_equal(objects[plain], of_seed[ways.argmin(axis=0)[plain] + 1])
    np.testing.assert_array_equal(objects[plain], of_seed[flooded[plain]])


def test_a_wall_of_background_is_walked_around() -> None:
    probabilities = np.array(
        [
            [0.9, 0.1, 0.5, 0.5, 0.5],
            [0.9, 0.1, 0.5, 0.1, 0.5],
            [0.9, 0.1, 0.5, 0.1, 0.9],
            [0.5, 0.5, 0.5, 0.1, 0.9],
        ],
        np.float32,
    )
    objects = separate(probabilities, 0.4, InstanceRule(seed_threshold=0.8))
    np.testing.assert_array_equal(
        objects, [[1, 0, 2, 2, 2], [1, 0, 2, 0, 2], [1, 0, 1, 0, 2], [1, 1, 1, 0, 2]]
    )


def test_a_ridge_above_the_threshold_divides_two_objects_and_is_theirs() -> None:
    probabilities = np.tile(np.array([0.9, 0.9, 0.5, 0.5, 0.9], np.float32), (3, 1))
    objects = separate(probabilities, 0.4, InstanceRule(seed_threshold=0.8))
    assert objects.tolist() == [[1, 1, 1, 2, 2]] * 3


def test_a_seed_that_is_too_small_divides_nothing() -> None:
    probabilities = np.tile(np.array([0.9, 0.9, 0.5, 0.9], np.float32), (3, 1))
    objects = separate(probabilities, 0.4, InstanceRule(seed_threshold=0.8, smallest_area=4))
    assert objects.tolist() == [[1, 1, 1, 1]] * 3


def test_a_component_without_a_seed_is_an_object() -> None:
    probabilities = np.array([[0.5, 0.5, 0.1, 0.9]], np.float32)
    objects = separate(probabilities, 0.4, InstanceRule(seed_threshold=0.8))
    assert objects.tolist() == [[1, 1, 0, 2]]


def test_objects_that_touch_at_a_corner_are_two() -> None:
    probabilities = np.array([[0.9, 0.1], [0.1, 0.9]], np.float32)
    assert separate(probabilities, 0.5, InstanceRule()).tolist() == [[1, 0], [0, 2]]


def test_the_left_and_the_right_border_of_a_map_are_no_neighbours() -> None:
    probabilities = np.array([[0.9, 0.5, 0.1, 0.5], [0.5, 0.1, 0.5, 0.9]], np.float32)
    objects = separate(probabilities, 0.4, InstanceRule(seed_threshold=0.8))
    assert objects.tolist() == [[1, 1, 0, 2], [1, 0, 2, 2]]


def test_a_way_of_any_length_is_walked_to_its_end() -> None:
    probabilities = np.full((140, 141), 0.5, np.float32)
    probabilities[1::4, 1:] = probabilities[3::4, :-1] = 0.1  # a corridor of about 9,900 px
    probabilities[0, 0] = 0.9
    corridor = probabilities >= 0.4
    objects = separate(probabilities, 0.4, InstanceRule(seed_threshold=0.8))
    np.testing.assert_array_equal(objects, corridor)
    assert np.count_nonzero(corridor) > 9_000


def test_two_ends_of_a_long_way_are_two_connected_objects() -> None:
    probabilities = np.full((140, 141), 0.5, np.float32)
    probabilities[1::4, 1:] = probabilities[3::4, :-1] = 0.1
    probabilities[0, -1] = probabilities[-2, 0] = 0.9
    objects = separate(probabilities, 0.4, InstanceRule(seed_threshold=0.8))
    assert [ndimage.label(objects == label)[1] for label in (1, 2)] == [1, 1]
    np.testing.assert_array_equal(objects > 0, probabilities >= 0.4)


@pytest.mark.parametrize("shape", [(0, 0), (0, 5), (5, 0), (1, 1)])
def test_a_map_without_foreground_has_no_objects(shape: tuple[int, int]) -> None:
    objects = separate(np.zeros(shape, np.float32), 0.5, InstanceRule(seed_threshold=0.7))
    assert objects.shape == shape
    assert not objects.any()


def test_a_value_that_is_no_number_is_background() -> None:
    probabilities = np.array([[0.9, np.nan, 0.9]], np.float32)
    assert separate(probabilities, 0.5, InstanceRule()).tolist() == [[1, 0, 2]]


def test_a_map_is_read_in_any_layout_and_left_as_it_was() -> None:
    probabilities = smooth_map(0)
    kept = probabilities.copy()
    rule = InstanceRule(seed_threshold=0.6, smallest_area=9)
    objects = separate(np.asfortranarray(probabilities), 0.4, rule)
    np.testing.assert_array_equal(objects, separate(probabilities, 0.4, rule))
    np.testing.assert_array_equal(probabilities, kept)


@pytest.mark.parametrize(
    "probabilities", [np.zeros((1, 4, 4), np.float32), np.zeros(4), np.zeros((4, 4), np.uint8)]
)
def test_what_is_no_map_of_probabilities_is_refused(probabilities: NDArray[np.float32]) -> None:
    with pytest.raises(ValueError, match=r"probabilities must be \(H, W\) float"):
        separate(probabilities, 0.5, InstanceRule())


@pytest.mark.parametrize(
    "fields", [{"seed_threshold": 0.0}, {"seed_threshold": 1.0}, {"smallest_area": -1}, {"a": 1}]
)
def test_a_rule_that_cannot_be_followed_is_refused(fields: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        InstanceRule.model_validate(fields)


def test_foreground_is_every_class_but_the_first() -> None:
    probabilities = np.random.default_rng(0).dirichlet((1, 1, 1), (5, 6)).astype(np.float32)
    by_class = probabilities.transpose(2, 0, 1)
    np.testing.assert_allclose(foreground(by_class[1:]), 1 - by_class[0], atol=1e-6)
    np.testing.assert_array_equal(foreground(by_class[2:]), by_class[2])


def test_foreground_of_a_single_map_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(K - 1, H, W\)"):
        foreground(np.zeros((4, 4), np.float32))


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 5), st.integers(0, 4))
def test_the_class_of_an_object_is_that_of_most_of_its_pixels(
    seed: int, num_classes: int, count: int
) -> None:
    rng = np.random.default_rng(seed)
    objects = rng.integers(0, count + 1, (8, 9), np.int32)
    objects.flat[:count] = range(1, count + 1)
    labels = rng.integers(0, num_classes, (8, 9), np.uint8)
    found = classes_of(objects, labels, num_classes)
    assert found.shape == (count,)
    for label, chosen in enumerate(found.tolist(), start=1):
        votes = [np.sum(labels[objects == label] == other) for other in range(1, num_classes)]
        assert chosen == 1 + votes.index(max(votes))


def test_an_object_is_of_no_class_background() -> None:
    objects = np.array([[1, 1, 1]], np.int32)
    assert classes_of(objects, np.array([[0, 0, 2]], np.uint8), 3).tolist() == [2]


@pytest.mark.parametrize(("shape", "num_classes"), [((2, 3), 3), ((2, 2), 1)])
def test_labels_that_do_not_fit_the_objects_are_refused(
    shape: tuple[int, int], num_classes: int
) -> None:
    with pytest.raises(ValueError, match="do not fit"):
        classes_of(np.ones((2, 2), np.int32), np.zeros(shape, np.uint8), num_classes)
