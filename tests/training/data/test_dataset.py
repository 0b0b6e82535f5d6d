"""Annotated images: what is found out about a set, and what an image is once it is read."""

import functools
import pickle
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from model.errors import DatasetError
from tests.conftest import DATA
from tests.training.files import Pixels, noise, stripes, write, write_many, write_pair
from training.data import dataset as dataset_module
from training.data.dataset import AnnotatedImage, Dataset, digest, read_dataset
from training.data.labels import objects_of


def made(drawn: list[Pixels], folder: Path, **asked: Any) -> Dataset:
    """Read a folder of noise with these labels."""
    for number, entry in enumerate(drawn):
        write_pair(folder, noise((entry.shape[0], entry.shape[1])), entry, f"t{number}")
    return read_dataset(folder, **asked)


def entry_of(image: Pixels, name: str = "a") -> AnnotatedImage:
    blank = np.zeros(image.shape[1:], np.int32)
    return AnnotatedImage(name, image, blank.astype(np.uint8), blank)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".tiff"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_folder_is_read_at_full_depth(tmp_path: Path, suffix: str, dtype: Any) -> None:
    image, labels = noise(dtype=dtype), stripes().astype(dtype)
    write(tmp_path / "images" / f"a{suffix}", image)
    write(tmp_path / "labels" / f"a{suffix}", labels)
    (entry,) = read_dataset(tmp_path)
    assert (entry.name, entry.image.dtype) == ("a", dtype)
    np.testing.assert_array_equal(entry.image, image[None])
    np.testing.assert_array_equal(entry.semantic, labels)


def test_a_folder_of_floats_is_read(tmp_path: Path) -> None:
    image = np.linspace(0, 1, 108, dtype=np.float32).reshape(12, 9)
    write_pair(tmp_path, image, stripes())
    np.testing.assert_array_equal(read_dataset(tmp_path)[0].image[0], image)


def test_a_stack_pair_is_read_page_by_page(tmp_path: Path) -> None:
    volume, labels = noise((3, 12, 9)), np.stack([stripes(value=255)] * 3)
    write(tmp_path / "train-volume.tif", volume)
    write(tmp_path / "train-labels.tif", labels)
    dataset = read_dataset(tmp_path)
    assert dataset.names == ("train-000", "train-001", "train-002")
    np.testing.assert_array_equal(np.concatenate([entry.image for entry in dataset]), volume)
    np.testing.assert_array_equal(dataset[1].semantic, labels[1] > 0)


def test_a_cell_tracking_challenge_folder_is_read_where_it_is_annotated(tmp_path: Path) -> None:
    image = noise((6, 4), np.uint16)
    labels = np.repeat([[0, 3, 0, 7]], 6, axis=0).astype(np.uint16)
    for number in ("000", "001"):
        write(tmp_path / "01" / f"t{number}.tif", np.zeros((6, 4), np.uint16))
    write(tmp_path / "02" / "t010.tif", image)
    for file in ("01_GT/SEG/man_seg000", "01_GT/SEG/man_seg001", "02_GT/SEG/man_seg010"):
        write(tmp_path / f"{file}.tif", labels)
    dataset = read_dataset(tmp_path)
    assert dataset.names == ("01-000", "01-001", "02-010")
    np.testing.assert_array_equal(dataset[2].image[0], image)
    np.testing.assert_array_equal(dataset[2].objects, labels)  # the same cells in every frame


@functools.cache
def real(folder: str) -> Dataset:
    """Look through a real set once for all tests: it holds hundreds of files."""
    if not DATA.is_dir():
        pytest.skip(f"{DATA} is not here; it cannot be shipped with the project")
    return read_dataset(DATA / folder)


