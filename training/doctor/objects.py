"""What labels tell about objects and classes: their number, size, spacing and completeness."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from model.architecture import Architecture
from model.geometry import Geometry
from training.data.census import PERCENTILES, ObjectFacts, diameter
from training.doctor.finding import Finding, counted, few
from training.doctor.record import Record, Records

SPECK_AREA = 4
"""Objects of fewer px are slips of the pen."""
SPECK_SHARE = 0.05
"""Pieces below this part of their id are slips as well, larger ones may be objects."""
RARE_CLASS = 0.005
WIDE_RANGE = 10.0
"""Ratio of areas between images, 95th to 5th percentile of their medians."""
NARROW_GAP = 2.0
"""In px."""
FEWEST_IMAGES = 3
WHITE = 255
"""A mask drawn in black and white, in 8 bits."""


def examine_masks(records: Records) -> Iterator[Finding]:
    """Look for masks whose one value passes for the id of one object."""
    masks = [entry for entry in records.images if records.is_instance and _is_mask(entry)]
    yield from few(
        (
            Finding(
                "warning",
                entry.labels,
                f"is a mask, read as instance labels: its one value {entry.facts.objects.ids[0]} "
                f"makes one object of {counted(int(entry.facts.objects.parts[0]), 'piece')}; "
                "give each object its own id, or ask for --labels semantic.",
            )
            for entry in masks
        ),
        "masks read as instance labels as well.",
    )


def examine_pieces(records: Records) -> Iterator[Finding]:
    """Look for ids that stand in several places: they may be of several objects."""
    scattered = []
    for entry in _numbered(records):
        objects = entry.facts.objects
        apart = (objects.parts > 1) & ~_has_specks(objects)
        if apart.any():
            worst = int(np.argmax(np.where(apart, objects.second, 0)))
            scattered.append((int(apart.sum()), entry, worst))
    scattered.sort(key=lambda found: -found[0])
    yield from few(
        (
            Finding(
                "warning",
                entry.labels,
                f"{counted(count, 'id')} in several pieces, such as "
                f"{entry.facts.objects.ids[worst]} with {entry.facts.objects.second[worst]:,} px "
                "apart from the rest: where these are different objects, give each its own id.",
            )
            for count, entry, worst in scattered
        ),
        "with ids in several pieces as well.",
    )


def examine_specks(records: Records) -> Iterator[Finding]:
    """Count what is too small to be an object, by itself or as a piece of an id."""
    specks = {
        entry.labels: int(np.count_nonzero(_has_specks(entry.facts.objects)))
        for entry in records.images
    }
    if total := sum(specks.values()):
        worst = max(specks, key=specks.__getitem__)
        files = counted(sum(count > 0 for count in specks.values()), "file")
        text = f"{counted(specks[worst], 'speck')}, {total:,} over {files}"
        meant = f"areas of fewer than {SPECK_AREA} px"
        if records.is_instance:
            meant += f", or apart from an object and below {SPECK_SHARE:.0%} of it"
        yield Finding("warning", worst, f"{text}: {meant}; erase what is a slip of the pen.")


def examine_neighbours(records: Records) -> Iterator[Finding]:
    """Say what is done about objects that touch, and what is not about a narrow gap."""
    touching = sum(int(entry.facts.objects.touches.sum()) for entry in records.images)
    gap = records.census.median_gap
    if touching:
        yield Finding(
            "note",
            records.name,
            f"{touching:,} of {records.census.object_count:,} objects touch another: training "
            "draws a background of 1 px between them, so that they are learnt as separate.",
        )
    elif records.is_instance and gap is not None and gap < NARROW_GAP:
        yield Finding(
            "note",
            records.name,
            f"neighbouring objects lie {gap:.1f} px apart in the median: what is background "
            "between them decides whether they are separated; draw it with care.",
        )


def examine_emptiness(records: Records) -> Iterator[Finding]:
    """Look for labels on which nothing is drawn."""
    empty = [entry for entry in records.images if not entry.facts.class_pixels[1:].any()]
    yield from few((Finding("warning", entry.labels, _nothing(entry)) for entry in empty), "empty.")


def examine_classes(records: Records) -> Iterator[Finding]:
    """Look for classes that are hardly there."""
    values = ("background", "objects") if records.is_instance else records.dataset.values
    for value, share in zip(values, records.census.class_shares, strict=True):
        if share < RARE_CLASS:
            what = f"the {value} make up" if records.is_instance else f"the label {value} makes up"
            yield Finding(
                "note",
                records.name,
                f"{what} {share:.2%} of the pixels: class weights make up for it, more images "
                "that show it would do better.",
            )


def examine_scale(records: Records) -> Iterator[Finding]:
    """Compare the sizes of objects between images."""
    drawn = [entry for entry in _numbered(records) if len(entry.facts.objects.areas)]
    if not drawn:
        return
    medians = np.array([np.median(entry.facts.objects.areas) for entry in drawn])
    small, large = np.percentile(medians, PERCENTILES[::2])
    if large > WIDE_RANGE * small:
        yield Finding(
            "note",
            records.name,
            f"objects differ {large / small:.0f}-fold in area between images, "
            f"{diameter(small):.0f} against {diameter(large):.0f} px across: training zooms, but "
            "images brought to one scale do better.",
        )


def examine_extent(records: Records) -> Iterator[Finding]:
    """Look for objects that a network cannot see whole."""
    view = 2 * Geometry(Architecture().depth).halo + 1
    widths = {
        entry.labels: diameter(entry.facts.objects.areas)
        for entry in _numbered(records)
        if len(entry.facts.objects.areas)
    }
    over = sum(int(np.count_nonzero(found > view)) for found in widths.values())
    if over:
        worst = max(widths, key=lambda file: float(widths[file].max()))
        yield Finding(
            "note",
            worst,
            f"an object of {widths[worst].max():.0f} px across; {over:,} in all are wider than "
            f"the {view} px that a network of depth 4 sees around a pixel: shrink the images.",
        )


def examine_number(records: Records) -> Iterator[Finding]:
    """Say what few images mean for validation."""
    count = len(records.images)
    if count == 1:
        text = "a part of the one image is validated on: it says little about other images."
        yield Finding("note", records.name, text)
    elif count < FEWEST_IMAGES:
        text = f"one of {count} images is validated on: the scores are of that image alone."
        yield Finding("note", records.name, text)


def _is_mask(entry: Record) -> bool:
    objects = entry.facts.objects
    return len(objects.ids) == 1 and bool(objects.parts[0] > 1 or objects.ids[0] == WHITE)


def _nothing(entry: Record) -> str:
    if not entry.facts.class_pixels.any():
        return "every pixel is to be ignored: remove it, it teaches nothing."
    return "nothing is drawn on it: keep it if there is nothing to see, else annotate or remove it."


def _numbered(records: Records) -> list[Record]:
    """Give the images whose labels are ids of objects indeed."""
    return [entry for entry in records.images if records.is_instance and not _is_mask(entry)]


def _has_specks(objects: ObjectFacts) -> NDArray[np.bool_]:
    """Tell, for each object (K,), whether it is a speck or has one apart from it."""
    has_speck = (objects.parts > 1) & (objects.second < SPECK_SHARE * objects.areas)
    return has_speck | (objects.areas < SPECK_AREA)
