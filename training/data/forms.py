"""The forms that annotated images come in, told apart by what lies in the folder.

- A folder with `images/` and `labels/`: PNG or TIFF, paired by stem.
- A stack pair, `*-volume.tif` and `*-labels.tif`: one page an image.
- A Cell Tracking Challenge folder: `01/t000.tif` and `01_GT/SEG/man_seg000.tif`.

In each of them an `index.csv` may say which images belong together: its column `group`, for the
image that the column `id` names.
"""

import csv
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import tifffile

from model.errors import DatasetError

SUFFIXES = (".png", ".tif", ".tiff")
PICTURES = (".bmp", ".gif", ".jp2", ".jpeg", ".jpg", ".npy", ".pgm", ".ppm", ".webp")
"""Suffixes of files that are meant as images or labels, but are not read."""
VOLUME, LABELS = "-volume.tif", "-labels.tif"
INDEX = "index.csv"
DELIMITERS = ",;\t"


@dataclass(frozen=True, slots=True)
class Pair:
    """Where an image and its labels are."""

    name: str
    image: Path
    labels: Path
    page: int | None = None
    """The page of both files, from 0; None where a file holds one image."""
    group: str = ""
    """Images of one group are never split between training and validation; "" is no group."""


@dataclass(frozen=True, slots=True)
class Pairs:
    """All that a folder holds, in its natural order."""

    path: Path
    pairs: tuple[Pair, ...]
    alone: tuple[Path, ...]
    """Files without a partner."""
    unread: tuple[Path, ...] = ()
    """Files that are meant as images or labels, but are neither PNG nor TIFF."""
    holds_ids: bool = False
    """Whether labels of this form are ids of objects whatever they look like."""


