"""The forms of a data set: how they are told apart, what belongs to what, and groups."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from model.errors import DatasetError
from tests.conftest import DATA
from tests.training.files import noise, stripes, write, write_pair
from training.data.forms import Pair, find_pairs


def index(folder: Path, text: str) -> None:
    write_pair(folder, noise(), stripes(), "a")
    write_pair(folder, noise(), stripes(), "b")
    (folder / "index.csv").write_text(text, encoding="utf-8")


def test_images_and_labels_are_paired_by_stem_whatever_their_format(tmp_path: Path) -> None:
    write(tmp_path / "images" / "a.TIF", noise())
    write(tmp_path / "labels" / "a.png", stripes())
    (pair,) = find_pairs(tmp_path).pairs
    assert pair == Pair("a", tmp_path / "images" / "a.TIF", tmp_path / "labels" / "a.png")


def test_each_page_of_a_stack_is_an_image(tmp_path: Path) -> None:
    for name in ("x-volume.tif", "x-labels.tif"):
        write(tmp_path / name, noise((3, 12, 9)))
    found = find_pairs(tmp_path).pairs
    assert [(pair.name, pair.page) for pair in found] == [("x-000", 0), ("x-001", 1), ("x-002", 2)]
    assert {pair.labels for pair in found} == {tmp_path / "x-labels.tif"}


@pytest.mark.parametrize(
    "stored",
    [
        {},
        {"imagej": True},
        {"imagej": True, "truncate": True},
        {"compression": "zlib"},
        {"metadata": None},
    ],
    ids=str,
)
def test_the_pages_of_a_stack_are_counted_however_it_is_stored(
    tmp_path: Path, stored: dict[str, Any]
) -> None:
    for name in ("x-volume.tif", "x-labels.tif"):
        tifffile.imwrite(tmp_path / name, noise((3, 12, 9)), photometric="minisblack", **stored)
    assert len(find_pairs(tmp_path).pairs) == 3


def test_a_cell_tracking_challenge_folder_has_the_images_that_are_annotated(tmp_path: Path) -> None:
    for number in ("000", "001"):
        write(tmp_path / "01" / f"t{number}.tif", noise())
    write(tmp_path / "02" / "t010.tif", noise())
    write(tmp_path / "01_GT" / "SEG" / "man_seg001.tif", stripes())
    write(tmp_path / "02_GT" / "SEG" / "man_seg010.tif", stripes())
    found = find_pairs(tmp_path)
    assert [pair.name for pair in found.pairs] == ["01-001", "02-010"]
    assert found.pairs[1].image == tmp_path / "02" / "t010.tif"
    assert found.alone == ()


def test_images_stand_in_their_natural_order(tmp_path: Path) -> None:
    for stem in ("t10", "t9", "t1", "a2b10", "a2b9"):
        write_pair(tmp_path, noise(), stripes(), stem)
    names = [pair.name for pair in find_pairs(tmp_path).pairs]
    assert names == ["a2b9", "a2b10", "t1", "t9", "t10"]


def test_a_digit_that_is_no_number_is_ordered_as_a_letter(tmp_path: Path) -> None:
    for stem in ("t1²", "t10", "t2"):
        write_pair(tmp_path, noise(), stripes(), stem)
    assert [pair.name for pair in find_pairs(tmp_path).pairs] == ["t1²", "t2", "t10"]


def test_files_without_a_partner_are_reported(tmp_path: Path) -> None:
    write_pair(tmp_path, noise(), stripes())
    write(tmp_path / "images" / "lonely.png", noise())
    write(tmp_path / "labels" / "left.png", noise())
    found = find_pairs(tmp_path)
    assert [pair.name for pair in found.pairs] == ["a"]
    assert found.alone == (tmp_path / "images" / "lonely.png", tmp_path / "labels" / "left.png")


@pytest.mark.parametrize("name", ["x-volume.tif", "x-labels.tif"])
def test_half_of_a_stack_pair_is_reported(tmp_path: Path, name: str) -> None:
    write(tmp_path / name, noise((2, 8, 8)))
    assert find_pairs(tmp_path).alone == (tmp_path / name,)


def test_an_annotation_without_its_image_is_reported(tmp_path: Path) -> None:
    write(tmp_path / "01_GT" / "SEG" / "man_seg007.tif", stripes())
    found = find_pairs(tmp_path)
    assert (found.pairs, [file.name for file in found.alone]) == ((), ["man_seg007.tif"])


def test_other_files_and_hidden_ones_are_passed_over(tmp_path: Path) -> None:
    write_pair(tmp_path, noise(), stripes())
    for file in ("images/Thumbs.db", "labels/Thumbs.db", "labels/classes.txt"):
        (tmp_path / file).write_bytes(b"")
    (tmp_path / "images" / "._a.tif").write_bytes(b"what one operating system leaves on others")
    found = find_pairs(tmp_path)
    assert (len(found.pairs), found.alone, found.unread) == (1, (), ())


def test_files_of_a_format_that_is_not_read_are_reported_in_place_of_their_partners(
    tmp_path: Path,
) -> None:
    """Pictures by their suffix, others where they stand for the partner of an image or labels."""
    write_pair(tmp_path, noise(), stripes())
    write(tmp_path / "labels" / "b.png", stripes())
    write(tmp_path / "images" / "c.png", noise())
    unread = ["images/b.JPG", "images/d.jpeg", "images/lonely.bmp", "labels/c.json", "labels/d.bmp"]
    for file in unread:
        (tmp_path / file).write_bytes(b"")
    (tmp_path / "index.csv").write_text("id,group\na,1\nb,2\nd,2\n")
    found = find_pairs(tmp_path)
    assert [file.relative_to(tmp_path).as_posix() for file in found.unread] == unread
    assert ([pair.name for pair in found.pairs], found.alone) == (["a"], ())


def test_previews_and_notes_beside_files_that_are_read_are_passed_over(tmp_path: Path) -> None:
    write_pair(tmp_path, noise(), stripes())
    for file in ("images/a.jpg", "labels/a.json"):
        (tmp_path / file).write_bytes(b"")
    assert find_pairs(tmp_path).unread == ()


def test_a_folder_of_formats_that_are_not_read_alone_is_reported(tmp_path: Path) -> None:
    for part in ("images", "labels"):
        (tmp_path / part).mkdir()
        (tmp_path / part / "a.jpg").write_bytes(b"")
    found = find_pairs(tmp_path)
    assert (found.pairs, len(found.unread)) == ((), 2)


def test_stacks_of_different_lengths_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "x-volume.tif", noise((5, 8, 8)))
    write(tmp_path / "x-labels.tif", noise((6, 8, 8)))
    with pytest.raises(DatasetError, match=r"x-volume\.tif has 5 page.*x-labels\.tif has 6"):
        find_pairs(tmp_path)


def test_a_stack_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    write(tmp_path / "x-labels.tif", noise((6, 8, 8)))
    (tmp_path / "x-volume.tif").write_bytes(b"no TIFF")
    with pytest.raises(DatasetError, match=r"x-volume\.tif cannot be read"):
        find_pairs(tmp_path)


def test_two_files_of_one_stem_are_refused(tmp_path: Path) -> None:
    write_pair(tmp_path, noise(), stripes())
    write(tmp_path / "images" / "a.png", noise())
    with pytest.raises(
        DatasetError, match=r"images holds two files of one stem: a\.png and a\.tif"
    ):
        find_pairs(tmp_path)


@pytest.mark.parametrize(("there", "missing"), [("images", "labels"), ("labels", "images")])
def test_one_folder_without_the_other_is_refused(tmp_path: Path, there: str, missing: str) -> None:
    write(tmp_path / there / "a.png", noise())
    with pytest.raises(DatasetError, match=f"lacks the folder {missing}/"):
        find_pairs(tmp_path)


def test_a_folder_of_no_known_form_is_refused_with_those_that_are_read(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"holds no annotated images\. Wanted: images/"):
        find_pairs(tmp_path)


def test_a_path_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="nowhere is no folder"):
        find_pairs(tmp_path / "nowhere")


@pytest.mark.parametrize(
    "text",
    [
        "id,group\na,north\nb,south\n",
        "\ufeffGroup;kind; ID\nnorth;1;a\nsouth;2;b\n",
        'id\tgroup\n"b"\tsouth\n\na\tnorth\n',
    ],
    ids=["commas", "semicolons and a byte order mark", "tabs and quotes"],
)
def test_an_index_gives_images_their_groups(tmp_path: Path, text: str) -> None:
    index(tmp_path, text)
    assert [pair.group for pair in find_pairs(tmp_path).pairs] == ["north", "south"]


def test_an_index_groups_the_pages_of_a_stack_by_their_names(tmp_path: Path) -> None:
    for name in ("x-volume.tif", "x-labels.tif"):
        write(tmp_path / name, noise((2, 12, 9)))
    (tmp_path / "index.csv").write_text("id,group\nx-001,b\nx-000,a\n")
    assert [pair.group for pair in find_pairs(tmp_path).pairs] == ["a", "b"]


@pytest.mark.parametrize("text", ["", "id,kind\na,1\n", "whatever it is\n"])
def test_an_index_without_groups_says_nothing(tmp_path: Path, text: str) -> None:
    index(tmp_path, text)
    assert {pair.group for pair in find_pairs(tmp_path).pairs} == {""}


def test_an_index_may_name_a_file_that_has_no_partner_yet(tmp_path: Path) -> None:
    index(tmp_path, "id,group\na,1\nb,1\nlonely,2\n")
    write(tmp_path / "images" / "lonely.tif", noise())
    assert len(find_pairs(tmp_path).alone) == 1


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("id,group\na,1\nb,1\nc,2\n", "names images that are not here: c"),
        ("id,group\na,1\n", "gives no group to: b"),
        ("name,group\na,1\nb,1\n", "no column id"),
        ("id,group\na,1\nb,1\na,2\n", "gives a two values of group: 1 and 2"),
        ('id,group\na,1\nb,"1\n', r"index\.csv cannot be read"),
    ],
)
def test_an_index_that_does_not_fit_the_images_is_refused(
    tmp_path: Path, text: str, match: str
) -> None:
    index(tmp_path, text)
    with pytest.raises(DatasetError, match=match):
        find_pairs(tmp_path)


def test_an_index_that_is_no_text_is_refused(tmp_path: Path) -> None:
    index(tmp_path, "")
    (tmp_path / "index.csv").write_bytes(np.arange(256, dtype=np.uint8).tobytes())
    with pytest.raises(DatasetError, match=r"index\.csv cannot be read"):
        find_pairs(tmp_path)


def test_many_unknown_images_are_counted(tmp_path: Path) -> None:
    index(tmp_path, "id,group\na,1\nb,1\n" + "".join(f"x{n},1\n" for n in range(8)))
    with pytest.raises(DatasetError, match="x0, x1, x2, x3, x4, and 3 more"):
        find_pairs(tmp_path)


def test_the_real_nuclei_keep_the_groups_of_their_index() -> None:
    if not DATA.is_dir():
        pytest.skip(f"{DATA} is not here; it cannot be shipped with the project")
    rows = (DATA / "dsb2018" / "index.csv").read_text().splitlines()[1:]
    groups = {row.split(",")[0]: row.split(",")[2] for row in rows}
    found = find_pairs(DATA / "dsb2018").pairs
    assert {pair.name: pair.group for pair in found} == groups