@pytest.mark.parametrize(
    ("folder", "count", "found", "groups"),
    [
        ("isbi2012", 22, ("semantic", 2, 1), 1),
        ("dsb2018", 557, ("instance", 2, 3), 207),
        ("t98g", 16, ("instance", 2, 1), 1),
    ],
)
def test_the_real_sets_are_told_apart(
    folder: str, count: int, found: tuple[str, int, int], groups: int
) -> None:
    dataset = real(folder)
    assert len(dataset) == count
    assert (dataset.label_kind, dataset.num_classes, dataset.in_channels) == found
    assert len(set(dataset.groups)) == groups
    assert (dataset[1].image.shape, dataset[1].name) == (dataset.shapes[1], dataset.names[1])


def test_the_objects_of_real_nuclei_are_those_of_the_index() -> None:
    entries = real("dsb2018")[:20]
    rows = [row.split(",") for row in (DATA / "dsb2018" / "index.csv").read_text().splitlines()]
    nuclei = {row[0]: row[5] for row in rows}
    for entry in entries:
        assert str(len(np.unique(entry.objects)) - 1) == nuclei[entry.name]


def test_files_without_a_partner_are_refused_by_name(tmp_path: Path) -> None:
    write_pair(tmp_path, noise(), stripes())
    write(tmp_path / "images" / "lonely.png", noise())
    with pytest.raises(DatasetError, match=r"1 file\(s\) have no partner: images.lonely\.png"):
        read_dataset(tmp_path)


def test_labels_of_another_size_are_refused_with_both_sizes(tmp_path: Path) -> None:
    write_pair(tmp_path, noise((12, 9)), stripes((12, 8)))
    with pytest.raises(DatasetError, match="image a is 12×9 px, its labels are 12×8 px"):
        read_dataset(tmp_path)


def test_pages_of_another_size_than_their_labels_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "x-volume.tif", noise((2, 12, 9)))
    write(tmp_path / "x-labels.tif", np.stack([stripes((12, 8))] * 2))
    with pytest.raises(DatasetError, match="image x-000 is 12×9 px, its labels are 12×8 px"):
        read_dataset(tmp_path)


@pytest.mark.parametrize("place", ["images/a.png", "images/a.tif", "labels/a.png", "labels/a.tif"])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, place: str) -> None:
    stem = Path(place).with_suffix(".tif")
    write(tmp_path / "images" / stem.name, noise())
    write(tmp_path / "labels" / stem.name, stripes())
    (tmp_path / stem).unlink()
    (tmp_path / place).write_bytes(b"neither a PNG nor a TIFF")
    with pytest.raises(DatasetError, match=f"{place} cannot be read"):
        read_dataset(tmp_path)


def test_grey_images_among_colour_ones_count_as_colour(tmp_path: Path) -> None:
    write_pair(tmp_path, noise((12, 9)), stripes(), "grey")
    write_pair(tmp_path, noise((12, 9, 3)), stripes(), "colour")
    dataset = read_dataset(tmp_path)
    assert (dataset.in_channels, dataset.shapes) == (3, ((3, 12, 9), (1, 12, 9)))
    assert dataset.named(["grey"]).in_channels == 3


def test_numbers_of_channels_that_no_network_reads_together_are_refused(tmp_path: Path) -> None:
    write_pair(tmp_path, noise((12, 9, 3)), stripes(), "a")
    write_pair(tmp_path, noise(), stripes(), "b")
    tifffile.imwrite(
        tmp_path / "images" / "b.tif",
        noise((12, 9, 5)),
        photometric="minisblack",
        planarconfig="contig",
    )
    with pytest.raises(DatasetError, match=r"images have \[3, 5\] channels"):
        read_dataset(tmp_path)


def test_classes_are_numbered_in_the_order_of_their_values(tmp_path: Path) -> None:
    labels = np.repeat([[0, 60, 0, 130, 60, 0, 130, 60]], 6, axis=0).astype(np.uint8)
    dataset = made([labels], tmp_path)
    assert (dataset.label_kind, dataset.num_classes) == ("semantic", 3)
    assert dataset[0].semantic[0].tolist() == [0, 1, 0, 2, 1, 0, 2, 1]


def test_a_class_has_one_number_in_all_images(tmp_path: Path) -> None:
    dataset = made([stripes(value=60), stripes(value=130)], tmp_path, labels="semantic")
    assert [int(entry.semantic.max()) for entry in dataset] == [1, 2]


