"""Annotated images, read from their files one at a time."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self, overload

import numpy as np
from numpy.typing import NDArray

from model.artefact import LabelKind
from model.errors import DatasetError
from training.data.forms import Pair, Pairs, find_pairs
from training.data.interpolation import require_uninterpolated
from training.data.labels import objects_of
from training.data.pixels import read_image, read_labels, read_shape
from training.data.verdict import LabelsAsked, Survey, Verdict

MOST_SEMANTIC = 256
"""Class ids are held in 8 bits."""
MOST_NAMED = 16
"""Values that a message lists."""

Shape = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class AnnotatedImage:
    """An image and what was drawn on it."""

    name: str
    image: NDArray[Any]
    """(C, H, W) as stored."""
    semantic: NDArray[np.uint8]
    """(H, W) class ids; of instance labels, 1 where there is an object."""
    objects: NDArray[np.int32]
    """(H, W) object ids, 0 outside of objects; objects that touch in the labels touch here."""
    ignored: NDArray[np.bool_] | None = None
    """(H, W) True where the labels say nothing; there, `semantic` and `objects` are 0."""
    group: str = ""
    """Images of one group are never split between training and validation."""


@dataclass(frozen=True, slots=True)
class Dataset(Sequence[AnnotatedImage]):
    """Annotated images of one kind, in their natural order.

    An image is read when it is asked for and is not kept: the set may be larger than memory.
    """

    path: Path
    label_kind: LabelKind
    num_classes: int
    in_channels: int
    """Channels of the widest image: grey ones among colour ones are replicated."""
    verdict: str
    """One sentence: why the labels were taken for classes or objects."""
    pairs: tuple[Pair, ...]
    shapes: tuple[Shape, ...]
    """(C, H, W) of each image."""
    values: tuple[int, ...]
    """Values that label files may hold, in order; of semantic labels, the place of each is its
    class."""
    ignore: int | None = None
    """Value in the label files of pixels that the labels say nothing about."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the images."""
        return tuple(pair.name for pair in self.pairs)

    @property
    def groups(self) -> tuple[str, ...]:
        """The group of each image; "" where it has none."""
        return tuple(pair.group for pair in self.pairs)

    def __len__(self) -> int:
        return len(self.pairs)

    @overload
    def __getitem__(self, index: int) -> AnnotatedImage: ...

    @overload
    def __getitem__(self, index: slice) -> Self: ...

    def __getitem__(self, index: int | slice) -> "AnnotatedImage | Self":
        """Read one image; or give those of a slice, unread.

        Raises:
            DatasetError: if the files cannot be read, or are no longer what they were.
        """
        if isinstance(index, slice):
            return self.subset(range(len(self))[index])
        pair = self.pairs[index]
        image, labels = read_image(pair), read_labels(pair)
        if image.shape != self.shapes[index] or labels.shape != image.shape[1:]:
            raise DatasetError(f"{pair.image} or its labels changed while they were in use.")
        ignored = None if self.ignore is None else labels == self.ignore
        if self.label_kind == "instance":
            objects = _without(labels, ignored).astype(np.int32)
            semantic = (objects != 0).astype(np.uint8)
        else:
            semantic = self._classes(pair, labels, ignored)
            objects = objects_of(semantic)
        return AnnotatedImage(pair.name, image, semantic, objects, ignored, pair.group)

    def sha256(self) -> str:
        """Digest over the names, pixels and labels of all images, each read once."""
        total = hashlib.sha256()
        for entry in self:
            drawn: list[NDArray[Any]] = [entry.semantic, entry.objects]
            drawn += [] if entry.ignored is None else [entry.ignored]
            total.update(f"{entry.name} {digest(entry)} {_sha256(*drawn)}\n".encode())
        return total.hexdigest()

    def subset(self, indices: Iterable[int]) -> Self:
        """Give some of the images, unread; what was found out about the whole set stays."""
        chosen = list(indices)
        return replace(
            self,
            pairs=tuple(self.pairs[index] for index in chosen),
            shapes=tuple(self.shapes[index] for index in chosen),
        )

    def named(self, names: Iterable[str]) -> Self:
        """Give the images of these names, unread, in the order of the data set."""
        wanted = set(names)
        return self.subset(index for index, name in enumerate(self.names) if name in wanted)

    def _classes(
        self, pair: Pair, labels: NDArray[Any], ignored: NDArray[np.bool_] | None
    ) -> NDArray[np.uint8]:
        values = np.array(self.values)
        classes = np.searchsorted(values[:-1], labels)  # never beyond the last class
        is_known = values[classes] == labels
        if not (is_known if ignored is None else is_known | ignored).all():
            raise DatasetError(f"{pair.labels} changed while it was in use.")
        return _without(classes, ignored).astype(np.uint8)