def find_pairs(path: Path) -> Pairs:
    """Find the images of a folder and the labels of each, without reading pixels.

    Raises:
        DatasetError: if the folder is of no known form, lacks a part of its form, or has an
            `index.csv` that does not fit it. Files without a partner, and those that are neither
            PNG nor TIFF, are reported, not refused.
    """
    if not path.is_dir():
        raise DatasetError(f"{path} is no folder.")
    parts = [(path / part).is_dir() for part in ("images", "labels")]
    if not all(parts) and any(path.glob(f"*{VOLUME}")) | any(path.glob(f"*{LABELS}")):
        found = _stacks(path)
    else:
        found = _folder(path) if any(parts) else _challenge(path)
    if not (found.pairs or found.alone or found.unread):
        raise DatasetError(
            f"{path} holds no annotated images. Wanted: images/ and labels/ with PNG or TIFF of "
            f"equal stems, or *{VOLUME} and *{LABELS}, or 01/ and 01_GT/SEG/."
        )
    return _grouped(found)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Name the file in whatever a reader of files raises.

    Raises:
        DatasetError: for every error but a DatasetError, which passes as it is.
    """
    try:
        yield
    except DatasetError:
        raise
    except Exception as exc:  # the readers document no errors of their own
        raise DatasetError(f"{path} cannot be read: {exc}") from exc


def read_column(index: Path, column: str) -> dict[str, str] | None:
    """Read a column of an index by the id of the image; None if there is no such column.

    Raises:
        DatasetError: if the index cannot be read, has no ids, or gives an image two values.
    """
    wanted = column.lower()
    with reading(index), index.open(newline="", encoding="utf-8-sig") as file:
        header = file.readline()
        delimiter = max(DELIMITERS, key=header.count)
        columns = [name.strip().lower() for name in next(csv.reader([header], delimiter=delimiter))]
        if wanted not in columns:
            return None
        if "id" not in columns:
            raise DatasetError(
                f"{index} has a column {column}, but no column id with the names of the images."
            )
        values: dict[str, str] = {}
        for row in csv.DictReader(file, columns, delimiter=delimiter, strict=True):
            name, value = (row["id"] or "").strip(), (row[wanted] or "").strip()
            if values.setdefault(name, value) != value:
                raise DatasetError(
                    f"{index} gives {name} two values of {column}: {values[name]} and {value}."
                )
        return values


def count_pages(file: tifffile.TiffFile) -> int:
    """Count the pages of a TIFF, also where ImageJ describes the first of a large stack alone."""
    series = file.series[0]
    if len(file.pages) == 1 and series.ndim > file.pages.first.ndim:
        return int(series.shape[0])
    return len(file.pages)


def _folder(path: Path) -> Pairs:
    for part in ("images", "labels"):
        if not (path / part).is_dir():
            raise DatasetError(f"{path} lacks the folder {part}/ beside the one that it has.")
    folders = _visible(path / "images"), _visible(path / "labels")
    images, labels = map(_by_stem, folders)
    stems = sorted(images.keys() & labels.keys(), key=_natural)
    pairs = tuple(Pair(stem, images[stem], labels[stem]) for stem in stems)
    unread = _in_order(_unread(*folders) + _unread(*folders[::-1]))
    told = {*stems, *(file.stem for file in unread)}
    lonely = [files[stem] for files in (images, labels) for stem in files.keys() - told]
    return Pairs(path, pairs, _in_order(lonely), unread)


def _stacks(path: Path) -> Pairs:
    volumes = {file.name.removesuffix(VOLUME): file for file in path.glob(f"*{VOLUME}")}
    labels = {file.name.removesuffix(LABELS): file for file in path.glob(f"*{LABELS}")}
    pairs = []
    for stem in sorted(volumes.keys() & labels.keys(), key=_natural):
        pages, partners = _pages_of(volumes[stem]), _pages_of(labels[stem])
        if pages != partners:
            raise DatasetError(
                f"{volumes[stem]} has {pages} page(s), {labels[stem].name} has {partners}: each "
                "page of the one belongs to the same page of the other."
            )
        pairs += [
            Pair(f"{stem}-{page:03}", volumes[stem], labels[stem], page) for page in range(pages)
        ]
    lonely = [(volumes.get(stem) or labels[stem]) for stem in volumes.keys() ^ labels.keys()]
    return Pairs(path, tuple(pairs), _in_order(lonely))


def _challenge(path: Path) -> Pairs:
    pairs, lonely = [], []
    for labels in _in_order(path.glob("*_GT/SEG/man_seg*.tif")):
        sequence = labels.parent.parent.name.removesuffix("_GT")
        number = labels.stem.removeprefix("man_seg")
        image = path / sequence / f"t{number}.tif"
        if image.is_file():
            pairs.append(Pair(f"{sequence}-{number}", image, labels))
        else:
            lonely.append(labels)
    return Pairs(path, tuple(pairs), tuple(lonely), holds_ids=True)


def _visible(folder: Path) -> list[Path]:
    return [file for file in folder.iterdir() if not file.name.startswith(".")]


def _by_stem(files: list[Path]) -> dict[str, Path]:
    by_stem: dict[str, Path] = {}
    for file in files:
        if file.suffix.lower() not in SUFFIXES:
            continue
        if (other := by_stem.setdefault(file.stem, file)) is not file:
            both = " and ".join(sorted((other.name, file.name)))
            raise DatasetError(f"{file.parent} holds two files of one stem: {both}.")
    return by_stem


def _unread(files: list[Path], partners: list[Path]) -> list[Path]:
    """Give the files that stand for an image or labels by their suffix, or by their partner.

    A preview or notes beside a file that is read, and of its stem, stand for nothing.
    """
    read = {file.stem for file in files if file.suffix.lower() in SUFFIXES}
    wanted = {file.stem for file in partners if file.suffix.lower() in SUFFIXES + PICTURES}
    return [
        file
        for file in files
        if file.stem not in read and (file.suffix.lower() in PICTURES or file.stem in wanted)
    ]


def _in_order(files: Iterable[Path]) -> tuple[Path, ...]:
    return tuple(sorted(files, key=lambda file: _natural(str(file))))


def _natural(text: str) -> list[tuple[int, str]]:
    """Order `t9` before `t10`."""
    return [
        (int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", text)
    ]


def _pages_of(path: Path) -> int:
    with reading(path), tifffile.TiffFile(path) as file:
        return count_pages(file)


def _grouped(found: Pairs) -> Pairs:
    """Give each pair the group that the index names, if there is an index of groups."""
    index = found.path / INDEX
    groups = read_column(index, "group") if index.is_file() else None
    if groups is None:
        return found
    names = {pair.name for pair in found.pairs}
    others = {file.stem for file in found.alone + found.unread}
    if unknown := sorted(groups.keys() - names - others):
        raise DatasetError(f"{index} names images that are not here: {_some(unknown)}.")
    if missing := sorted(names - groups.keys()):
        raise DatasetError(f"{index} gives no group to: {_some(missing)}.")
    pairs = tuple(replace(pair, group=groups[pair.name]) for pair in found.pairs)
    return replace(found, pairs=pairs)


def _some(names: list[str], most: int = 5) -> str:
    more = [f"and {len(names) - most} more"] if len(names) > most else []
    return ", ".join(names[:most] + more)