KNOWN = (0, 60, 130)


@pytest.mark.parametrize(("value", "place"), [(60, 1), (130, 2)])
def test_known_values_have_their_classes_where_others_are_missing(
    tmp_path: Path, value: int, place: int
) -> None:
    dataset = made([stripes(value=value)], tmp_path, labels="semantic", known=KNOWN)
    assert (dataset.num_classes, dataset.values) == (3, KNOWN)
    np.testing.assert_array_equal(dataset[0].semantic, place * stripes())


@pytest.mark.parametrize("value", KNOWN)
def test_one_known_value_alone_is_labels_too(tmp_path: Path, value: int) -> None:
    dataset = made([np.full((6, 6), value, np.uint8)], tmp_path, labels="semantic", known=KNOWN)
    assert set(dataset[0].semantic.ravel().tolist()) == {KNOWN.index(value)}


@pytest.mark.parametrize(
    ("values", "known"), [((0, 1), (0, 255)), ((0, 255), (0, 1)), ((0, 1, 2), KNOWN)]
)
def test_as_many_values_as_are_known_have_their_classes_by_order(
    tmp_path: Path, values: tuple[int, ...], known: tuple[int, ...]
) -> None:
    labels = np.tile(np.array(values, np.uint8), (6, 3))
    (entry,) = made([labels], tmp_path, labels="semantic", known=known)
    assert entry.semantic[0, : len(values)].tolist() == list(range(len(values)))


@pytest.mark.parametrize(
    ("values", "known", "said"),
    [
        ((0, 7), KNOWN, r"hold the value\(s\) 7, .* knows the value\(s\) 0, 60, 130\."),
        ((0, 60, 130, 131, 255), KNOWN, r"the value\(s\) 131, 255, .* say --ignore 255"),
        ((1, 2), (0, 1), r"the value\(s\) 2, .* knows the value\(s\) 0, 1\."),
        (tuple(range(30)), (0, 1), r"15, 16, 17 and 12 more, which"),
    ],
)
def test_values_that_have_no_class_are_refused_with_those_that_have(
    tmp_path: Path, values: tuple[int, ...], known: tuple[int, ...], said: str
) -> None:
    labels = np.tile(np.array(values, np.uint8), (6, 1))
    with pytest.raises(DatasetError, match=said):
        made([labels], tmp_path, labels="semantic", known=known)


def test_an_ignored_value_need_not_be_known(tmp_path: Path) -> None:
    labels = np.tile([0, 60, 255], (6, 3)).astype(np.uint8)
    dataset = made([labels], tmp_path, labels="semantic", ignore=255, known=KNOWN)
    assert dataset[0].semantic[0, :3].tolist() == [0, 1, 0]


def test_ids_of_objects_need_not_be_known(tmp_path: Path) -> None:
    dataset = made([stripes(value=7)], tmp_path, labels="instance", known=KNOWN)
    assert (dataset.num_classes, dataset.values) == (2, (0, 7))


def test_the_objects_of_classes_are_their_pieces(tmp_path: Path) -> None:
    dataset = made([stripes((12, 9))], tmp_path)
    np.testing.assert_array_equal(np.unique(dataset[0].objects), [0, 1, 2, 3])


def test_the_verdict_is_said_in_a_sentence(tmp_path: Path) -> None:
    dataset = made([stripes(value=255)], tmp_path)
    assert dataset.verdict == (
        "The labels are semantic labels: their only values are 0 and 255, as in a mask."
    )


def test_one_region_a_class_is_taken_for_classes_where_images_are_many_enough_to_tell(
    tmp_path: Path,
) -> None:
    """In two images, two regions each may be two objects; in three that is no chance."""
    labels = np.zeros((30, 30), np.uint8)
    labels[2:9, 2:9], labels[15:25, 15:25] = 1, 2
    assert made([labels, labels], tmp_path).label_kind == "instance"
    assert read_dataset(tmp_path, "semantic").num_classes == 3
    assert made([labels] * 3, tmp_path).num_classes == 3
    assert read_dataset(tmp_path, "instance").num_classes == 2


