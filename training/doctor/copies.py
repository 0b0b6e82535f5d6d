"""Images that are there twice: on both sides of the split, they make scores that are too good."""

from collections import defaultdict
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from training.doctor.finding import Finding, few
from training.doctor.record import Record, Records

ALIKE = 0.8
"""Correlation of thumbnails from which two images are taken for one. Copies that were recompressed,
brightened, shaded or halved in size lie above 0.9, as good as do neighbouring planes of a specimen
(0.89); different images lie below 0.4, consecutive serial sections below 0.6."""
BLOCK = 256
"""Thumbnails that are compared with all others at a time."""

LEARNT, HELD_OUT = "trained on", "held out for validation"
ONE_GROUP = "give both one group in index.csv, or remove one"


def examine_duplicates(records: Records) -> Iterator[Finding]:
    """Look for images of equal pixels.

    Images of one value are no copies: they give nothing away, and are warned of by themselves.
    """
    copies = [group for group in _by_digest(records) if len(group) > 1]
    apart = [group for group in copies if len({*map(records.is_held_out, group)}) > 1]
    for group in apart:
        yield from _leaks(group, records)
    together = [group for group in copies if group not in apart]
    yield from few(
        (
            Finding("warning", entry.image, _repeats(entry, group[0]))
            for group in together
            for entry in group[1:]
        ),
        "copies of other images as well.",
    )


def examine_labels_used_twice(records: Records) -> Iterator[Finding]:
    """Look for labels that are drawn alike on different images: a file in the wrong place."""
    first: dict[str, Record] = {}
    findings = []
    for entry in records.images:
        if np.count_nonzero(entry.facts.class_pixels) < 2:  # nothing drawn is alike everywhere
            continue
        other = first.setdefault(entry.labels_digest, entry)
        if other.pixels_digest != entry.pixels_digest:
            text = f"is drawn exactly as {other.labels}, though the images differ"
            findings.append(
                Finding("warning", entry.labels, f"{text}; one of them is of another image.")
            )
    yield from few(findings, "drawn exactly as others as well.")


def examine_look_alikes(records: Records) -> Iterator[Finding]:
    """Look for images alike on both sides of the split, turned and mirrored ones too."""
    training = [entry for entry in records.images if not records.is_held_out(entry)]
    held = [entry for entry in records.images if records.is_held_out(entry)]
    same = {entry.pixels_digest for entry in training}
    matches = [
        (likeness, entry, training[match])
        for entry, match, likeness in _nearest(held, training)
        if likeness >= ALIKE and entry.pixels_digest not in same
    ]
    matches.sort(key=lambda match: -match[0])
    yield from few(
        (
            Finding("warning", entry.image, _looks_like(other, likeness))
            for likeness, entry, other in matches
        ),
        f"{HELD_OUT}, and like ones trained on as well.",
    )


def _by_digest(records: Records) -> list[list[Record]]:
    groups: defaultdict[str, list[Record]] = defaultdict(list)
    for entry in records.images:
        if entry.facts.low < entry.facts.high:
            groups[entry.pixels_digest].append(entry)
    return list(groups.values())


def _leaks(group: list[Record], records: Records) -> Iterator[Finding]:
    learnt = next(entry for entry in group if not records.is_held_out(entry))
    for entry in group:
        if records.is_held_out(entry):
            labels = _labels_beside(entry, learnt)
            text = f"{HELD_OUT}, has the same pixels as {learnt.image}, {LEARNT}"
            yield Finding("error", entry.image, f"{text}{labels}: {ONE_GROUP}.")


def _repeats(entry: Record, first: Record) -> str:
    """Say that an image is there twice; other labels contradict, equal ones only weigh more."""
    labels = _labels_beside(entry, first)
    todo = "keep the better labels" if labels else "it counts twice; remove one"
    return f"has the same pixels as {first.image}{labels}: {todo}."


def _labels_beside(entry: Record, other: Record) -> str:
    return "" if entry.labels_digest == other.labels_digest else ", with other labels"


def _looks_like(other: Record, likeness: float) -> str:
    text = f"{HELD_OUT}, looks like {other.image}, {LEARNT} (correlation {likeness:.2f})"
    return f"{text}: if both show one specimen, {ONE_GROUP}."


def _nearest(held: list[Record], training: list[Record]) -> Iterator[tuple[Record, int, float]]:
    """Give, for each image held out, the place and likeness of the training image most like it."""
    learnt = np.stack([entry.thumbnail.ravel() for entry in training])
    for start in range(0, len(held), BLOCK):
        block = held[start : start + BLOCK]
        likeness = np.full((len(block), len(training)), -1, np.float32)
        for turned in _symmetries(np.stack([entry.thumbnail for entry in block])):
            np.maximum(likeness, turned.reshape(len(block), -1) @ learnt.T, out=likeness)
        best = likeness.argmax(axis=1)
        for entry, row, match in zip(block, likeness, best.tolist(), strict=True):
            yield entry, match, float(row[match])


def _symmetries(thumbnails: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
    """Give (N, 32, 32) in the eight positions of a square."""
    for mirrored in (thumbnails, thumbnails[:, ::-1]):
        for turns in range(4):
            yield np.rot90(mirrored, turns, axes=(1, 2))
