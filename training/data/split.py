"""What is trained on and what is validated on: whole groups apart, or parts of a single image.

Neighbours in a stack look alike, and so do crops of one picture: a random split would validate on
what was trained on.

    ┌─ images in their order, or one image along its longer edge ─┐
    │ fold 0     │ fold 1     │ fold 2     │ fold 3     │ fold 4  │
    └────────────┴────────────┴────────────┴────────────┴─────────┘
      training     training     validation   training     training
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import Self, overload

from model.artefact import LabelKind
from model.errors import DatasetError
from model.tiling import Region
from training.data.dataset import AnnotatedImage, Dataset, Shape
from training.data.labels import objects_of

MOST_NAMED = 5
"""Names that a message lists."""


@dataclass(frozen=True, slots=True)
class Regions(Sequence[AnnotatedImage]):
    """Regions of the one image of a data set, each an annotated image; read when asked for.

    The image is read whole and cut; what is given holds no pixel from outside of its region.
    """

    source: Dataset
    """The data set of the one image."""
    regions: tuple[Region, ...]

    @property
    def label_kind(self) -> LabelKind:
        """Whether the annotation of the image has ids of classes or of objects."""
        return self.source.label_kind

    @property
    def num_classes(self) -> int:
        """Number of the classes of the image, whichever of them a region holds."""
        return self.source.num_classes

    @property
    def names(self) -> tuple[str, ...]:
        """Name of the image with the rows and columns of each region: `cell[0:512,0:384]`."""
        return tuple(
            f"{self.source.names[0]}[{region.top}:{region.bottom},{region.left}:{region.right}]"
            for region in self.regions
        )

    @property
    def groups(self) -> tuple[str, ...]:
        """The group of each region: that of the image."""
        return self.source.groups * len(self)

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """(C, H, W) of each region."""
        channels = self.source.shapes[0][0]
        return tuple((channels, *region.shape) for region in self.regions)

    def __len__(self) -> int:
        return len(self.regions)

    @overload
    def __getitem__(self, index: int) -> AnnotatedImage: ...

    @overload
    def __getitem__(self, index: slice) -> Self: ...

    def __getitem__(self, index: int | slice) -> "AnnotatedImage | Self":
        """Read one region; or give those of a slice, unread.

        Raises:
            DatasetError: if the image or its labels cannot be read.
        """
        if isinstance(index, slice):
            return replace(self, regions=self.regions[index])
        return self._cut(self.source[0], index)

    def __iter__(self) -> Iterator[AnnotatedImage]:
        """Give all regions, reading the image once."""
        whole = self.source[0]
        return (self._cut(whole, index) for index in range(len(self)))

    def _cut(self, whole: AnnotatedImage, index: int) -> AnnotatedImage:
        region = self.regions[index]
        rows, columns = slice(region.top, region.bottom), slice(region.left, region.right)
        semantic = whole.semantic[rows, columns].copy()
        by_id = self.label_kind == "instance"
        return AnnotatedImage(
            self.names[index],
            whole.image[:, rows, columns].copy(),
            semantic,
            # A component may reach around a neighbouring region, and fall into pieces without it.
            whole.objects[rows, columns].copy() if by_id else objects_of(semantic),
            None if whole.ignored is None else whole.ignored[rows, columns].copy(),
            whole.group,
        )


def count_folds(dataset: Dataset, folds: int) -> int:
    """Give the number of folds that there can be: at most one a group, or one a pixel.

    Raises:
        DatasetError: if that is fewer than two, saying what to do.
    """
    if folds < 2:
        raise DatasetError(f"{folds} fold(s) leave nothing to train on; at least 2 are needed.")
    if not len(dataset):
        raise DatasetError(f"{dataset.path} holds no image to split.")
    groups = len(_groups(dataset))
    if len(dataset) > 1 and groups == 1:
        raise DatasetError(
            f"All {len(dataset)} images of {dataset.path} are of the one group "
            f"{dataset.groups[0]!r}, which is never split. Give the column group of index.csv a "
            "second group, or remove the column."
        )
    return min(folds, groups if len(dataset) > 1 else max(dataset.shapes[0][1:]))


def split(
    dataset: Dataset, folds: int, fold: int, drawn: Collection[str] | None = None
) -> tuple[Dataset | Regions, Dataset | Regions]:
    """Divide a data set as `hold_out` does, into two parts that both have an object.

    Args:
        dataset: What is to be divided.
        folds: Number of folds.
        fold: The one to validate on.
        drawn: Names of the images that have an object; None reads each part up to its first.

    Raises:
        DatasetError: if there is nothing to train on, or a part has no object.
    """
    training, validation = hold_out(dataset, folds, fold)
    for part, purpose in ((training, "train"), (validation, "validate")):
        if not _has_object(part, drawn):
            count = count_folds(dataset, folds)
            held = "one image" if len(dataset) == 1 else f"{len(dataset)} images"
            raise DatasetError(
                f"{dataset.path} holds {held}, and fold {min(fold, count - 1)} of {count} leaves "
                f"no object to {purpose} on: there is none in {_listed(part.names)}. Choose "
                "another fold or fewer folds, or annotate more images."
            )
    return training, validation


def hold_out(
    dataset: Dataset, folds: int, fold: int
) -> tuple[Dataset | Regions, Dataset | Regions]:
    """Divide a data set into images to train on and one fold to validate on.

    Folds are contiguous blocks of whole groups, in the order of each group's first image, as equal
    in their numbers of images as groups allow. An image without a group is a group by itself. Every
    image is validated on in just one of the `count_folds` folds.

    A single image is cut into bands across its longer edge: one to validate on; what lies to either
    side of it is trained on as an image of its own. This is safe for the halo: around a region, a
    network reads the mirror image of that region. So no pixel that is validated is read in
    training, neither as label nor as context, nor the other way round.

    Args:
        dataset: What is to be divided.
        folds: Number of folds; `count_folds` says how many of them there are.
        fold: The one to validate on, from 0; the last one if there are not that many.

    Returns:
        What to train on and what to validate on, both unread.

    Raises:
        DatasetError: if there is nothing to train on.
    """
    if not 0 <= fold < folds:
        raise DatasetError(f"There is no fold {fold} of {folds}; they count from 0.")
    count = count_folds(dataset, folds)
    fold = min(fold, count - 1)
    if len(dataset) == 1:
        beside, band = bands(*dataset.shapes[0][1:], count, fold)
        return Regions(dataset, beside), Regions(dataset, (band,))
    groups = _groups(dataset)
    start, stop = _blocks([len(group) for group in groups], count)[fold]
    held = {index for group in groups[start:stop] for index in group}
    rest = (index for index in range(len(dataset)) if index not in held)
    return dataset.subset(rest), dataset.subset(sorted(held))


def bands(height: int, width: int, folds: int, fold: int) -> tuple[tuple[Region, ...], Region]:
    """Cut an image of a size in px across its longer edge.

    Returns:
        The one or two regions beside the fold's band, and the band. They cover the image, and no
        two of them share a pixel.
    """
    edge = max(height, width)
    start, stop = edge * fold // folds, edge * (fold + 1) // folds
    spans = [(0, start), (start, stop), (stop, edge)]
    left, band, right = (
        Region(0, low, height, high) if width >= height else Region(low, 0, high, width)
        for low, high in spans
    )
    return tuple(region for region in (left, right) if all(region.shape)), band


def _has_object(part: Dataset | Regions, drawn: Collection[str] | None) -> bool:
    if drawn is not None and isinstance(part, Dataset):
        return any(name in drawn for name in part.names)
    return any(entry.objects.any() for entry in part)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return ", ".join(names[:MOST_NAMED]) + more


def _groups(dataset: Dataset) -> list[list[int]]:
    """Give the indices of each group's images, in the order of its first one."""
    found: dict[str | int, list[int]] = {}
    for index, group in enumerate(dataset.groups):
        found.setdefault(group or index, []).append(index)
    return list(found.values())


def _blocks(sizes: Sequence[int], count: int) -> list[tuple[int, int]]:
    """Divide groups of these sizes into contiguous blocks, none empty, as even as they may be.

    Returns:
        The first group of each block, and the first one after it.
    """
    until = [0, *accumulate(sizes)]
    cuts = [0]
    for block in range(1, count):
        possible = range(cuts[-1] + 1, len(sizes) - (count - block) + 1)
        target = until[-1] * block  # all counted `count`-fold, to stay with integers
        cuts.append(min(possible, key=lambda cut: abs(until[cut] * count - target)))
    return list(pairwise([*cuts, len(sizes)]))
