"""Annotated images: the three forms they come in, what labels mean, and how they are split."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from model.errors import DatasetError
from training.dataset import AnnotatedImage, Dataset, read_dataset
from training.labels import objects_of

Pixels = NDArray[Any]

ISBI = Path(__file__).parents[3] / "shared" / "data" / "isbi2012"


def write(path: Path, pixels: Pixels) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".png":
        path.write_bytes(imagecodecs.png_encode(pixels))
    else:
        colour = pixels.ndim == 3 and pixels.shape[2] == 3
        tifffile.imwrite(path, pixels, photometric="rgb" if colour else "minisblack")


def noise(shape: tuple[int, ...] = (12, 9), dtype: Any = np.uint8, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


def stripes(shape: tuple[int, int] = (12, 9), value: int = 1) -> Pixels:
    """Draw a class in several pieces."""
    return np.where(np.indices(shape)[0] % 4 < 2, value, 0).astype(np.uint8)


def write_pair(folder: Path, image: Pixels, labels: Pixels, stem: str = "a") -> None:
    write(folder / "images" / f"{stem}.tif", image)
    write(folder / "labels" / f"{stem}.png", labels)


def made(labels: list[Pixels], folder: Path) -> Dataset:
    """Read a folder of noise with these labels."""
    for number, entry in enumerate(labels):
        write_pair(folder, noise((entry.shape[0], entry.shape[1])), entry, f"t{number}")
    return read_dataset(folder)


def numbered(count: int) -> Dataset:
    labels = stripes()
    images = [
        AnnotatedImage(f"t{n}", noise(seed=n)[None], labels, objects_of(labels))
        for n in range(count)
    ]
    return Dataset(Path("data"), "semantic", 2, tuple(images))


@pytest.mark.parametrize("suffix", [".png", ".tif", ".tiff"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_folder_is_read_at_full_depth(tmp_path: Path, suffix: str, dtype: Any) -> None:
    image, labels = noise(dtype=dtype), stripes().astype(dtype)
    write(tmp_path / "images" / f"a{suffix}", image)
    write(tmp_path / "labels" / f"a{suffix}", labels)
    (entry,) = read_dataset(tmp_path).images
    assert (entry.name, entry.image.dtype) == ("a", dtype)
    np.testing.assert_array_equal(entry.image, image[None])
    np.testing.assert_array_equal(entry.semantic, labels)


def test_a_stack_pair_is_read_page_by_page(tmp_path: Path) -> None:
    volume, labels = noise((3, 12, 9)), np.stack([stripes(value=255)] * 3)
    write(tmp_path / "train-volume.tif", volume)
    write(tmp_path / "train-labels.tif", labels)
    dataset = read_dataset(tmp_path)
    assert [entry.name for entry in dataset.images] == ["train-000", "train-001", "train-002"]
    np.testing.assert_array_equal(np.concatenate([e.image for e in dataset.images]), volume)
    np.testing.assert_array_equal(dataset.images[1].semantic, labels[1] > 0)


def test_a_cell_tracking_challenge_folder_is_read_where_it_is_annotated(tmp_path: Path) -> None:
    image = noise(dtype=np.uint16)
    labels = np.repeat([[0, 3, 0, 7]], 6, axis=0).astype(np.uint16)
    for number in ("000", "001"):
        write(tmp_path / "01" / f"t{number}.tif", np.zeros((6, 4), np.uint16))
    write(tmp_path / "02" / "t010.tif", image[:6, :4])
    write(tmp_path / "01_GT" / "SEG" / "man_seg001.tif", labels)
    write(tmp_path / "02_GT" / "SEG" / "man_seg010.tif", labels)
    dataset = read_dataset(tmp_path)
    assert [entry.name for entry in dataset.images] == ["01-001", "02-010"]
    np.testing.assert_array_equal(dataset.images[1].image[0], image[:6, :4])
    np.testing.assert_array_equal(dataset.images[1].objects, labels)


def test_the_real_stack_of_electron_micrographs_has_two_classes() -> None:
    if not ISBI.is_dir():
        pytest.skip(f"{ISBI} is not here; it cannot be shipped with the project")
    dataset = read_dataset(ISBI)
    assert (dataset.label_kind, dataset.num_classes, dataset.in_channels) == ("semantic", 2, 1)
    assert {entry.image.shape for entry in dataset.images} == {(1, 512, 512)}


def test_images_without_labels_are_refused_by_their_stems(tmp_path: Path) -> None:
    write_pair(tmp_path, noise(), stripes())
    write(tmp_path / "images" / "lonely.png", noise())
    with pytest.raises(DatasetError, match=r"1 file\(s\) have no partner .*: lonely\."):
        read_dataset(tmp_path)


def test_two_files_of_one_stem_are_refused(tmp_path: Path) -> None:
    write_pair(tmp_path, noise(), stripes())
    write(tmp_path / "images" / "a.png", noise())
    with pytest.raises(DatasetError, match="images holds two files of one stem"):
        read_dataset(tmp_path)


def test_labels_of_another_size_are_refused_with_both_sizes(tmp_path: Path) -> None:
    write_pair(tmp_path, noise((12, 9)), stripes((12, 8)))
    with pytest.raises(DatasetError, match="image a is 12×9 px, its labels are 12×8 px"):
        read_dataset(tmp_path)


def test_a_volume_without_labels_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "x-volume.tif", noise((2, 8, 8)))
    with pytest.raises(DatasetError, match=r"has no partner x-labels\.tif"):
        read_dataset(tmp_path)


def test_stacks_of_different_lengths_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "x-volume.tif", noise((5, 8, 8)))
    write(tmp_path / "x-labels.tif", noise((6, 8, 8)))
    with pytest.raises(DatasetError, match=r"found \(5, 8, 8\) and \(6, 8, 8\)"):
        read_dataset(tmp_path)


def test_an_annotation_without_its_image_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "01_GT" / "SEG" / "man_seg007.tif", stripes())
    with pytest.raises(DatasetError, match=r"has no partner .*t007\.tif"):
        read_dataset(tmp_path)


def test_a_folder_of_no_known_form_is_refused_with_those_that_are_read(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"holds no annotated images\. Wanted: images/"):
        read_dataset(tmp_path)


def test_a_path_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="nowhere is no folder"):
        read_dataset(tmp_path / "nowhere")


@pytest.mark.parametrize("place", ["images/a.png", "images/a.tif", "labels/a.png", "labels/a.tif"])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, place: str) -> None:
    stem = Path(place).with_suffix(".tif")
    write(tmp_path / "images" / stem.name, noise())
    write(tmp_path / "labels" / stem.name, stripes())
    (tmp_path / stem).unlink()
    (tmp_path / place).write_bytes(b"neither a PNG nor a TIFF")
    with pytest.raises(DatasetError, match=f"{place} cannot be read as an image"):
        read_dataset(tmp_path)


@pytest.mark.parametrize(("samples", "channels"), [(2, 1), (3, 3), (4, 3)])
def test_alpha_is_dropped(tmp_path: Path, samples: int, channels: int) -> None:
    image = noise((12, 9, samples))
    write(tmp_path / "images" / "a.png", image)
    write(tmp_path / "labels" / "a.png", stripes())
    dataset = read_dataset(tmp_path)
    assert dataset.in_channels == channels
    expected = np.moveaxis(image[:, :, :channels], 2, 0)
    np.testing.assert_array_equal(dataset.images[0].image, expected)


def test_grey_images_among_colour_ones_count_as_colour(tmp_path: Path) -> None:
    write_pair(tmp_path, noise((12, 9)), stripes(), "grey")
    write_pair(tmp_path, noise((12, 9, 3)), stripes(), "colour")
    assert read_dataset(tmp_path).in_channels == 3


def test_numbers_of_channels_that_no_network_reads_together_are_refused(tmp_path: Path) -> None:
    write_pair(tmp_path, noise((12, 9, 3)), stripes(), "a")
    write_pair(tmp_path, noise((12, 9, 5)), stripes(), "b")
    with pytest.raises(DatasetError, match=r"images have \[3, 5\] channels"):
        read_dataset(tmp_path)


def test_labels_with_a_palette_are_its_indices(tmp_path: Path) -> None:
    """As the service answers: a corrected answer can be learnt from."""
    labels = stripes() * 2
    write_pair(tmp_path, noise(), stripes())
    picture = Image.fromarray(labels)
    picture.putpalette([0, 0, 0, 230, 159, 0, 86, 180, 233])
    picture.save(tmp_path / "labels" / "a.png")
    np.testing.assert_array_equal(read_dataset(tmp_path).images[0].semantic, labels // 2)


def test_coloured_labels_are_refused_by_their_shape(tmp_path: Path) -> None:
    write_pair(tmp_path, noise(), noise((12, 9, 3)))
    with pytest.raises(DatasetError, match=r"one integer a pixel; found \(12, 9, 3\) uint8"):
        read_dataset(tmp_path)


@pytest.mark.parametrize("white", [1, 255])
def test_black_and_white_labels_are_two_classes(tmp_path: Path, white: int) -> None:
    """Also where every white region is in one piece, as an object would be."""
    labels = np.zeros((12, 9), np.uint8)
    labels[3:7, 2:6] = white
    dataset = made([labels], tmp_path)
    assert (dataset.label_kind, dataset.num_classes) == ("semantic", 2)
    np.testing.assert_array_equal(dataset.images[0].semantic, labels // white)


def test_few_values_in_many_pieces_are_classes(tmp_path: Path) -> None:
    labels = np.repeat([[0, 60, 0, 130, 60, 0, 130, 60]], 6, axis=0).astype(np.uint8)
    dataset = made([labels], tmp_path)
    assert (dataset.label_kind, dataset.num_classes) == ("semantic", 3)
    assert dataset.images[0].semantic[0].tolist() == [0, 1, 0, 2, 1, 0, 2, 1]


def test_the_objects_of_classes_are_their_pieces(tmp_path: Path) -> None:
    dataset = made([stripes((12, 9))], tmp_path)
    np.testing.assert_array_equal(np.unique(dataset.images[0].objects), [0, 1, 2, 3])


def test_few_values_of_one_piece_each_are_objects(tmp_path: Path) -> None:
    labels = np.repeat([[0, 1, 0, 2, 0, 3]], 6, axis=0).astype(np.uint8)
    dataset = made([labels, labels], tmp_path)
    assert (dataset.label_kind, dataset.num_classes) == ("instance", 2)
    assert dataset.images[0].semantic[0].tolist() == [0, 1, 0, 1, 0, 1]


def test_many_values_are_objects_whatever_their_pieces(tmp_path: Path) -> None:
    labels = (np.indices((24, 24)).sum(axis=0) % 20).astype(np.uint8)
    assert made([labels], tmp_path).label_kind == "instance"


def test_the_verdict_is_one_for_all_images(tmp_path: Path) -> None:
    """An image that by itself looks like classes has objects if the data set has."""
    many = np.arange(1, 82, dtype=np.uint8).reshape(9, 9).repeat(2, axis=1)
    dataset = made([stripes((9, 18)), many], tmp_path)
    assert dataset.label_kind == "instance"
    assert dataset.images[0].objects.max() == 1


@pytest.mark.parametrize("axis", [0, 1])
def test_touching_objects_are_separated_by_background(tmp_path: Path, axis: int) -> None:
    labels = np.repeat([[0, 1, 1, 1, 2, 2, 2, 3]], 8, axis=0).astype(np.uint8)
    labels = labels.T.copy() if axis == 0 else labels
    (entry,) = made([labels], tmp_path).images
    assert objects_of(entry.semantic).max() == 3
    line = entry.semantic[:, 0] if axis == 0 else entry.semantic[0]
    assert line.tolist() == [0, 1, 1, 0, 1, 1, 0, 1]


def test_separated_objects_keep_their_ids(tmp_path: Path) -> None:
    labels = np.repeat([[0, 9, 9, 9, 4, 4, 4, 0]], 6, axis=0).astype(np.uint8)
    (entry,) = made([labels], tmp_path).images
    assert entry.objects[0].tolist() == [0, 9, 9, 0, 4, 4, 4, 0]


@pytest.mark.parametrize("value", [0, 1, 7])
def test_labels_of_one_value_are_refused(tmp_path: Path, value: int) -> None:
    with pytest.raises(DatasetError, match=f"all labels have the one value {value}"):
        made([np.full((6, 6), value, np.uint8)], tmp_path)


def test_images_stand_in_their_natural_order(tmp_path: Path) -> None:
    for stem in ("t10", "t9", "t1", "a2b10", "a2b9"):
        write_pair(tmp_path, noise(), stripes(), stem)
    names = [entry.name for entry in read_dataset(tmp_path).images]
    assert names == ["a2b9", "a2b10", "t1", "t9", "t10"]


def test_a_digit_that_is_no_number_is_ordered_as_a_letter(tmp_path: Path) -> None:
    for stem in ("t1²", "t10", "t2"):
        write_pair(tmp_path, noise(), stripes(), stem)
    assert [entry.name for entry in read_dataset(tmp_path).images] == ["t1²", "t2", "t10"]


@pytest.mark.parametrize("count", [5, 7, 30])
def test_every_image_is_validated_on_in_one_block(count: int) -> None:
    dataset = numbered(count)
    blocks = [dataset.split(5, block)[1] for block in range(5)]
    assert [entry.name for block in blocks for entry in block] == [f"t{n}" for n in range(count)]
    assert max(map(len, blocks)) - min(map(len, blocks)) <= 1


@pytest.mark.parametrize("block", range(5))
def test_what_is_validated_on_is_not_trained_on(block: int) -> None:
    dataset = numbered(22)
    training, validation = (
        [entry.name for entry in part] for part in dataset.split(blocks=5, block=block)
    )
    assert sorted(training + validation) == sorted(entry.name for entry in dataset.images)


def test_few_images_are_split_into_as_many_blocks_as_there_are() -> None:
    training, validation = numbered(3).split(blocks=5, block=4)
    assert ([e.name for e in training], [e.name for e in validation]) == (["t0", "t1"], ["t2"])


def test_a_single_image_cannot_be_split() -> None:
    with pytest.raises(DatasetError, match="data holds 1 annotated image"):
        numbered(1).split(5, 2)


def test_images_are_found_by_name_in_the_order_of_the_data() -> None:
    found = numbered(5).named(["t3", "t1", "unknown"])
    assert [entry.name for entry in found] == ["t1", "t3"]


def test_the_digest_is_that_of_the_content_not_of_the_place(tmp_path: Path) -> None:
    for folder in (tmp_path / "one", tmp_path / "two"):
        write_pair(folder, noise(), stripes())
    digests = {read_dataset(tmp_path / name).sha256() for name in ("one", "two")}
    assert len(digests) == 1


@pytest.mark.parametrize("field", ["image", "semantic", "objects"])
def test_the_digest_changes_with_any_pixel(field: str) -> None:
    dataset = numbered(2)
    entry = dataset.images[1]
    pixels = getattr(entry, field)
    digests = {dataset.sha256()}
    for index in np.ndindex(*pixels.shape):
        changed = pixels.copy()
        changed[index] ^= 1
        images = (dataset.images[0], replace(entry, **{field: changed}))
        digests.add(replace(dataset, images=images).sha256())
    assert len(digests) == pixels.size + 1


def test_the_digest_changes_with_a_name() -> None:
    dataset = numbered(2)
    renamed = (dataset.images[0], replace(dataset.images[1], name="t9"))
    assert replace(dataset, images=renamed).sha256() != dataset.sha256()


def test_one_region_a_class_is_taken_for_objects_unless_it_is_said_to_be_classes(
    tmp_path: Path,
) -> None:
    labels = np.zeros((30, 30), np.uint8)
    labels[2:9, 2:9], labels[15:25, 15:25] = 1, 2
    for stem in ("a", "b"):
        write_pair(tmp_path, noise((30, 30)), labels, stem)

    assert read_dataset(tmp_path).label_kind == "instance"
    assert read_dataset(tmp_path, "semantic").num_classes == 3


@pytest.mark.parametrize(
    "stored",
    [
        {"photometric": "miniswhite"},
        {"photometric": "minisblack", "extratags": [(274, 3, 1, 6, True)]},
        {"photometric": "rgb", "planarconfig": "separate"},
    ],
)
def test_a_tiff_that_the_service_would_read_otherwise_is_refused(
    tmp_path: Path, stored: dict[str, Any]
) -> None:
    image = noise((3, 12, 9) if "planarconfig" in stored else (12, 9))
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    tifffile.imwrite(tmp_path / "images" / "a.tif", image, **stored)
    write(tmp_path / "labels" / "a.png", stripes())

    with pytest.raises(DatasetError, match="contiguous and upright"):
        read_dataset(tmp_path)
