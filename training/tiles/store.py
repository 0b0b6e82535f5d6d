"""Training images on disk, mapped into memory: what a set may exceed memory by.

    AnnotatedImage ───write───> pixels   (C, H, W) as annotated     ┐
                                ids      (H, W) −1 where ignored    ├ one behind the other, all
                                borders  (H, W) of the weight map   ┘ images in the file `arrays`

A tile reads its window alone, so the operating system keeps in memory what is read often. One file
is mapped, not one an array: each mapping takes a file handle, and a process has about a thousand.
"""

import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from model.architecture import Architecture
from model.errors import TrainingError
from model.intensity import IntensityRule, Scale, match_channels
from training.data.dataset import AnnotatedImage
from training.plan import Plan
from training.tiles.weight_map import border_term, class_weights

IGNORED = -1
LARGEST_ID = 1 << 24
"""Tiles read ids as float32, which holds whole numbers up to this one."""
ALIGNMENT = 64
"""Bytes, so that any type of pixel lies on a multiple of its size."""
MOST_CENTRES = 1024
"""Objects of an image and class that tiles are centred on; of more, these many are drawn once."""


@dataclass(frozen=True, slots=True)
class StoredImage:
    """An image, ready to cut tiles from."""

    pixels: NDArray[Any]
    """(C, H, W) as annotated, or grey."""
    ids: NDArray[np.int32]
    """(H, W) object ids, 0 outside of objects, −1 where the annotation is to be ignored. As
    annotated; counted anew from 1 where they are too sparse for a table of all ids."""
    borders: NDArray[np.float16]
    """(H, W) border term of the weight map."""
    classes: NDArray[np.uint8]
    """(ids,) the class of every id; that of 0 is 0."""
    centres: tuple[NDArray[np.float32], ...]
    """For each class that has objects (n, 2) row and column of one pixel of every one, in px."""
    scale: Scale
    """Measured over the whole image."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width, in px."""
        return int(self.ids.shape[0]), int(self.ids.shape[1])


@dataclass(frozen=True, slots=True)
class Store:
    """The training images of a run."""

    images: tuple[StoredImage, ...]
    channels: int
    """That the network reads; a grey image is replicated to them."""
    class_weights: NDArray[np.float32]
    """(K,) weights of the classes."""


def prepare(
    folder: Path, images: Sequence[AnnotatedImage], architecture: Architecture, plan: Plan
) -> Store:
    """Write training images into a folder, and map them: `write`, then `Layout.mapped`.

    Raises:
        TrainingError: if there is no room for them.
    """
    return write(folder, images, architecture, plan).mapped(folder)