def read_dataset(
    path: Path,
    labels: LabelsAsked = "auto",
    ignore: int | None = None,
    known: tuple[int, ...] = (),
) -> Dataset:
    """Find the annotated images of a data set, and what their labels hold.

    Labels are read once, one after the other; of images, the headers alone.

    Args:
        path: A folder in one of the three forms of `training.data.forms`.
        labels: What labels hold; `auto` tells it by their values.
        ignore: Value in the label files of pixels that are neither class nor object.
        known: Values by class of the labels that a model was trained on. Semantic labels with no
            others have the same classes, whichever of them are there. As many values, some of them
            others, have their classes by their order, unless a known one were to change its class.

    Raises:
        DatasetError: saying which file is missing, does not fit its partner, cannot be read, or is
            a mask that was interpolated; or which values have no class among the known ones.
    """
    found = find_pairs(path)
    _require_pairs(found)
    survey = Survey(ignore, found.holds_ids)
    shapes = tuple(_survey(pair, survey) for pair in found.pairs)
    _require_values(path, survey, 1 if known else 2)
    verdict = survey.verdict(labels)
    values = tuple(sorted(survey.values))
    if known and verdict.kind == "semantic":
        values = _classed(path, values, known)
    return Dataset(
        path=path,
        label_kind=verdict.kind,
        num_classes=_count_classes(path, verdict, values, ignore),
        in_channels=_count_channels(path, shapes),
        verdict=verdict.reason,
        pairs=found.pairs,
        shapes=shapes,
        values=values,
        ignore=ignore,
    )


def digest(image: AnnotatedImage) -> str:
    """Digest of an image's pixels alone: the same under any name, in any folder and format."""
    return _sha256(image.image)


def _require_pairs(found: Pairs) -> None:
    faults = {
        "are neither PNG nor TIFF and have to be converted": found.unread,
        "have no partner": found.alone,
    }
    for fault, files in faults.items():
        if files:
            names = ", ".join(str(file.relative_to(found.path)) for file in files[:5])
            raise DatasetError(f"{found.path}: {len(files)} file(s) {fault}: {names}.")


def _survey(pair: Pair, survey: Survey) -> Shape:
    """Read what has to be known of an image before any is used."""
    shape, labels = read_shape(pair), read_labels(pair)
    if shape[1:] != labels.shape:
        raise DatasetError(
            f"{pair.image}: image {pair.name} is {shape[1]}×{shape[2]} px, "
            f"its labels are {labels.shape[0]}×{labels.shape[1]} px."
        )
    require_uninterpolated(pair, labels)
    survey.add(labels)
    if min(survey.values, default=0) < 0:
        raise DatasetError(
            f"{pair.labels} holds the label {min(survey.values)}; labels are 0 or more, but for "
            "one value to be ignored."
        )
    return shape


def _require_values(path: Path, survey: Survey, least: int) -> None:
    if len(survey.values) < least:
        rest = "" if survey.ignore is None else f" apart from the ignored {survey.ignore}"
        found = f"the one value {min(survey.values)}" if survey.values else "no value"
        raise DatasetError(f"{path}: all labels have {found}{rest}; nothing to learn.")


def _count_channels(path: Path, shapes: Sequence[Shape]) -> int:
    channels = {shape[0] for shape in shapes}
    if len(channels - {1}) > 1:
        raise DatasetError(
            f"{path}: images have {sorted(channels - {1})} channels; one number is wanted."
        )
    return max(channels)


def _classed(path: Path, values: tuple[int, ...], known: tuple[int, ...]) -> tuple[int, ...]:
    """Give the value of every class, known or by order."""
    others = [value for value in values if value not in known]
    if not others:
        return known
    if len(values) == len(known) and all(
        own == value or own not in known for own, value in zip(values, known, strict=True)
    ):
        return values
    raise DatasetError(
        f"{path}: the labels hold {_listed(others)}, which the model was not trained on; it knows "
        f"{_listed(known)}. If a value marks pixels that do not count, say --ignore {others[-1]}."
    )


def _listed(values: Sequence[int]) -> str:
    more = f" and {len(values) - MOST_NAMED} more" if len(values) > MOST_NAMED else ""
    return f"the value(s) {', '.join(map(str, values[:MOST_NAMED]))}{more}"


def _count_classes(
    path: Path, verdict: Verdict, values: tuple[int, ...], ignore: int | None
) -> int:
    if verdict.kind == "instance":
        if ignore == 0:
            raise DatasetError(
                f"{path}: in labels of objects 0 is the background, which cannot be ignored."
            )
        return 2
    count = len(values)
    if count > MOST_SEMANTIC:
        raise DatasetError(f"{path}: {count} classes; at most {MOST_SEMANTIC} are told apart.")
    return count


def _without(labels: NDArray[Any], ignored: NDArray[np.bool_] | None) -> NDArray[Any]:
    return labels if ignored is None else np.where(ignored, 0, labels)


def _sha256(*arrays: NDArray[Any]) -> str:
    """Digest of arrays' types, shapes and values, on a machine of any byte order."""
    total = hashlib.sha256()
    for array in arrays:
        total.update(f"{array.dtype.name} {array.shape}\n".encode())
        total.update(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).data)
    return total.hexdigest()