def test_a_mask_that_was_interpolated_is_refused_whatever_is_asked_for(tmp_path: Path) -> None:
    ramp = np.repeat([[0] * 20 + [40, 120, 210] + [255] * 20], 9, axis=0).astype(np.uint8)
    write_pair(tmp_path, noise(ramp.shape), ramp)
    for asked in ("auto", "semantic", "instance"):
        with pytest.raises(DatasetError, match=r"labels.a\.png holds a mask that was interpolated"):
            read_dataset(tmp_path, asked)


def test_files_that_are_neither_png_nor_tiff_are_refused_by_name(tmp_path: Path) -> None:
    write_pair(tmp_path, noise(), stripes())
    (tmp_path / "images" / "b.jpg").write_bytes(b"")
    with pytest.raises(DatasetError, match=r"1 file\(s\) are neither PNG nor TIFF .*images.b\.jpg"):
        read_dataset(tmp_path)


@pytest.mark.parametrize("axis", [0, 1])
def test_objects_that_touch_are_left_as_they_were_annotated(tmp_path: Path, axis: int) -> None:
    labels = np.repeat([[0, 9, 9, 9, 4, 4, 4, 3]], 8, axis=0).astype(np.uint8)
    labels = labels.T.copy() if axis == 0 else labels
    (entry,) = made([labels], tmp_path)
    np.testing.assert_array_equal(entry.objects, labels)
    np.testing.assert_array_equal(entry.semantic, labels > 0)


def test_more_classes_than_a_byte_tells_apart_are_refused(tmp_path: Path) -> None:
    labels = np.arange(18 * 18, dtype=np.uint16).reshape(18, 18)
    with pytest.raises(DatasetError, match="324 classes; at most 256 are told apart"):
        made([labels], tmp_path, labels="semantic")


@pytest.mark.parametrize("value", [0, 1, 7])
def test_labels_of_one_value_are_refused(tmp_path: Path, value: int) -> None:
    with pytest.raises(DatasetError, match=f"all labels have the one value {value}; nothing"):
        made([np.full((6, 6), value, np.uint8)], tmp_path)


def test_negative_labels_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "images" / "a.tif", noise())
    write(tmp_path / "labels" / "a.tif", stripes().astype(np.int16) * -3)
    with pytest.raises(DatasetError, match=r"labels.a\.tif holds the label -3"):
        read_dataset(tmp_path)


def test_ignored_pixels_are_no_class(tmp_path: Path) -> None:
    labels = stripes()
    labels[0, :4] = 255
    dataset = made([labels, stripes()], tmp_path, ignore=255)
    assert (dataset.label_kind, dataset.num_classes, dataset.values) == ("semantic", 2, (0, 1))
    some, none = dataset
    assert some.ignored is not None
    assert none.ignored is not None
    np.testing.assert_array_equal(some.ignored, labels == 255)
    assert not none.ignored.any()
    assert not some.semantic[some.ignored].any()
    assert not some.objects[some.ignored].any()
    np.testing.assert_array_equal(some.semantic[~some.ignored], labels[labels != 255])


def test_ignored_pixels_are_no_object(tmp_path: Path) -> None:
    labels = np.repeat([[0, 9, 9, 7, 4, 4, 4, 3]], 8, axis=0).astype(np.uint8)
    (entry,) = made([labels], tmp_path, ignore=7)
    assert entry.objects[0].tolist() == [0, 9, 9, 0, 4, 4, 4, 3]
    assert entry.semantic[0].tolist() == [0, 1, 1, 0, 1, 1, 1, 1]
    assert entry.ignored is not None
    assert entry.ignored[0].tolist() == [False, False, False, True, False, False, False, False]


