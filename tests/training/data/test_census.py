"""A data set in numbers, against counting them the plain way, object by object."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from model.errors import DatasetError
from tests.training.files import noise, write_pair
from training.data.census import (
    REACH,
    Census,
    ImageFacts,
    ObjectFacts,
    measure,
    measure_objects,
    summarise,
    take_census,
)
from training.data.dataset import AnnotatedImage, read_dataset
from training.data.labels import objects_of
from training.data.split import Regions, split

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


def annotated(objects: Ids, name: str = "a", **others: Any) -> AnnotatedImage:
    noise = np.random.default_rng(0).integers(3, 200, (1, *objects.shape), np.uint8)
    given = {
        "name": name,
        "image": noise,
        "semantic": (objects > 0).astype(np.uint8),
        "objects": objects.astype(np.int32),
    }
    return AnnotatedImage(**(given | others))


def facts_of(objects: Ids) -> Any:
    return measure_objects(objects, (objects > 0).astype(np.uint8))


def naive_gaps(objects: Ids) -> list[float]:
    """Measures from every object to all others, over the whole image."""
    ids = [label for label in np.unique(objects) if label]
    gaps = []
    for label in ids:
        others = (objects != 0) & (objects != label)
        distance = ndimage.distance_transform_edt(~others)[objects == label].min() - 1
        gaps.append(distance if distance <= REACH else np.inf)
    return gaps


@pytest.mark.parametrize(("count", "seed"), [(2, 0), (12, 1), (60, 2), (30, 5)])
def test_gaps_are_those_measured_from_every_object_to_all_others(count: int, seed: int) -> None:
    objects = discs(seed, count)
    np.testing.assert_allclose(facts_of(objects).gaps, naive_gaps(objects), atol=1e-12)


@pytest.mark.parametrize("gap", [0, 1, 2, 7, 40])
def test_a_gap_is_the_number_of_background_pixels_across_it(gap: int) -> None:
    objects = np.repeat([[5] + [0] * gap + [9]], 4, axis=0)
    assert facts_of(objects).gaps.tolist() == [gap, gap]


def test_objects_beyond_reach_are_no_neighbours() -> None:
    census = take_census([annotated(np.array([[1] + [0] * 41 + [2]]))])
    assert census.median_gap is None


def test_the_median_gap_counts_touching_objects_as_zero() -> None:
    census = take_census([annotated(np.array([[1, 2, 0, 0, 0, 0, 3]]))])
    assert census.median_gap == 0.0
    assert census.touching == pytest.approx(2 / 3)


def test_the_concentration_is_that_of_the_median_image_with_objects() -> None:
    def areas(*found: int) -> ImageFacts:
        none = np.zeros(len(found), np.int64)
        gaps = np.full(len(found), np.inf)
        objects = ObjectFacts(none, np.array(found, int), none + 1, none, gaps, none > 0)
        return ImageFacts("a", (1, 9, 9), "uint8", 0, 1, (0, 1), np.array([60, 21]), objects)

    images = [areas(7), areas(6, 2), areas(5, 5), areas()]
    assert summarise(images, "semantic", 2).concentration == (0.75**2 + 0.25**2)
    assert summarise([areas()], "semantic", 2).concentration == 1


def test_objects_that_meet_at_a_corner_do_not_touch() -> None:
    assert not facts_of(np.array([[1, 0], [0, 2]])).touches.any()


def test_objects_of_different_classes_do_not_touch() -> None:
    facts = measure_objects(np.array([[1, 2]]), np.array([[1, 2]]))
    assert not facts.touches.any()


def test_parts_of_an_id_are_its_components_and_corners_join_them() -> None:
    facts = facts_of(np.array([[1, 0, 1, 2, 0], [0, 0, 0, 0, 2]]))
    assert facts.parts.tolist() == [2, 1]


def test_the_second_piece_of_an_id_is_its_second_largest() -> None:
    facts = facts_of(np.array([[1, 0, 1, 1, 0, 1, 1, 1, 0, 2]]))
    assert facts.second.tolist() == [2, 0]


def test_the_median_edge_is_that_of_squares_of_equal_area() -> None:
    sizes = (2, 8), (9, 9), (5, 5)
    images = [annotated(np.zeros(size, np.int32)) for size in sizes]
    assert take_census(images).median_edge == 5.0


@pytest.mark.parametrize("dtype", [np.uint16, np.int64])
def test_ids_with_gaps_are_objects_like_others(dtype: Any) -> None:
    objects = np.array([[7, 7, 0, 60_000]], dtype)
    facts = facts_of(objects)
    assert (facts.ids.tolist(), facts.areas.tolist()) == ([7, 60_000], [2, 1])


def test_ids_too_large_for_a_table_are_objects_like_others() -> None:
    objects = np.array([[2**31 - 1, 0, 3, 3]])
    facts = facts_of(objects)
    assert (facts.ids.tolist(), facts.areas.tolist()) == ([3, 2**31 - 1], [2, 1])
    assert facts_of(objects[:, [0]]).areas.tolist() == [1]


def test_an_image_without_objects_has_none() -> None:
    census = take_census([annotated(np.zeros((4, 5), np.int32))])
    assert (census.object_count, census.diameters, census.median_gap) == (0, None, None)
    assert census.touching == 0.0


def test_diameters_are_those_of_discs_of_equal_area() -> None:
    rows, columns = np.mgrid[:80, :80]
    objects = (np.hypot(rows - 40, columns - 40) <= 30).astype(np.int32)
    diameters = take_census([annotated(objects)]).diameters
    assert diameters == pytest.approx((60, 60, 60), rel=0.01)


def test_percentiles_run_over_the_objects_of_all_images() -> None:
    one = np.zeros((20, 20), np.int32)
    one[:10, :10] = 1
    other = np.zeros((20, 20), np.int32)
    other[0, 0] = 4
    diameters = take_census([annotated(one), annotated(other)]).diameters
    assert diameters is not None
    assert diameters[1] == pytest.approx((np.sqrt(4 / np.pi) + np.sqrt(400 / np.pi)) / 2)


def test_class_shares_leave_out_what_is_ignored() -> None:
    semantic = np.array([[0, 0, 1, 2, 0, 0, 0, 0]], np.uint8)
    ignored = np.array([[0, 0, 0, 0, 1, 1, 1, 1]], bool)
    entry = annotated(objects_of(semantic), semantic=semantic, ignored=ignored)
    assert take_census([entry]).class_shares == (0.5, 0.25, 0.25)


def test_pixels_are_counted_once_whatever_their_channels() -> None:
    objects = np.zeros((4, 5), np.int32)
    colour = np.zeros((3, 4, 5), np.uint16)
    colour[1, 2, 3] = 4095
    census = take_census([annotated(objects), annotated(objects, image=colour)])
    assert (census.images, census.pixels, census.in_channels) == (2, 40, 3)
    assert (census.dtypes, census.low, census.high) == (("uint16", "uint8"), 0.0, 4095.0)


def common_span(*images: Ids) -> tuple[float, float] | None:
    nothing = np.zeros((40, 50), np.int32)
    drawn = [annotated(nothing, image=image.astype(np.int16)[np.newaxis]) for image in images]
    return take_census(drawn).common_span


def calibrated(seed: int = 0) -> Ids:
    return np.random.default_rng(seed).integers(-1000, 1001, (40, 50))


def test_images_on_one_scale_have_a_span_in_common() -> None:
    low, high = common_span(*map(calibrated, range(5))) or (0, 0)
    assert -1000 <= low < -980
    assert 980 < high <= 1000


def test_pixels_and_images_that_are_out_of_place_do_not_move_the_common_span() -> None:
    padded = calibrated()
    padded[0, 0], padded[0, 1] = -32768, 32767
    low, high = common_span(padded, *map(calibrated, range(1, 30)), 20 * calibrated()) or (0, 0)
    assert -1000 <= low < -980
    assert 980 < high <= 1000


def test_images_of_different_exposures_have_no_span_in_common() -> None:
    assert common_span(calibrated(), calibrated(1) // 2, calibrated(2) // 3) is None


def test_one_image_and_images_without_contrast_have_no_span_in_common() -> None:
    assert common_span(calibrated()) is None
    assert common_span(np.full((40, 50), -5), np.full((40, 50), -5)) is None


def test_labels_whose_objects_are_components_of_classes_are_semantic() -> None:
    semantic = (discs(0, 12) > 0).astype(np.uint8)
    census = take_census([annotated(objects_of(semantic))])
    assert (census.label_kind, census.num_classes) == ("semantic", 2)


def test_labels_with_touching_objects_are_instances() -> None:
    assert take_census([annotated(np.array([[1, 2, 0]]))]).label_kind == "instance"


def test_a_class_that_one_image_lacks_counts_all_the_same() -> None:
    images = [
        annotated(objects_of(semantic), semantic=semantic.astype(np.uint8))
        for semantic in (np.array([[0, 0]]), np.array([[2, 1]]))
    ]
    census = take_census(images)
    assert (census.label_kind, census.num_classes) == ("semantic", 3)
    assert census.class_shares == (0.5, 0.25, 0.25)


def test_regions_of_one_image_have_the_kind_of_its_labels(tmp_path: Path) -> None:
    """No two objects touch, so the regions alone look like classes."""
    labels = np.zeros((30, 90), np.uint8)
    for number in range(8):
        labels[5:25, 11 * number : 11 * number + 6] = number + 1
    write_pair(tmp_path, noise(labels.shape), labels)
    training, _ = split(read_dataset(tmp_path), 5, 2)
    assert isinstance(training, Regions)
    census = take_census(training)
    assert (census.label_kind, census.num_classes) == ("instance", 2)


def test_a_summary_holds_the_kind_and_the_classes_of_its_data_set() -> None:
    census = summarise([measure(annotated(discs(0, 3)))], "instance", 2)
    assert isinstance(census, Census)
    assert (census.label_kind, census.object_count) == ("instance", 3)


def test_no_image_is_no_census() -> None:
    with pytest.raises(DatasetError, match="at least one annotated image"):
        take_census([])


def test_a_negative_id_is_refused() -> None:
    with pytest.raises(DatasetError, match="objects hold the negative id -4"):
        facts_of(np.array([[-4, 0]]))
