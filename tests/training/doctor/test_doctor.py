"""Data sets with one fault each, what the doctor says about them, and that it says no more."""

import re
import weakref
from collections import Counter
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from skimage.transform import rescale

from model.errors import DatasetError
from tests.conftest import DATA
from tests.training.files import Pixels, noise, stripes, write, write_pair
from training.data.dataset import read_dataset
from training.data.pixels import read_image
from training.doctor import Finding, diagnose, tell
from training.doctor.__main__ import main
from training.doctor.copies import ALIKE
from training.doctor.record import clipped_share, record, thumbnail

SIZE = (64, 72)


def discs(number: int = 0, count: int = 4, size: tuple[int, int] = SIZE) -> NDArray[np.uint8]:
    """Draw objects of 113 px, 5 px or more apart, of other ids and places for every number."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    labels = np.zeros(size, np.uint8)
    for label in range(count):
        row, column = 16 + 32 * (label // 2) + number % 5, 14 + 36 * (label % 2) + number // 5
        labels[np.hypot(rows - row, columns - column) < 6] = 4 * number + label + 1
    return labels


def write_set(folder: Path, count: int = 6) -> Path:
    """Write a set in which there is nothing to find."""
    for number in range(count):
        write_pair(folder, noise(SIZE, seed=number), discs(number), f"t{number}")
    return folder


def write_groups(folder: Path, groups: str) -> None:
    lines = [f"t{number},{group}\n" for number, group in enumerate(groups)]
    (folder / "index.csv").write_text("id,group\n" + "".join(lines))


def put_image(folder: Path, name: str, pixels: Pixels) -> None:
    write(folder / "images" / f"{name}.tif", pixels)


def put_labels(folder: Path, name: str, labels: Pixels) -> None:
    write(folder / "labels" / f"{name}.png", labels)


def smooth(seed: int = 0) -> NDArray[np.uint8]:
    """Draw an image whose neighbouring pixels are alike, as those of microscopes are."""
    coarse = np.random.default_rng(seed).uniform(30, 220, (16, 18))
    fine: NDArray[np.uint8] = rescale(coarse, 4, order=1, preserve_range=True).astype(np.uint8)
    return fine


def test_a_clean_set_of_objects_has_no_findings(tmp_path: Path) -> None:
    assert diagnose(write_set(tmp_path)) == ()


def test_a_clean_set_of_classes_has_no_findings(tmp_path: Path) -> None:
    for number in range(4):
        write_pair(tmp_path, noise(seed=number), np.roll(stripes(), number, axis=0), f"t{number}")
    assert diagnose(tmp_path) == ()


def test_a_clean_stack_has_no_findings(tmp_path: Path) -> None:
    write(tmp_path / "x-volume.tif", noise((4, *SIZE)))
    write(tmp_path / "x-labels.tif", np.stack([discs(number) for number in range(4)]))
    assert diagnose(tmp_path) == ()


def test_every_file_without_a_partner_is_an_error(tmp_path: Path) -> None:
    write_set(tmp_path)
    put_image(tmp_path, "lonely", noise(SIZE, seed=9))
    put_labels(tmp_path, "lost", discs(9))
    found = diagnose(tmp_path)
    assert [(each.severity, each.file) for each in found] == [
        ("error", "images/lonely.tif"),
        ("error", "labels/lost.png"),
    ]
    assert found[0].text.startswith("has no partner: add its image or its labels")


def test_labels_of_another_size_are_an_error(tmp_path: Path) -> None:
    put_labels(write_set(tmp_path), "t3", discs(3, size=(64, 70)))
    assert list(map(str, diagnose(tmp_path))) == [
        "error   images/t3.tif: its labels are 64×70 px, the image 64×72 px; export both at one "
        "size."
    ]


def test_files_that_are_not_read_are_errors_in_place_of_their_partners(tmp_path: Path) -> None:
    write_set(tmp_path, 10)
    for number in range(7):
        (tmp_path / "images" / f"t{number}.tif").rename(tmp_path / "images" / f"t{number}.jpg")
    found = diagnose(tmp_path, folds=3)
    errors = [str(each) for each in found if each.severity == "error"]
    assert len(errors) == 6
    assert errors[0] == (
        "error   images/t0.jpg: is neither PNG nor TIFF, and so not read: convert it, without loss."
    )
    assert errors[-1] == "error   and 2 more files: not read either."


def test_masks_that_were_interpolated_are_errors(tmp_path: Path) -> None:
    write_set(tmp_path)
    for number in (1, 3):
        mask = np.where(discs(number) > 0, 255, 0).astype(np.uint8)
        put_labels(tmp_path, f"t{number}", imagecodecs.jpeg_decode(imagecodecs.jpeg_encode(mask)))
    found = diagnose(tmp_path, "instance")
    assert [(each.severity, each.file) for each in found] == [
        ("error", "labels/t1.png"),
        ("error", "labels/t3.png"),
    ]
    assert found[0].text.startswith("holds a mask that was interpolated: ")
    assert found[0].text.endswith("; threshold it, or export it without interpolation.")


def test_the_page_of_a_mask_that_was_interpolated_is_said_once(tmp_path: Path) -> None:
    masks = np.stack([np.where(discs(number) > 0, 255, 0) for number in range(4)]).astype(np.uint8)
    masks[2] = rescale(masks[2, ::2, ::2], 2, order=1, preserve_range=True)
    write(tmp_path / "x-volume.tif", noise((4, *SIZE)))
    write(tmp_path / "x-labels.tif", masks)
    found = diagnose(tmp_path)[0]
    assert str(found).startswith("error   x-labels.tif, page 2: holds a mask that was interpolated")


def test_colours_where_ids_are_wanted_are_an_error(tmp_path: Path) -> None:
    put_labels(write_set(tmp_path), "t1", noise((*SIZE, 3)))
    (found,) = diagnose(tmp_path)
    assert (found.severity, found.file) == ("error", "labels/t1.png")
    assert found.text.endswith(
        "convert each colour to the id of its class or object, the background's to 0."
    )


def write_regions(folder: Path, values: tuple[int, ...], count: int) -> Path:
    """Write images with a region for each value side by side, a little wider in each image."""
    for number in range(count):
        labels = np.zeros(SIZE, np.uint8)
        for place, value in enumerate(values):
            labels[:, place * SIZE[1] // len(values) + (number if place else 0) :] = value
        write_pair(folder, noise(SIZE, seed=number), labels, f"t{number}")
    return folder


def test_one_region_a_class_is_a_note_that_says_how_to_overrule_it(tmp_path: Path) -> None:
    write_regions(tmp_path, (0, 1, 2), 4)
    assert list(map(str, diagnose(tmp_path))) == [
        f"note    {tmp_path.name}: labels are semantic labels: the same 3 values lie in nearly "
        "every image. If they are ids of objects, ask for --labels instance."
    ]
    assert diagnose(tmp_path, "semantic") == ()


def test_few_objects_are_a_note_that_says_how_to_overrule_it(tmp_path: Path) -> None:
    found = diagnose(write_set(tmp_path, 2), folds=2, fold=1)
    assert [each.severity for each in found] == ["note", "note"]
    assert found[0].text == (
        "labels are instance labels: each value is in one piece in its image (1 on average). If "
        "they are classes, ask for --labels semantic."
    )


def test_few_objects_without_a_background_are_a_warning(tmp_path: Path) -> None:
    write_regions(tmp_path, (1, 2), 4)
    found = [each for each in diagnose(tmp_path, "instance") if each.severity == "warning"]
    assert list(map(str, found)) == [
        f"warning {tmp_path.name}: labels are instance labels: as was asked. Hardly a pixel has "
        "the 0 of the background. If they are classes, ask for --labels semantic."
    ]


def test_classes_without_0_are_a_note_that_says_which_is_the_background(tmp_path: Path) -> None:
    assert list(map(str, diagnose(write_regions(tmp_path, (1, 2), 4)))) == [
        f"note    {tmp_path.name}: no label is 0: 1 is taken for the background; renumber the "
        "labels if it is not."
    ]


@pytest.mark.parametrize("file", ["images/t2.tif", "labels/t2.png"])
def test_a_file_that_is_no_image_is_an_error(tmp_path: Path, file: str) -> None:
    (write_set(tmp_path) / file).write_bytes(b"no image")
    (found,) = diagnose(tmp_path)
    assert (found.severity, found.file) == ("error", file)
    assert found.text.startswith("cannot be read: ")


def test_an_image_whose_pixels_are_damaged_is_an_error(tmp_path: Path) -> None:
    whole = imagecodecs.png_encode(noise(SIZE))
    write_set(tmp_path)
    (tmp_path / "images" / "t1.tif").unlink()
    damaged = bytearray(whole)
    damaged[len(whole) // 2] ^= 255
    (tmp_path / "images" / "t1.png").write_bytes(damaged)
    (found,) = diagnose(tmp_path)
    assert (found.severity, found.file) == ("error", "images/t1.png")


def test_a_finding_is_one_line_that_names_the_file_once(tmp_path: Path) -> None:
    (write_set(tmp_path) / "images" / "t2.tif").write_bytes(b"")
    (line,) = tell(diagnose(tmp_path)).splitlines()
    assert line.count("t2.tif") == 1
    assert str(tmp_path) not in line


def test_pixels_that_are_not_finite_are_an_error(tmp_path: Path) -> None:
    volume = np.stack([noise(SIZE, seed=number) for number in range(3)]).astype(np.float32)
    volume[1, 2, 3] = np.nan
    write(tmp_path / "x-volume.tif", volume)
    write(tmp_path / "x-labels.tif", np.stack([discs(number) for number in range(3)]))
    found = [each for each in diagnose(tmp_path) if each.severity == "error"]
    assert list(map(str, found)) == [
        "error   x-volume.tif, page 1: has 1 value(s) that are not finite; replace them."
    ]


def test_negative_labels_are_an_error(tmp_path: Path) -> None:
    labels = discs().astype(np.int16)
    labels[0, 0] = -1
    write_set(tmp_path)
    (tmp_path / "labels" / "t0.png").unlink()
    tifffile.imwrite(tmp_path / "labels" / "t0.tif", labels)
    (found,) = diagnose(tmp_path)
    assert (found.severity, found.file) == ("error", "labels/t0.tif")
    assert "negative label -1" in found.text
    assert "--ignore -1" in found.text
    assert diagnose(tmp_path, ignore=-1) == ()


def test_the_background_of_objects_cannot_be_ignored(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="0 is the background, which cannot be ignored"):
        read_dataset(write_set(tmp_path), "instance", ignore=0)
    errors = [each for each in diagnose(tmp_path, "instance", 0) if each.severity == "error"]
    assert list(map(str, errors)) == [
        f"error   {tmp_path.name}: in labels of objects 0 is the background, which cannot be "
        "ignored; leave out --ignore 0, or ask for --labels semantic."
    ]


def test_a_folder_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    (found,) = diagnose(tmp_path / "nowhere")
    assert found == Finding("error", "nowhere", "is no folder.")


def test_a_folder_without_images_is_an_error(tmp_path: Path) -> None:
    (found,) = diagnose(tmp_path)
    assert found.severity == "error"
    assert "holds no annotated images" in found.text


def test_labels_of_one_value_are_an_error(tmp_path: Path) -> None:
    for number in range(3):
        write_pair(tmp_path, noise(SIZE, seed=number), np.full(SIZE, 7, np.uint8), f"t{number}")
    errors = [each for each in diagnose(tmp_path) if each.severity == "error"]
    assert list(map(str, errors)) == [
        f"error   {tmp_path.name}: all labels have the one value 7: there is nothing to learn."
    ]


def test_labels_that_are_ignored_everywhere_are_an_error(tmp_path: Path) -> None:
    write_pair(tmp_path, noise(SIZE), np.full(SIZE, 7, np.uint8))
    (found,) = diagnose(tmp_path, ignore=7)
    assert (found.severity, found.text[:35]) == ("error", "all labels have no value but that: ")


def test_more_classes_than_are_told_apart_are_an_error(tmp_path: Path) -> None:
    many = np.arange(64 * 72, dtype=np.uint16).reshape(SIZE) % 300
    put_labels(write_set(tmp_path), "t0", many)
    errors = [each.text for each in diagnose(tmp_path, "semantic") if each.severity == "error"]
    assert errors == [
        "300 classes, of at most 256; if they are objects, ask for --labels instance."
    ]


def test_the_images_whose_channels_differ_from_those_of_most_are_errors(tmp_path: Path) -> None:
    for number in range(4):
        colour = noise((*SIZE, 3), seed=number)
        write_pair(tmp_path, colour, discs(number), f"t{number}")
    tifffile.imwrite(
        tmp_path / "images" / "t2.tif",
        noise((*SIZE, 5), seed=8),
        photometric="minisblack",
        planarconfig="contig",
    )
    put_image(tmp_path, "t3", noise(SIZE, seed=9))  # grey among colour is replicated
    (found,) = diagnose(tmp_path)
    assert (found.severity, found.file) == ("error", "images/t2.tif")
    assert "has 5 channels, most images have 3" in found.text


def test_all_errors_are_found_in_one_run_and_come_first(tmp_path: Path) -> None:
    write_set(tmp_path, 16)
    put_image(tmp_path, "t15", np.zeros(SIZE, np.uint8))
    for number in range(8):
        (tmp_path / "images" / f"t{number}.tif").write_bytes(b"no image")
    put_labels(tmp_path, "t9", discs(9, size=(9, 9)))
    found = diagnose(tmp_path)
    assert [each.severity for each in found] == ["error"] * 9 + ["warning"]


def test_a_set_that_cannot_be_split_is_an_error(tmp_path: Path) -> None:
    write_groups(write_set(tmp_path, 3), "aaa")
    (found,) = diagnose(tmp_path)
    assert found.severity == "error"
    assert "are of the one group 'a'" in found.text


def test_a_single_image_that_cannot_be_cut_in_two_is_an_error(tmp_path: Path) -> None:
    write_pair(tmp_path, noise(SIZE), discs(count=1))
    found = diagnose(tmp_path, "instance")
    assert [each.severity for each in found] == ["error", "note"]
    assert found[0].text.startswith("holds one image, and fold 2 of 5 leaves no object")


def test_a_fault_of_the_index_is_an_error(tmp_path: Path) -> None:
    write_groups(write_set(tmp_path, 3), "aabb")
    (found,) = diagnose(tmp_path)
    assert (found.severity, found.file) == ("error", tmp_path.name)
    assert found.text == "index.csv names images that are not here: t3."


def test_equal_images_on_both_sides_of_the_split_are_an_error(tmp_path: Path) -> None:
    write_set(tmp_path)
    put_image(tmp_path, "t0", noise(SIZE, seed=5))
    put_labels(tmp_path, "t0", discs(5))
    found = diagnose(tmp_path, folds=3, fold=2)
    assert list(map(str, found)) == [
        "error   images/t5.tif: held out for validation, has the same pixels as images/t0.tif, "
        "trained on: give both one group in index.csv, or remove one."
    ]


def test_constant_images_on_both_sides_of_the_split_are_no_copies(tmp_path: Path) -> None:
    write_set(tmp_path)
    for name in ("t0", "t5"):
        put_image(tmp_path, name, np.zeros(SIZE, np.uint8))
    found = diagnose(tmp_path, folds=3, fold=2)
    assert [(each.severity, each.file) for each in found] == [
        ("warning", "images/t0.tif"),
        ("warning", "images/t5.tif"),
    ]
    assert all("nothing can be learnt from it" in each.text for each in found)


def test_where_nothing_is_held_out_equal_images_are_no_error(tmp_path: Path) -> None:
    write_set(tmp_path)
    put_image(tmp_path, "t0", noise(SIZE, seed=5))
    put_labels(tmp_path, "t0", discs(5))
    (found,) = diagnose(tmp_path, folds=3, fold=None)
    assert str(found) == (
        "warning images/t5.tif: has the same pixels as images/t0.tif: it counts twice; remove one."
    )


def test_where_nothing_is_held_out_one_group_is_enough(tmp_path: Path) -> None:
    write_groups(write_set(tmp_path), "aaaaaa")
    assert diagnose(tmp_path, fold=None) == ()
    assert "never split" in diagnose(tmp_path)[0].text


def test_a_fold_without_an_object_is_an_error(tmp_path: Path) -> None:
    write_set(tmp_path, 10)
    for number in (4, 5):
        put_labels(tmp_path, f"t{number}", np.zeros(SIZE, np.uint8))
    found, *others = diagnose(tmp_path)
    assert (found.severity, found.file) == ("error", tmp_path.name)
    assert found.text.startswith(
        "holds 10 images, and fold 2 of 5 leaves no object to validate on: there is none in t4, t5."
    )
    assert {each.severity for each in others} == {"warning"}


def test_equal_images_of_one_group_are_no_error(tmp_path: Path) -> None:
    write_groups(write_set(tmp_path), "abcdea")
    put_image(tmp_path, "t0", noise(SIZE, seed=5))
    put_labels(tmp_path, "t0", discs(5))
    (found,) = diagnose(tmp_path, folds=3, fold=2)
    assert str(found) == (
        "warning images/t5.tif: has the same pixels as images/t0.tif: it counts twice; remove one."
    )


def test_equal_images_with_other_labels_are_a_warning(tmp_path: Path) -> None:
    write_set(tmp_path)
    put_image(tmp_path, "t1", noise(SIZE, seed=0))
    (found,) = diagnose(tmp_path, folds=3, fold=2)
    assert found.severity == "warning"
    assert found.text == (
        "has the same pixels as images/t0.tif, with other labels: keep the better labels."
    )


def test_equal_labels_of_different_images_are_a_warning(tmp_path: Path) -> None:
    put_labels(write_set(tmp_path), "t1", discs(0))
    (found,) = diagnose(tmp_path)
    assert (found.severity, found.file) == ("warning", "labels/t1.png")
    assert "is drawn exactly as labels/t0.png, though the images differ" in found.text


@pytest.mark.parametrize(
    "alter",
    [
        lambda image: np.rot90(image)[:, ::-1],
        lambda image: image[::2, ::2],
        lambda image: (255 * (image / 255) ** 0.6).astype(np.uint8),
        lambda image: (image.astype(np.uint16) << 8) + 9,
        lambda image: imagecodecs.jpeg_decode(imagecodecs.jpeg_encode(image, 60)),
        lambda image: (image * np.linspace(0.6, 1, image.shape[1])).astype(np.uint8),
    ],
    ids=["turned", "halved", "brightened", "deepened", "recompressed", "shaded"],
)
def test_an_altered_copy_across_the_split_is_a_warning(tmp_path: Path, alter: Any) -> None:
    write_set(tmp_path)
    for number in range(6):
        put_image(tmp_path, f"t{number}", smooth(number))
    altered = np.ascontiguousarray(alter(smooth(0)))
    write_pair(tmp_path, altered, discs(6, size=altered.shape), "t6")
    look_alikes = [each for each in diagnose(tmp_path, folds=7, fold=6) if "like" in each.text]
    (found,) = look_alikes
    assert (found.severity, found.file) == ("warning", "images/t6.tif")
    assert "looks like images/t0.tif, trained on (correlation" in found.text
    assert "give both one group in index.csv" in found.text


def test_look_alikes_are_found_in_every_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.doctor.copies.BLOCK", 2)
    write_set(tmp_path, 10)
    for number in range(10):  # t5 … t9 are t4 … t0, a little darker
        image = smooth(min(number, 9 - number))
        put_image(tmp_path, f"t{number}", image if number < 5 else image - image // 16)
    found = diagnose(tmp_path, folds=2, fold=1)
    pairs = {each.file: re.findall(r"looks like images/(t\d)", each.text) for each in found}
    assert pairs == {f"images/t{9 - number}.tif": [f"t{number}"] for number in range(5)}


def test_different_images_with_the_same_shading_do_not_look_alike(tmp_path: Path) -> None:
    rows, columns = np.mgrid[:256, :256]
    shading = 200 * np.exp(-np.square(np.hypot(rows - 128, columns - 128) / 150))
    write_set(tmp_path, 4)
    for number in range(4):
        details = np.kron(noise((64, 64), seed=number), np.ones((4, 4), np.uint8))
        image = (shading + details / 8).astype(np.uint8)
        write_pair(tmp_path, image, discs(number, size=(256, 256)), f"t{number}")
    assert np.corrcoef(shading.ravel(), image.ravel())[0, 1] > ALIKE
    assert not [each for each in diagnose(tmp_path) if "like" in each.text]


def test_a_thumbnail_holds_the_details_of_block_means() -> None:
    image = noise((1, 160, 320))
    means = image[0].reshape(32, 5, 32, 10).mean(axis=(1, 3))
    details = thumbnail(image).astype(float)
    # A linear map of the means: brightness and contrast of the image leave no trace in it.
    np.testing.assert_allclose(thumbnail(means[None]), details, atol=1e-6)
    np.testing.assert_allclose(thumbnail(image * 3.0 + 7), details, atol=1e-6)
    assert (details.mean(), np.linalg.norm(details)) == pytest.approx((0, 1), abs=1e-6)


@pytest.mark.parametrize("size", [(1, 1), (3, 40), (17, 31)])
def test_thumbnails_of_images_of_any_size_are_of_one_size(size: tuple[int, int]) -> None:
    assert thumbnail(noise((3, *size))).shape == (32, 32)


def test_a_mask_asked_for_as_instances_is_a_warning(tmp_path: Path) -> None:
    for number in range(3):
        mask = np.where(discs(number) > 0, 255, 0).astype(np.uint8)
        write_pair(tmp_path, noise(SIZE, seed=number), mask, f"t{number}")
    assert diagnose(tmp_path) == ()
    found = diagnose(tmp_path, "instance")
    assert {each.severity for each in found} == {"warning"}
    assert [each.file for each in found] == [f"labels/t{number}.png" for number in range(3)]
    assert found[0].text == (
        "is a mask, read as instance labels: its one value 255 makes one object of 4 pieces; give "
        "each object its own id, or ask for --labels semantic."
    )


def test_one_mask_among_numbered_labels_is_a_warning(tmp_path: Path) -> None:
    put_labels(write_set(tmp_path), "t4", (discs(4) > 0).astype(np.uint8))
    (found,) = diagnose(tmp_path, "instance")
    assert (found.severity, found.file) == ("warning", "labels/t4.png")
    assert "makes one object of 4 pieces" in found.text


def test_a_single_object_in_an_image_is_no_mask(tmp_path: Path) -> None:
    put_labels(write_set(tmp_path), "t4", discs(4, count=1))
    assert diagnose(tmp_path) == ()


def test_an_id_in_several_pieces_is_a_warning(tmp_path: Path) -> None:
    labels = discs(2)
    labels[labels == 12] = 11
    put_labels(write_set(tmp_path), "t2", labels)
    (found,) = diagnose(tmp_path, "instance")
    assert (found.severity, found.file) == ("warning", "labels/t2.png")
    assert found.text.startswith("1 id in several pieces, such as 11 with 109 px apart")


@pytest.mark.parametrize("label", [1, 100])
def test_specks_are_a_warning_with_their_number(tmp_path: Path, label: int) -> None:
    write_set(tmp_path)
    for name, places in (("t2", 1), ("t5", 2)):
        number = int(name[1])
        labels = discs(number)
        for place in range(places):
            labels[0, 30 + 2 * place] = 4 * number + label + place
        put_labels(tmp_path, name, labels)
    (found,) = diagnose(tmp_path, "instance")
    assert (found.severity, found.file) == ("warning", "labels/t5.png")
    assert found.text.startswith("2 specks, 3 over 2 files: areas of fewer than 4 px, or apart")


def test_touching_objects_are_a_note_with_their_number(tmp_path: Path) -> None:
    labels = discs(1)
    cut = labels == 5
    cut[:, :14] = False
    labels[cut] = 100
    put_labels(write_set(tmp_path), "t1", labels)
    (found,) = diagnose(tmp_path)
    assert (found.severity, found.file) == ("note", tmp_path.name)
    assert found.text.startswith("2 of 25 objects touch another: training draws a background of 1")


def test_a_narrow_gap_is_a_note(tmp_path: Path) -> None:
    write_set(tmp_path)
    for number in range(6):
        halves = np.zeros(SIZE, np.uint8)
        halves[5:20, 5 + number : 10 + number] = 2 * number + 1
        halves[5:20, 11 + number : 16 + number] = 2 * number + 2
        put_labels(tmp_path, f"t{number}", halves)
    (found,) = diagnose(tmp_path)
    assert found.severity == "note"
    assert found.text.startswith("neighbouring objects lie 1.0 px apart in the median")


def test_empty_labels_are_a_warning(tmp_path: Path) -> None:
    write_set(tmp_path)
    for name in ("t1", "t3"):
        put_labels(tmp_path, name, np.zeros(SIZE, np.uint8))
    found = diagnose(tmp_path)
    assert [(each.severity, each.file) for each in found] == [
        ("warning", "labels/t1.png"),
        ("warning", "labels/t3.png"),
    ]
    assert found[0].text.startswith("nothing is drawn on it")


def test_labels_that_are_to_be_ignored_everywhere_are_a_warning(tmp_path: Path) -> None:
    put_labels(write_set(tmp_path), "t1", np.full(SIZE, 200, np.uint8))
    (found,) = diagnose(tmp_path, ignore=200)
    assert (found.severity, found.file) == ("warning", "labels/t1.png")
    assert found.text.startswith("every pixel is to be ignored")


def test_a_value_to_be_ignored_that_no_pixel_has_is_a_warning(tmp_path: Path) -> None:
    (found,) = diagnose(write_set(tmp_path), ignore=99)
    assert (found.severity, found.file) == ("warning", tmp_path.name)
    assert found.text == "no pixel has the value 99 that is to be ignored."


def test_constant_images_are_a_warning(tmp_path: Path) -> None:
    put_image(write_set(tmp_path), "t1", np.full(SIZE, 17, np.uint8))
    (found,) = diagnose(tmp_path)
    assert (found.severity, found.file) == ("warning", "images/t1.tif")
    assert "every pixel has the value 17" in found.text


def test_saturated_images_are_a_warning_with_the_share(tmp_path: Path) -> None:
    image = smooth()
    image[:16, :36] = 255
    put_image(write_set(tmp_path), "t1", image)
    (found,) = diagnose(tmp_path)
    assert (found.severity, found.file) == ("warning", "images/t1.tif")
    assert found.text.startswith("12.5% of its values are saturated at 255")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_values_that_pile_up_at_the_largest_are_clipped_whatever_it_is(dtype: Any) -> None:
    values = np.random.default_rng(0).normal(100, 20, (1, 100, 100))
    assert clipped_share(values.clip(0, 120).astype(dtype)) == pytest.approx(0.16, abs=0.01)


def test_the_tail_of_a_histogram_is_not_clipped() -> None:
    dim = np.random.default_rng(0).poisson(0.3, (1, 100, 100)).clip(0, 2).astype(np.uint8)
    assert (dim == 2).mean() > 0.01
    assert clipped_share(dim) == 0.0


def test_a_constant_image_is_not_clipped() -> None:
    assert clipped_share(np.full((1, 4, 4), 255, np.uint8)) == 0.0


@pytest.mark.parametrize(("largest", "bits"), [(255, 8), (4095, 12)])
def test_bits_that_are_not_used_are_a_note(tmp_path: Path, largest: int, bits: int) -> None:
    write_set(tmp_path)
    for number in range(6):
        image = noise(SIZE, np.uint16, number) % (largest + 1)
        image[0, 0] = largest
        put_image(tmp_path, f"t{number}", image)
    (found,) = diagnose(tmp_path)
    assert found.severity == "note"
    assert found.text.startswith(f"16-bit images use {bits} bits (largest value {largest})")


def test_sixteen_bits_in_use_are_not_worth_a_word(tmp_path: Path) -> None:
    for number in range(3):
        write_pair(tmp_path, noise(SIZE, np.uint16, number), discs(number), f"t{number}")
    assert diagnose(tmp_path) == ()


def test_a_rare_class_is_a_note_with_its_share(tmp_path: Path) -> None:
    for number in range(4):
        labels = stripes((40, 50), 128)
        labels[number, :4] = 255
        write_pair(tmp_path, noise((40, 50), seed=number), labels, f"t{number}")
    (found,) = diagnose(tmp_path, "semantic")
    assert (found.severity, found.file) == ("note", tmp_path.name)
    assert found.text.startswith("the label 255 makes up 0.20% of the pixels")


def test_objects_that_cover_little_are_a_note(tmp_path: Path) -> None:
    for number in range(3):
        size = (200, 200)
        labels = discs(number, count=1, size=size)
        write_pair(tmp_path, noise(size, seed=number), labels, f"t{number}")
    (found,) = diagnose(tmp_path, "instance")
    assert found.text.startswith("the objects make up 0.27% of the pixels")


def test_objects_of_other_sizes_in_other_images_are_a_note(tmp_path: Path) -> None:
    write_set(tmp_path)
    for number in range(3):
        large = np.zeros(SIZE, np.uint8)
        large[4:60, 4 + number : 60 + number] = 1
        put_labels(tmp_path, f"t{number}", large)
    (found,) = diagnose(tmp_path)
    assert found.severity == "note"
    assert found.text.startswith("objects differ 29-fold in area between images, 12 against 63 px")


def test_objects_wider_than_the_field_of_view_are_a_note(tmp_path: Path) -> None:
    rows, columns = np.mgrid[:300, :300]
    for number, radius in enumerate((60, 100, 120)):
        labels = (np.hypot(rows - 150, columns - 150) <= radius).astype(np.uint8)
        write_pair(tmp_path, noise((300, 300), seed=number), labels, f"t{number}")
    (found,) = diagnose(tmp_path, "instance")
    assert (found.severity, found.file) == ("note", "labels/t2.png")
    assert found.text.startswith("an object of 240 px across; 2 in all are wider than the 185 px")


@pytest.mark.parametrize(
    ("count", "text"), [(1, "a part of the one image"), (2, "one of 2 images is validated on")]
)
def test_few_images_are_a_note(tmp_path: Path, count: int, text: str) -> None:
    (found,) = diagnose(write_set(tmp_path, count), "instance", folds=2, fold=1)
    assert found.severity == "note"
    assert found.text.startswith(text)


def test_warnings_of_one_kind_are_named_five_times_and_then_counted(tmp_path: Path) -> None:
    write_set(tmp_path, 12)
    for number in range(8):
        put_labels(tmp_path, f"t{number}", np.zeros(SIZE, np.uint8))
    lines = tell(diagnose(tmp_path, fold=4)).splitlines()
    assert len(lines) == 6
    assert lines[-1] == "warning and 3 more files: empty."


def test_one_image_is_in_memory_at_a_time_and_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive: list[weakref.ref[NDArray[Any]]] = []
    reads: Counter[str] = Counter()

    def count(pair: Any) -> NDArray[Any]:
        reads[pair.name] += 1
        return read_image(pair)

    def watch(entry: Any, *others: Any) -> Any:
        assert not any(image() is not None for image in alive)
        alive.append(weakref.ref(entry.image))
        return record(entry, *others)

    monkeypatch.setattr("training.data.dataset.read_image", count)
    monkeypatch.setattr("training.doctor.examination.record", watch)
    diagnose(write_set(tmp_path))
    assert reads == {f"t{number}": 1 for number in range(6)}
    assert len(alive) == 6


def test_the_command_prints_a_summary_and_returns_0_without_errors(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(write_set(tmp_path))]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "The doctor found nothing to mend."
    assert lines[1].startswith("The labels are instance labels: ")
    assert lines[1].endswith(
        "6 images of uint8, 1 channel, 0.0 Mpx; 24 objects on 9.5% of the pixels, 12 px across "
        "(5th to 95th percentile: 12 to 12), 21.0 px from the nearest in the median."
    )


def test_the_command_sums_classes_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(3):
        write_pair(tmp_path, noise(seed=number), np.roll(stripes(), number, axis=0), f"t{number}")
    assert main([str(tmp_path)]) == 0
    assert "classes of 50.0%, 50.0% of the pixels." in capsys.readouterr().out


def test_the_command_prints_errors_and_returns_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put_image(write_set(tmp_path), "lonely", noise(SIZE, seed=9))
    assert main([str(tmp_path), "--labels", "instance"]) == 1
    assert capsys.readouterr().out.startswith("error   images/lonely.tif: has no partner")


def test_the_command_returns_1_for_no_data_set(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path)]) == 1
    assert len(capsys.readouterr().out.splitlines()) == 1


@pytest.mark.skipif(not DATA.is_dir(), reason="the real data sets are not here")
def test_the_membranes_of_the_paper_have_no_findings() -> None:
    assert diagnose(DATA / "isbi2012") == ()