def write(
    folder: Path, images: Sequence[AnnotatedImage], architecture: Architecture, plan: Plan
) -> "Layout":
    """Write training images into a folder, one after the other.

    Args:
        folder: Made anew.
        images: Annotated images; one at a time is in memory.
        architecture: Says how many channels the network reads, and how many classes there are.
        plan: Intensity rule and border weights.

    Raises:
        TrainingError: if there is no room for them.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    counts = np.zeros(architecture.num_classes, np.int64)
    drafts = []
    with (folder / "arrays").open("wb") as file:
        # A loop over the images themselves would hold one while it reads the next.
        for number in range(len(images)):
            draft, found = _write(file, images[number], architecture, plan)
            drafts.append(draft)
            counts += found
    return Layout(tuple(drafts), architecture.in_channels, class_weights(counts))


class _Place(NamedTuple):
    """Where an array lies in the file."""

    start: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    def mapped(self, file: NDArray[np.uint8]) -> NDArray[Any]:
        stop = self.start + self.dtype.itemsize * math.prod(self.shape)
        array: NDArray[Any] = file[self.start : stop].view(self.dtype).reshape(self.shape)
        return array


@dataclass(frozen=True, slots=True)
class _Draft:
    """A stored image before its file is mapped."""

    pixels: _Place
    ids: _Place
    borders: _Place
    classes: NDArray[np.uint8]
    centres: tuple[NDArray[np.float32], ...]
    scale: Scale

    def mapped(self, file: NDArray[np.uint8]) -> StoredImage:
        pixels, ids, borders = (
            place.mapped(file) for place in (self.pixels, self.ids, self.borders)
        )
        return StoredImage(pixels, ids, borders, self.classes, self.centres, self.scale)


@dataclass(frozen=True, slots=True)
class Layout:
    """All of a store but its file: small enough to be sent to other processes."""

    drafts: tuple[_Draft, ...]
    channels: int
    """That the network reads."""
    class_weights: NDArray[np.float32]
    """(K,) weights of the classes."""

    def mapped(self, folder: Path) -> Store:
        """Map the file that lies in a folder; once it is, the file may be removed."""
        file = np.memmap(folder / "arrays", np.uint8, "r")
        images = tuple(draft.mapped(file) for draft in self.drafts)
        return Store(images, self.channels, self.class_weights)


def _write(
    file: BinaryIO, entry: AnnotatedImage, architecture: Architecture, plan: Plan
) -> tuple[_Draft, NDArray[np.int64]]:
    """Write one image; give its draft, and the pixels (K,) of every class."""
    channels = architecture.in_channels
    pixels = entry.image if entry.image.shape[0] == 1 else match_channels(entry.image, channels)
    objects = _dense(entry.objects)
    ids = objects if entry.ignored is None else np.where(entry.ignored, IGNORED, objects)
    term = border_term(objects, w0=plan.border_weight, sigma=plan.border_sigma)
    classes = np.zeros(int(objects.max(initial=0)) + 1, np.uint8)
    classes[objects] = entry.semantic
    classes[0] = 0
    draft = _Draft(
        _append(file, pixels),
        _append(file, ids.astype(np.int32)),
        _append(file, term.astype(np.float16)),
        classes,
        _centres(objects, classes),
        measure(entry.image, channels, plan.intensity),
    )
    valid = entry.semantic if entry.ignored is None else entry.semantic[~entry.ignored]
    return draft, np.bincount(valid.ravel(), minlength=architecture.num_classes)


def _dense(objects: NDArray[np.int32]) -> NDArray[np.int32]:
    """Count objects (H, W) from 1, in the order of their ids, where these are sparse."""
    if objects.max(initial=0) <= min(objects.size, LARGEST_ID):
        return objects
    values, places = np.unique(objects, return_inverse=True)
    numbers: NDArray[np.int32] = places.reshape(objects.shape).astype(np.int32)
    return numbers + np.int32(values[0] != 0)


def _append(file: BinaryIO, array: NDArray[Any]) -> _Place:
    """Write an array at the end of a file.

    Raises:
        TrainingError: if there is no room.
    """
    try:
        file.write(bytes(-file.tell() % ALIGNMENT))
        start = file.tell()
        file.write(np.ascontiguousarray(array).data)
    except OSError as exc:
        raise TrainingError(
            f"{file.name} cannot be written: {exc.strerror}. It holds the training images as they "
            "are in memory; make room, or name another --out."
        ) from exc
    return _Place(start, array.dtype, array.shape)


def measure(image: NDArray[Any], channels: int, rule: IntensityRule) -> Scale:
    """Measure the intensity scale of a whole image (C, H, W), as serving does."""
    return rule.measure(match_channels(image, channels))


def _centres(
    objects: NDArray[np.int32], classes: NDArray[np.uint8]
) -> tuple[NDArray[np.float32], ...]:
    """Choose one pixel of every object: of those in the middle row of its box, the middle one."""
    found: dict[int, list[tuple[float, float]]] = {}
    for label, box in enumerate(ndimage.find_objects(objects), 1):
        if box:
            found.setdefault(int(classes[label]), []).append(_middle(objects, label, box))
    return tuple(_some(np.array(found[each], np.float32)) for each in sorted(found))


def _some(centres: NDArray[np.float32]) -> NDArray[np.float32]:
    """Give all, or as many as are kept: the same ones each time."""
    if len(centres) <= MOST_CENTRES:
        return centres
    return np.random.default_rng(0).choice(centres, MOST_CENTRES, replace=False)


def _middle(objects: NDArray[np.int32], label: int, box: tuple[slice, ...]) -> tuple[float, float]:
    rows, columns = np.nonzero(objects[box] == label)
    middle = len(rows) // 2
    return float(box[0].start + rows[middle]), float(box[1].start + columns[middle])
