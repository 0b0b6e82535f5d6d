"""Annotated images: read from a folder or a stack, split by contiguous blocks.

Three forms are read:

- a folder with `images/` and `labels/` (PNG or TIFF, 8 or 16 bit, paired by stem);
- a stack pair, `*-volume.tif` and `*-labels.tif`, one page an image;
- a Cell Tracking Challenge folder: `01/t000.tif` and `01_GT/SEG/man_seg000.tif`.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from model.artefact import LabelKind
from model.errors import DatasetError
from training.labels import objects_of

LabelsAsked = Literal["auto", "semantic", "instance"]
SUFFIXES = (".png", ".tif", ".tiff")
MOST_CLASSES = 16
"""More distinct values than this, in one data set, are ids of objects."""
PLAIN_TIFFS = (tifffile.PHOTOMETRIC.MINISBLACK, tifffile.PHOTOMETRIC.RGB)
MASK_VALUE = 255
"""A mask drawn in black and white is one of two classes, whatever white is called."""


@dataclass(frozen=True, slots=True)
class AnnotatedImage:
    """An image and what was drawn on it."""

    name: str
    image: NDArray[Any]
    """(C, H, W) as stored."""
    semantic: NDArray[np.uint8]
    """(H, W) class ids."""
    objects: NDArray[np.int32]
    """(H, W) object ids, 0 outside of objects."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """Annotated images of one kind, in their natural order."""

    path: Path
    label_kind: LabelKind
    num_classes: int
    images: tuple[AnnotatedImage, ...]

    @property
    def in_channels(self) -> int:
        """Channels of the widest image: grey ones among colour ones are replicated."""
        return max(int(entry.image.shape[0]) for entry in self.images)

    def sha256(self) -> str:
        """Digest over the names, pixels and labels of all images."""
        digest = hashlib.sha256()
        for entry in self.images:
            for array in (entry.image, entry.objects, entry.semantic):
                digest.update(f"{entry.name} {array.dtype} {array.shape}\n".encode())
                digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()

    def split(
        self, blocks: int, block: int
    ) -> tuple[tuple[AnnotatedImage, ...], tuple[AnnotatedImage, ...]]:
        """Divide into images to train on and one contiguous block to validate on.

        Neighbours in a stack look alike, so a random split would validate on what was trained on.

        Args:
            blocks: Number of blocks; with fewer images than that, every image is a block.
            block: The one to validate on, from 0; the last one if there are not that many.

        Raises:
            DatasetError: if there are fewer than two images.
        """
        count = len(self.images)
        if count < 2:
            raise DatasetError(
                f"{self.path} holds {count} annotated image; one to train on and one to validate "
                "on are needed."
            )
        blocks = min(blocks, count)
        block = min(block, blocks - 1)
        start, stop = count * block // blocks, count * (block + 1) // blocks
        return self.images[:start] + self.images[stop:], self.images[start:stop]

    def named(self, names: Iterable[str]) -> tuple[AnnotatedImage, ...]:
        """Give the images of these names, in the order of the data set."""
        wanted = set(names)
        return tuple(entry for entry in self.images if entry.name in wanted)


def read_dataset(path: Path, labels_asked: LabelsAsked = "auto") -> Dataset:
    """Read all annotated images of a data set.

    Args:
        path: A folder in one of the three forms.
        labels_asked: What labels hold; `auto` tells it by their values.

    Raises:
        DatasetError: saying which file is missing, does not fit its partner, or cannot be read.
    """
    pairs = list(_pairs(path))
    if not pairs:
        raise DatasetError(
            f"{path} holds no annotated images. Wanted: images/ and labels/ with equal stems, "
            "or *-volume.tif and *-labels.tif, or 01/ and 01_GT/SEG/."
        )
    for name, image, labels in pairs:
        if image.shape[1:] != labels.shape:
            raise DatasetError(
                f"{path}: image {name} is {image.shape[1]}×{image.shape[2]} px, "
                f"its labels are {labels.shape[0]}×{labels.shape[1]} px."
            )
    if len(channels := {image.shape[0] for _, image, _ in pairs} - {1}) > 1:
        raise DatasetError(
            f"{path}: images have {sorted(channels)} channels; one number is wanted."
        )
    values = np.unique(np.concatenate([np.unique(labels) for _, _, labels in pairs]))
    if len(values) < 2:
        raise DatasetError(f"{path}: all labels have the one value {values[0]}; nothing to learn.")
    kind = labels_asked
    if kind == "auto":
        kind = _label_kind([labels for _, _, labels in pairs], values)
    if kind == "instance":
        return Dataset(path, kind, 2, tuple(_instances(*pair) for pair in pairs))
    images = tuple(_semantic(name, image, labels, values) for name, image, labels in pairs)
    return Dataset(path, kind, len(values), images)


def _pairs(path: Path) -> Iterator[tuple[str, NDArray[Any], NDArray[Any]]]:
    if not path.is_dir():
        raise DatasetError(f"{path} is no folder.")
    if (path / "images").is_dir() and (path / "labels").is_dir():
        yield from _folder_pairs(path)
    elif list(path.glob("*-volume.tif")):
        yield from _stack_pairs(path)
    else:
        yield from _challenge_pairs(path)


def _folder_pairs(path: Path) -> Iterator[tuple[str, NDArray[Any], NDArray[Any]]]:
    images, labels = _by_stem(path / "images"), _by_stem(path / "labels")
    if alone := sorted(images.keys() ^ labels.keys()):
        raise DatasetError(
            f"{path}: {len(alone)} file(s) have no partner of the same stem in the other folder: "
            f"{', '.join(alone[:5])}."
        )
    for stem in sorted(images, key=_natural):
        yield stem, _channels_first(_read(images[stem])), _read_labels(labels[stem])


def _stack_pairs(path: Path) -> Iterator[tuple[str, NDArray[Any], NDArray[Any]]]:
    for volume in sorted(path.glob("*-volume.tif")):
        stem = volume.name.removesuffix("-volume.tif")
        partner = volume.with_name(f"{stem}-labels.tif")
        if not partner.exists():
            raise DatasetError(f"{volume} has no partner {partner.name}.")
        images, labels = _read(volume), _read(partner)
        if images.ndim != 3 or images.shape != labels.shape:
            raise DatasetError(
                f"{volume} and {partner.name} must be stacks (pages, height, width) of one shape; "
                f"found {images.shape} and {labels.shape}."
            )
        for page, (image, label) in enumerate(zip(images, labels, strict=True)):
            yield f"{stem}-{page:03}", image[np.newaxis], label


def _challenge_pairs(path: Path) -> Iterator[tuple[str, NDArray[Any], NDArray[Any]]]:
    for labels in sorted(path.glob("*_GT/SEG/man_seg*.tif")):
        sequence = labels.parent.parent.name.removesuffix("_GT")
        number = labels.stem.removeprefix("man_seg")
        image = path / sequence / f"t{number}.tif"
        if not image.exists():
            raise DatasetError(f"{labels} has no partner {image}.")
        yield f"{sequence}-{number}", _channels_first(_read(image)), _read_labels(labels)


def _by_stem(folder: Path) -> dict[str, Path]:
    files = [file for file in folder.iterdir() if file.suffix.lower() in SUFFIXES]
    by_stem = {file.stem: file for file in files}
    if len(by_stem) < len(files):
        raise DatasetError(f"{folder} holds two files of one stem.")
    return by_stem


def _natural(stem: str) -> list[tuple[int, str]]:
    """Order `t9` before `t10`."""
    return [
        (int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", stem)
    ]


def _read(path: Path) -> NDArray[Any]:
    try:
        if path.suffix.lower() == ".png":
            return np.asarray(imagecodecs.png_decode(path.read_bytes()))
        with tifffile.TiffFile(path) as file:
            _require_plain(path, file.pages.first)
            return file.asarray()
    except DatasetError:
        raise
    except Exception as exc:  # the readers document no errors of their own
        raise DatasetError(f"{path} cannot be read as an image: {exc}") from exc


def _require_plain(path: Path, page: tifffile.TiffPage) -> None:
    """Refuse what the service turns, inverts or rearranges and this reader does not."""
    orientation = page.tags.valueof("Orientation", default=1)
    plain = page.photometric in PLAIN_TIFFS and page.planarconfig == 1 and orientation == 1
    if not plain:
        raise DatasetError(
            f"{path} is stored as photometric {page.photometric!s}, planar configuration "
            f"{page.planarconfig!s}, orientation {orientation}. Store it as grey (black is 0) or "
            "RGB, contiguous and upright."
        )


def _channels_first(pixels: NDArray[Any]) -> NDArray[Any]:
    """Give (C, H, W) of (H, W) or (H, W, samples); an alpha sample is dropped."""
    if pixels.ndim == 2:
        return pixels[np.newaxis]
    samples = pixels.shape[2]
    return np.moveaxis(pixels[:, :, : samples - 1 if samples in (2, 4) else samples], 2, 0)


def _read_labels(path: Path) -> NDArray[Any]:
    """Read (H, W) ids; in a PNG with a palette, as the service answers, they are its indices."""
    labels = _palette_indices(path) if path.suffix.lower() == ".png" else None
    labels = _read(path) if labels is None else labels
    if labels.ndim != 2 or not np.issubdtype(labels.dtype, np.integer):
        raise DatasetError(
            f"{path} must hold one integer a pixel; found {labels.shape} {labels.dtype}."
        )
    return labels


def _palette_indices(path: Path) -> NDArray[Any] | None:
    try:
        with Image.open(path, formats=["PNG"]) as file:
            return np.asarray(file) if file.mode == "P" else None
    except Exception as exc:  # the reader documents no errors of its own
        raise DatasetError(f"{path} cannot be read as an image: {exc}") from exc


def _label_kind(labels: Sequence[NDArray[Any]], values: NDArray[Any]) -> LabelKind:
    """Tell ids of objects from ids of classes.

    Few values over the whole data set are classes, unless each is one connected object in its
    image: a class is scattered, an object is not.
    """
    if values.tolist() in ([0, 1], [0, MASK_VALUE]):
        return "semantic"
    if len(values) > MOST_CLASSES:
        return "instance"
    pieces = [
        ndimage.label(entry == value)[1] for entry in labels for value in np.unique(entry) if value
    ]
    return "instance" if np.mean(pieces) < 2 else "semantic"


def _semantic(
    name: str, image: NDArray[Any], labels: NDArray[Any], values: NDArray[Any]
) -> AnnotatedImage:
    classes = np.searchsorted(values, labels).astype(np.uint8)
    return AnnotatedImage(name, image, classes, objects_of(classes))


def _instances(name: str, image: NDArray[Any], labels: NDArray[Any]) -> AnnotatedImage:
    """Separate touching objects by background: between them is what the network has to learn."""
    objects = labels.astype(np.int32)
    touching = np.zeros(objects.shape, bool)
    for axis in (0, 1):
        ahead = np.diff(objects, axis=axis) != 0
        pad = [(0, 1), (0, 0)] if axis == 0 else [(0, 0), (0, 1)]
        neighbour = np.roll(objects, -1, axis=axis)
        touching |= np.pad(ahead, pad) & (objects != 0) & (neighbour != 0)
    semantic = ((objects != 0) & ~touching).astype(np.uint8)
    return AnnotatedImage(name, image, semantic, np.where(semantic, objects, 0).astype(np.int32))
