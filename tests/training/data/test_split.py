"""What is trained on and what is validated on: nothing in both, everything in one fold."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from model.errors import DatasetError
from model.tiling import Region
from tests.conftest import DATA
from tests.training.files import noise, stripes, write_many, write_pair
from training.data.dataset import Dataset, read_dataset
from training.data.forms import Pair, find_pairs
from training.data.labels import objects_of
from training.data.split import Regions, bands, count_folds, hold_out, split


def unread(groups: list[str]) -> Dataset:
    """Images that are nowhere: holding some out reads none of several."""
    pairs = tuple(
        Pair(f"t{number}", Path("image"), Path("labels"), group=group)
        for number, group in enumerate(groups)
    )
    shapes = ((1, 12, 9),) * len(pairs)
    return Dataset(Path("data"), "semantic", 2, 1, "", pairs, shapes, (0, 1))


def single(folder: Path, image: NDArray[np.uint8], labels: NDArray[np.uint8]) -> Dataset:
    write_pair(folder, image, labels)
    return read_dataset(folder)


@pytest.mark.parametrize("count", [5, 7, 22, 30, 557])
def test_folds_are_contiguous_and_of_one_size(count: int) -> None:
    dataset = unread([""] * count)
    folds = [hold_out(dataset, 5, fold)[1].names for fold in range(5)]
    assert [name for names in folds for name in names] == [f"t{n}" for n in range(count)]
    assert max(map(len, folds)) - min(map(len, folds)) <= 1


groups_of_images = st.lists(st.sampled_from(["", "a", "b", "c", "d", "e"]), min_size=2, max_size=40)


@settings(deadline=None)
@given(groups=groups_of_images.filter(lambda groups: "" in groups or len(set(groups)) > 1))
def test_each_image_is_validated_on_once_and_no_group_is_split(groups: list[str]) -> None:
    dataset = unread(groups)
    seen: list[str] = []
    for fold in range(count_folds(dataset, 4)):
        training, validation = hold_out(dataset, 4, fold)
        assert training.names
        assert validation.names
        assert sorted(training.names + validation.names) == sorted(dataset.names)
        assert not set(training.groups) & set(validation.groups) - {""}
        seen += validation.names
    assert sorted(seen) == sorted(dataset.names)


@settings(deadline=None)
@given(sizes=st.lists(st.integers(1, 6), min_size=2, max_size=20), folds=st.integers(2, 6))
def test_no_fold_is_further_from_an_even_share_than_the_largest_group(
    sizes: list[int], folds: int
) -> None:
    assume(max(sizes) * folds <= sum(sizes))
    dataset = unread([f"g{n}" for n, size in enumerate(sizes) for _ in range(size)])
    held = [len(hold_out(dataset, folds, fold)[1]) for fold in range(folds)]
    assert all(abs(size - sum(sizes) / folds) < max(sizes) for size in held)


@pytest.mark.parametrize(
    ("sizes", "folds", "held"),
    [([3, 1, 1, 1], 2, [3, 3]), ([1, 1, 4, 1, 1], 2, [2, 6]), ([9, 1, 1], 3, [9, 1, 1])],
)
def test_large_groups_leave_a_fold_for_each_of_the_others(
    sizes: list[int], folds: int, held: list[int]
) -> None:
    dataset = unread([f"g{n}" for n, size in enumerate(sizes) for _ in range(size)])
    assert [len(hold_out(dataset, folds, fold)[1]) for fold in range(folds)] == held


def test_a_scattered_group_belongs_to_the_block_of_its_first_image() -> None:
    dataset = unread(["a", "b", "b", "a", "c", "d", "d", "a"])
    training, validation = hold_out(dataset, 2, 0)
    assert validation.names == ("t0", "t3", "t7")
    assert training.names == ("t1", "t2", "t4", "t5", "t6")


def test_the_real_nuclei_are_split_between_groups() -> None:
    if not DATA.is_dir():
        pytest.skip(f"{DATA} is not here; it cannot be shipped with the project")
    dataset = unread([pair.group for pair in find_pairs(DATA / "dsb2018").pairs])
    held = [hold_out(dataset, 5, fold) for fold in range(5)]
    assert all(not set(training.groups) & set(part.groups) for training, part in held)
    assert sorted(name for _, part in held for name in part.names) == sorted(dataset.names)


def test_there_are_at_most_as_many_folds_as_groups() -> None:
    assert count_folds(unread(["a", "a", "b", "", ""]), 5) == 4
    assert count_folds(unread([""] * 9), 5) == 5


def test_of_few_images_the_last_is_held_out_where_a_later_fold_was_asked_for() -> None:
    training, validation = hold_out(unread([""] * 3), folds=5, fold=4)
    assert (training.names, validation.names) == (("t0", "t1"), ("t2",))


def test_images_of_one_group_are_refused_with_what_to_do() -> None:
    with pytest.raises(DatasetError, match=r"All 3 images of data are of the one group 'a'.*index"):
        split(unread(["a"] * 3), 5, 0)


@pytest.mark.parametrize("fold", [-1, 5])
def test_a_fold_that_there_is_not_is_refused(fold: int) -> None:
    with pytest.raises(DatasetError, match=f"no fold {fold} of 5; they count from 0"):
        split(unread([""] * 9), 5, fold)


def test_one_fold_is_refused() -> None:
    with pytest.raises(DatasetError, match=r"1 fold\(s\) leave nothing to train on"):
        split(unread([""] * 9), 1, 0)


def test_no_image_is_refused() -> None:
    with pytest.raises(DatasetError, match="data holds no image to split"):
        split(unread([]), 5, 0)


def painted(shape: tuple[int, int], regions: list[Region]) -> NDArray[np.int64]:
    """Count for each pixel the regions that hold it."""
    counts = np.zeros(shape, np.int64)
    for region in regions:
        counts[region.top : region.bottom, region.left : region.right] += 1
    return counts


@settings(deadline=None)
@given(height=st.integers(1, 60), width=st.integers(1, 60), data=st.data())
def test_regions_are_disjoint_and_cover_the_image(
    height: int, width: int, data: st.DataObject
) -> None:
    folds = data.draw(st.integers(2, max(2, height, width)))
    held = []
    for fold in range(min(folds, max(height, width))):
        beside, band = bands(height, width, min(folds, max(height, width)), fold)
        assert (painted((height, width), [*beside, band]) == 1).all()
        held.append(band)
    assert (painted((height, width), held) == 1).all()


def test_the_longer_edge_is_cut() -> None:
    assert bands(10, 20, 4, 1) == (
        (Region(0, 0, 10, 5), Region(0, 10, 10, 20)),
        Region(0, 5, 10, 10),
    )
    assert bands(20, 10, 4, 0) == ((Region(5, 0, 20, 10),), Region(0, 0, 5, 10))


def test_a_single_image_is_split_into_regions_named_by_their_place(tmp_path: Path) -> None:
    image = noise((12, 20))
    training, validation = split(single(tmp_path, image, stripes((12, 20))), 5, 2)
    assert isinstance(training, Regions)
    assert training.names == ("a[0:12,0:8]", "a[0:12,12:20]")
    assert validation.names == ("a[0:12,8:12]",)
    assert training.shapes == ((1, 12, 8), (1, 12, 8))
    left, right = training
    (middle,) = validation
    assert [entry.name for entry in (left, right, middle)] == [*training.names, *validation.names]
    np.testing.assert_array_equal(
        np.concatenate([left.image, middle.image, right.image], axis=2)[0], image
    )
    np.testing.assert_array_equal(
        np.concatenate([left.semantic, middle.semantic, right.semantic], axis=1), stripes((12, 20))
    )


@pytest.mark.parametrize("fold", range(5))
def test_nothing_that_is_validated_reaches_training_nor_the_other_way_round(
    tmp_path: Path, fold: int
) -> None:
    """Each pixel has a value of its own, and no array remembers the whole image behind it."""
    values = np.arange(12 * 20, dtype=np.uint16).reshape(12, 20)
    write_pair(tmp_path, values, stripes((12, 20)))
    training, validation = split(read_dataset(tmp_path), 5, fold)
    (held,) = validation
    for entry in training:
        assert not np.intersect1d(entry.image, held.image).size
    for entry in (*training, held):
        assert entry.image.base is None
        assert entry.semantic.base is None
        assert entry.objects.base is None


def test_all_folds_of_a_single_image_together_validate_each_pixel_once(tmp_path: Path) -> None:
    image = noise((23, 12))
    dataset = single(tmp_path, image, stripes((23, 12)))
    held = [split(dataset, 5, fold)[1][0].image for fold in range(count_folds(dataset, 5))]
    np.testing.assert_array_equal(np.concatenate(held, axis=1)[0], image)


def test_a_class_that_reached_around_a_region_falls_into_pieces_within_it(tmp_path: Path) -> None:
    labels = np.zeros((12, 20), np.uint8)
    labels[2, :], labels[9, :], labels[:, 0] = 1, 1, 1
    labels[5, 13] = 1
    dataset = single(tmp_path, noise((12, 20)), labels)
    assert dataset.label_kind == "semantic"
    right = split(dataset, 4, 0)[0][0]
    np.testing.assert_array_equal(right.objects, objects_of(labels[:, 5:]))
    assert right.objects.max() == 3


def test_the_objects_of_a_region_keep_their_ids(tmp_path: Path) -> None:
    labels = np.repeat([[0, 9, 9, 9, 4, 4, 4, 3]], 4, axis=0).astype(np.uint8)
    training, validation = split(single(tmp_path, noise((4, 8)), labels), 2, 1)
    assert training[0].objects[0].tolist() == [0, 9, 9, 9]
    assert validation[0].objects[0].tolist() == [4, 4, 4, 3]


def test_a_region_keeps_its_channels_group_and_what_is_ignored(tmp_path: Path) -> None:
    labels = stripes((12, 20))
    labels[0] = 7
    write_pair(tmp_path, noise((12, 20, 3)), labels)
    (tmp_path / "index.csv").write_text("id,group\na,patient 1\n")
    training, _ = split(read_dataset(tmp_path, ignore=7), 4, 0)
    (entry,) = training
    assert entry.image.shape == (3, 12, 15)
    assert training.groups == ("patient 1",)
    assert entry.group == "patient 1"
    assert entry.ignored is not None
    np.testing.assert_array_equal(entry.ignored, labels[:, 5:] == 7)


def test_regions_have_the_kind_and_the_classes_of_their_image(tmp_path: Path) -> None:
    """Also where a region holds fewer."""
    labels = stripes((12, 20))
    labels[:, 14:] *= 2
    training, validation = split(single(tmp_path, noise((12, 20)), labels), 5, 2)
    assert isinstance(training, Regions)
    assert isinstance(validation, Regions)
    for part in (training, validation):
        assert (part.label_kind, part.num_classes) == ("semantic", 3)


def test_regions_are_a_sequence(tmp_path: Path) -> None:
    training, _ = split(single(tmp_path, noise((12, 20)), stripes((12, 20))), 5, 2)
    assert len(training) == 2
    assert training[-1].name == training.names[1]
    assert training[1:].names == training.names[1:]
    with pytest.raises(IndexError):
        training[2]


def test_as_many_folds_as_pixels_are_the_most() -> None:
    assert count_folds(unread([""]), 100) == 12


@pytest.mark.parametrize(
    ("columns", "fold", "purpose", "where"),
    [
        (slice(0, 4), 2, "validate", r"a\[0:12,8:12\]"),
        (slice(8, 12), 2, "train", r"a\[0:12,0:8\], a\[0:12,12:20\]"),
    ],
)
def test_a_part_of_a_single_image_without_an_object_is_refused(
    tmp_path: Path, columns: slice, fold: int, purpose: str, where: str
) -> None:
    labels = np.zeros((12, 20), np.uint8)
    labels[::3, columns] = 1
    dataset = single(tmp_path, noise((12, 20)), labels)
    match = rf"fold {fold} of 5 leaves no object to {purpose} on: .*{where}.*another fold"
    with pytest.raises(DatasetError, match=match):
        split(dataset, 5, fold)


def write_with_objects(folder: Path, drawn: str) -> Dataset:
    """Write images t0, t1, …, each with an object or without one."""
    for number, has in enumerate(drawn):
        write_pair(folder, noise(seed=number), stripes(value=int(has)), f"t{number}")
    return read_dataset(folder)


@pytest.mark.parametrize(
    ("drawn", "fold", "purpose", "where"),
    [
        ("11001111", 1, "validate", "t2, t3"),
        ("00110000", 1, "train", "t0, t1, t4, t5, t6 and 1 more"),
    ],
)
def test_a_part_of_several_images_without_an_object_is_refused(
    tmp_path: Path, drawn: str, fold: int, purpose: str, where: str
) -> None:
    dataset = write_with_objects(tmp_path, drawn)
    match = rf"8 images, and fold {fold} of 4 leaves no object to {purpose} on: .* in {where}\. "
    with pytest.raises(DatasetError, match=match):
        split(dataset, 4, fold)


def test_parts_are_read_to_their_first_object_and_no_further(tmp_path: Path) -> None:
    dataset = write_with_objects(tmp_path, "01010101")
    for number in range(2, 6):  # behind the first object of the training images
        (tmp_path / "images" / f"t{number}.tif").unlink()
    training, validation = split(dataset, 4, 3)
    assert (len(training), validation.names) == (6, ("t6", "t7"))


def test_one_image_among_several_is_never_cut(tmp_path: Path) -> None:
    training, validation = split(write_many(tmp_path, 2), 5, 2)
    assert isinstance(training, Dataset)
    assert (training.names, validation.names) == (("t0",), ("t1",))