@pytest.mark.parametrize("ignore", [0, 1, 200])
def test_an_ignored_value_may_lie_anywhere_among_the_classes(tmp_path: Path, ignore: int) -> None:
    others = [value for value in (0, 1, 100, 200) if value != ignore]
    labels = np.tile([0, 1, 100, 200], (6, 3)).astype(np.uint8)
    (entry,) = made([labels], tmp_path, labels="semantic", ignore=ignore)
    for number, value in enumerate(others):
        assert set(entry.semantic[labels == value].tolist()) == {number}


def test_the_ignored_value_may_be_negative(tmp_path: Path) -> None:
    write(tmp_path / "images" / "a.tif", noise())
    labels = stripes().astype(np.int16)
    labels[0] = -1
    write(tmp_path / "labels" / "a.tif", labels)
    expected = stripes()
    expected[0] = 0
    np.testing.assert_array_equal(read_dataset(tmp_path, ignore=-1)[0].semantic, expected)


def test_background_of_objects_cannot_be_ignored(tmp_path: Path) -> None:
    """Few values of which 0 is to be ignored are classes, as drawn here and there; ids are not."""
    labels = np.repeat([[0, 9, 9, 7, 4, 4, 4, 3]], 8, axis=0).astype(np.uint8)
    assert made([labels], tmp_path, ignore=0).label_kind == "semantic"
    for drawn, asked in ((labels, "instance"), (np.arange(72).reshape(8, 9), "auto")):
        with pytest.raises(DatasetError, match="0 is the background"):
            made([drawn.astype(np.uint8)], tmp_path, ignore=0, labels=asked)


def test_labels_with_nothing_but_ignored_pixels_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="have no value apart from the ignored 1; nothing"):
        made([np.ones((6, 6), np.uint8)], tmp_path, ignore=1)


def test_labels_with_one_value_beside_ignored_pixels_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="the one value 0 apart from the ignored 1; nothing"):
        made([stripes()], tmp_path, ignore=1)


def test_finding_out_about_a_set_reads_no_image_and_each_label_file_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_many(tmp_path, 3)
    read: list[tuple[str, str]] = []
    for name in ("read_image", "read_labels"):
        reader = getattr(dataset_module, name)

        def count(pair: Any, name: str = name, reader: Any = reader) -> Any:
            read.append((name, pair.name))
            return reader(pair)

        monkeypatch.setattr(dataset_module, name, count)
    dataset = read_dataset(tmp_path)
    assert read == [("read_labels", f"t{number}") for number in range(3)]
    read.clear()
    dataset[1:][0]
    assert read == [("read_image", "t1"), ("read_labels", "t1")]


def test_walking_through_a_set_leaves_no_image_behind(tmp_path: Path) -> None:
    seen = []
    for entry in write_many(tmp_path, 4):
        seen.append(weakref.ref(entry.image))
        assert sum(pixels() is not None for pixels in seen) == 1
    assert len(seen) == 4


def test_an_image_is_read_anew_each_time(tmp_path: Path) -> None:
    dataset = write_many(tmp_path, 1)
    write(tmp_path / "images" / "t0.tif", noise(seed=5))
    np.testing.assert_array_equal(dataset[0].image[0], noise(seed=5))


@pytest.mark.parametrize(
    ("place", "pixels"),
    [
        ("images/t0.tif", noise((12, 10))),
        ("images/t0.tif", noise((12, 9, 3))),
        ("labels/t0.png", stripes((11, 9))),
        ("labels/t0.png", stripes(value=2)),
    ],
)
def test_files_that_changed_since_they_were_looked_at_are_refused(
    tmp_path: Path, place: str, pixels: Pixels
) -> None:
    dataset = write_many(tmp_path, 1)
    write(tmp_path / place, pixels)
    with pytest.raises(DatasetError, match="changed while"):
        dataset[0]


def test_a_set_is_a_sequence(tmp_path: Path) -> None:
    dataset = write_many(tmp_path, 5)
    assert len(dataset) == 5
    assert dataset[-1].name == "t4"
    assert [entry.name for entry in dataset] == list(dataset.names)
    assert dataset[1:4:2].names == ("t1", "t3")
    assert dataset.subset([3, 0]).names == ("t3", "t0")
    with pytest.raises(IndexError):
        dataset[5]


