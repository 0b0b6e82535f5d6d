"""Tuning on drawn probability maps, scored again by a naive count of matches."""

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from model.instances import InstanceRule, separate
from tests.conftest import DATA
from training import tuning
from training.tuning import Tuned, tune

Map = NDArray[np.float32]
Ids = NDArray[np.int32]

DEFAULT = InstanceRule()


def discs(seed: int, count: int = 14, edge: int = 96, radius: float = 8) -> Ids:
    """Gives touching discs about a shaken grid."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:edge, :edge]
    objects = np.zeros((edge, edge), np.int32)
    side = int(edge // (2 * radius))
    for label, place in enumerate(rng.permutation(side**2)[:count], start=1):
        row, column = (np.array(divmod(int(place), side)) + 0.5) * 2 * radius + rng.uniform(-1, 1)
        free = (np.hypot(rows - row, columns - column) < radius + 0.5) & (objects == 0)
        objects[free] = label
    return objects


def stand_in(objects: Ids, seed: int = 0, noise: float = 0.4, ridge: float = 0.0) -> Map:
    """Gives what a network may say: blurred interiors with ridges, each as sure as it is."""
    rng = np.random.default_rng(seed)
    high, low = (function(objects, size=3) for function in (ndimage.maximum_filter, minimum_inside))
    interior = (objects > 0) & ((high == low) | (rng.random(objects.shape) < ridge))
    sure = rng.uniform(0.6, 1.0, int(objects.max()) + 1)[objects]
    blurred = ndimage.gaussian_filter((interior * sure).astype(np.float64), 0.8)
    speckle = ndimage.gaussian_filter(rng.standard_normal(objects.shape), 1.0)
    return np.clip(blurred + noise * 0.3 * speckle, 0, 1).astype(np.float32)


def minimum_inside(objects: Ids, size: int) -> Ids:
    """Gives the least id near a pixel, background aside."""
    least = ndimage.minimum_filter(np.where(objects > 0, objects, np.iinfo(np.int32).max), size)
    return np.asarray(least, np.int32)


def naive_scores(
    maps: Sequence[Map], references: Sequence[Ids], threshold: float, rule: InstanceRule
) -> tuple[float, float]:
    """Panoptic quality and average precision, a pair of masks at a time."""
    overlaps: list[float] = []
    objects = 0
    for probabilities, reference in zip(maps, references, strict=True):
        found = separate(probabilities, threshold, rule)
        ours, theirs = (np.unique(ids[ids > 0]).tolist() for ids in (found, reference))
        objects += len(ours) + len(theirs)
        for mine in (found == label for label in ours):
            for other in (reference == label for label in set(reference[mine].tolist()) - {0}):
                overlap = np.sum(mine & other) / np.sum(mine | other)
                overlaps += [float(overlap)] if overlap >= 0.5 else []
    return 2 * sum(overlaps) / objects, len(overlaps) / (objects - len(overlaps))


@pytest.fixture(scope="module")
def references() -> list[Ids]:
    """Objects of several images, of different sizes."""
    return [discs(seed, edge=80 + 16 * (seed % 2)) for seed in range(4)]


@pytest.fixture(scope="module")
def maps(references: list[Ids]) -> list[Map]:
    """What a network may say of these."""
    return [stand_in(objects, seed) for seed, objects in enumerate(references)]


@pytest.fixture(scope="module")
def tuned(maps: list[Map], references: list[Ids]) -> Tuned:
    """The choice for these images."""
    return tune(maps, references)


def test_the_scores_are_those_of_the_objects_which_the_choice_gives(
    tuned: Tuned, maps: list[Map], references: list[Ids]
) -> None:
    naive = naive_scores(maps, references, tuned.threshold, tuned.rule)
    assert (tuned.quality, tuned.average_precision) == pytest.approx(naive, abs=1e-12)


def test_no_threshold_alone_is_better_than_the_choice(
    tuned: Tuned, maps: list[Map], references: list[Ids]
) -> None:
    alone = [
        naive_scores(maps, references, t, InstanceRule(seed_threshold=t))[0]
        for t in np.arange(0.1, 1.0, 0.1).tolist()
    ]
    assert tuned.quality >= max(alone)
    assert tuned.quality > naive_scores(maps, references, 0.5, DEFAULT)[0]


def test_of_thresholds_that_find_the_same_objects_the_one_of_their_extents_is_taken() -> None:
    reference = np.zeros((40, 40), np.int32)
    reference[10:30, 10:30] = 1
    probabilities = np.full((40, 40), 0.05, np.float32)
    probabilities[8:32, 8:32] = 0.3
    probabilities[10:30, 10:30] = 0.7
    probabilities[12:28, 12:28] = 0.9
    choice = tune([probabilities], [reference])
    assert 0.3 < choice.threshold <= 0.7
    assert choice.quality == 1.0


def test_seeds_are_chosen_where_no_threshold_tells_objects_apart() -> None:
    probabilities = np.full((40, 40), 0.05, np.float32)
    reference = np.zeros((40, 40), np.int32)
    for label, (rows, columns, value) in enumerate(
        [((2, 18), (2, 10), 0.95), ((2, 18), (11, 19), 0.95), ((22, 38), (2, 19), 0.45)], start=1
    ):
        probabilities[slice(*rows), slice(*columns)] = value
        reference[slice(*rows), slice(*columns)] = label
    probabilities[2:18, 10] = 0.7  # between the first two, surer than all of the third
    choice = tune([probabilities], [reference])
    assert choice.average_precision == 1.0
    assert choice.threshold <= 0.45 < 0.7 < choice.rule.seed_threshold


def test_specks_are_refused_by_their_area() -> None:
    reference = discs(0)
    probabilities = np.where(reference > 0, np.float32(0.95), np.float32(0.05))
    probabilities[::9, ::9] = 0.95
    objects, _ = ndimage.label(probabilities > 0.5)
    choice = tune(
        [probabilities], [np.asarray(objects * (np.bincount(objects.ravel()) > 1)[objects])]
    )
    assert choice.quality == 1.0
    assert choice.rule.smallest_area > 1


def test_of_equal_choices_the_middle_one_is_taken() -> None:
    reference, _ = ndimage.label(discs(3) > 0)
    probabilities = (reference > 0).astype(np.float32)
    choice = tune([probabilities], [reference])
    assert choice == Tuned(0.5, InstanceRule(seed_threshold=0.5, smallest_area=0), 1.0, 1.0)


def test_objects_of_all_images_are_counted_together() -> None:
    one, many = np.zeros((60, 60), np.int32), np.zeros((60, 60), np.int32)
    one[5:15, 5:15] = 1
    many[2::12, 2::12] = np.arange(1, 26).reshape(5, 5)
    many = ndimage.maximum_filter(many, size=5)
    nothing = np.zeros((60, 60), np.float32)
    choice = tune([nothing, (many > 0).astype(np.float32)], [one, many])
    assert choice.average_precision == pytest.approx(25 / 26)
    assert choice.quality == pytest.approx(25 / 25.5)


def test_images_without_objects_score_nothing() -> None:
    choice = tune([np.zeros((8, 8), np.float32)], [np.zeros((8, 8), np.int32)])
    assert (choice.quality, choice.average_precision) == (0.0, 0.0)


def test_every_image_is_separated_no_more_than_32_times(
    monkeypatch: pytest.MonkeyPatch, maps: list[Map], references: list[Ids]
) -> None:
    calls: list[tuple[float, InstanceRule]] = []

    def counted(probabilities: Map, threshold: float, rule: InstanceRule) -> Ids:
        calls.append((threshold, rule))
        return separate(probabilities, threshold, rule)

    monkeypatch.setattr(tuning, "separate", counted)
    tune(maps, references)
    assert len(calls) == len(maps) * len(set(calls))
    assert len(set(calls)) <= 32


@pytest.mark.parametrize("count", [0, 2])
def test_maps_without_their_references_are_refused(maps: list[Map], count: int) -> None:
    with pytest.raises(ValueError, match="one reference each"):
        tune(maps[:count], [])


def test_seeds_tell_touching_nuclei_apart() -> None:
    paths = sorted((DATA / "dsb2018" / "labels").glob("*.png"))
    if not paths:
        pytest.skip("the annotated nuclei of the 2018 Data Science Bowl are not here")
    references = []
    for path in paths[:12]:
        with Image.open(path) as picture:
            references.append(np.asarray(picture).astype(np.int32)[:256, :256])
    maps = [stand_in(objects, seed, ridge=0.3) for seed, objects in enumerate(references)]
    choice = tune(maps, references)
    alone = [
        naive_scores(maps, references, t, InstanceRule(seed_threshold=t))[0]
        for t in (0.3, 0.4, 0.5, 0.6)
    ]
    assert choice.rule.seed_threshold > choice.threshold
    assert choice.quality > max(alone) + 0.03