def test_an_image_tells_its_group(tmp_path: Path) -> None:
    dataset = write_many(tmp_path, 2, ["north", "south"])
    assert [entry.group for entry in dataset] == list(dataset.groups) == ["north", "south"]


def test_images_are_found_by_name_in_the_order_of_the_data(tmp_path: Path) -> None:
    assert write_many(tmp_path, 5).named(["t3", "t1", "unknown"]).names == ("t1", "t3")


def test_a_set_can_be_handed_to_another_process(tmp_path: Path) -> None:
    dataset = write_many(tmp_path, 2)
    assert pickle.loads(pickle.dumps(dataset)) == dataset  # noqa: S301 (its own bytes)


def test_the_digest_of_a_set_is_that_of_the_content_not_of_the_place(tmp_path: Path) -> None:
    digests = {write_many(tmp_path / name, 2).sha256() for name in ("one", "two")}
    assert len(digests) == 1


def test_the_digest_of_a_set_does_not_depend_on_what_was_read_before(tmp_path: Path) -> None:
    dataset = write_many(tmp_path, 3)
    before = dataset.sha256()
    for index in (2, 0, 1):
        dataset[index]
    assert dataset.sha256() == before


def test_the_digest_of_a_set_changes_with_any_pixel(tmp_path: Path) -> None:
    stored = {"images/a.tif": noise((5, 4)), "labels/a.png": stripes((5, 4))}
    for place, pixels in stored.items():
        write(tmp_path / place, pixels)
    digests = {read_dataset(tmp_path).sha256()}
    for place, pixels in stored.items():
        for index in np.ndindex(5, 4):
            changed = pixels.copy()
            changed[index] ^= 1
            write(tmp_path / place, changed)
            digests.add(read_dataset(tmp_path).sha256())
        write(tmp_path / place, pixels)
    assert len(digests) == 2 * 5 * 4 + 1


def test_the_digest_of_a_set_changes_with_a_name_and_with_what_is_ignored(tmp_path: Path) -> None:
    dataset = write_many(tmp_path, 2)
    digests = {dataset.sha256(), read_dataset(tmp_path, ignore=9).sha256()}
    for folder, suffix in (("images", "tif"), ("labels", "png")):
        (tmp_path / folder / f"t1.{suffix}").rename(tmp_path / folder / f"t9.{suffix}")
    digests.add(read_dataset(tmp_path).sha256())
    assert len(digests) == 3


def test_an_image_is_known_again_under_another_name_and_format(tmp_path: Path) -> None:
    image = noise((12, 9), np.uint16)
    write(tmp_path / "one" / "images" / "a.png", image)
    write(tmp_path / "one" / "labels" / "a.png", stripes())
    (tmp_path / "two" / "images").mkdir(parents=True)
    tifffile.imwrite(tmp_path / "two" / "images" / "b.tif", image, byteorder=">")
    write(tmp_path / "two" / "labels" / "b.png", stripes(value=3))
    one, two = (read_dataset(tmp_path / name, "semantic")[0] for name in ("one", "two"))
    assert digest(one) == digest(two)


def test_an_image_is_not_known_again_with_another_shape_type_or_pixel() -> None:
    image = noise((1, 12, 9))
    other = image.copy()
    other[0, 0, 0] ^= 1
    images = [image, other, image.reshape(1, 9, 12), image.astype(np.uint16), image.view(np.int8)]
    assert len({digest(entry_of(entry)) for entry in images}) == len(images)


def test_the_digest_of_a_view_is_that_of_its_pixels() -> None:
    image = noise((3, 12, 9))
    view = np.ascontiguousarray(np.moveaxis(image, 0, 2))
    assert digest(entry_of(np.moveaxis(view, 2, 0))) == digest(entry_of(image))


def test_objects_of_classes_agree_with_the_rule_for_label_maps(tmp_path: Path) -> None:
    (entry,) = made([stripes((16, 7), 255)], tmp_path)
    np.testing.assert_array_equal(entry.objects, objects_of(entry.semantic))
