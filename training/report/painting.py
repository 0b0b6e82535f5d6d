"""Layers that lie over an image: objects, classes, and what is wrong with them.

A layer is (h, w, 4) uint8 RGBA, transparent where it says nothing.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import ImageColor

from training.report.fates import Fate, Fates, Ids

Layer = NDArray[np.uint8]
Mask = NDArray[np.bool_]

HUES = ("#56b4e9", "#ffa62b", "#2ec4a0", "#f0e442", "#e377c2", "#4f8cff", "#ff7a50", "#a5d95d")
"""Colours of objects; they recur. Neighbours in the list differ also for colour-blind readers."""
ERRORS: Mapping[str, str] = {
    "missed": "#ff4d5e",
    "extra": "#3d9bff",
    "merged": "#ffd23f",
    "split": "#c58bff",
    "other class": "#2ee6a6",
}
"""Colours of errors, of objects or of pixels, by what they are called."""
PALE = "#dfe6ee"
FILLED, LIGHTLY_FILLED, OPAQUE = 150, 95, 255
"""Alpha of errors, of objects and of outlines."""


def paint_objects(ids: Ids, colours: NDArray[np.uint8]) -> Layer:
    """Draw objects, filled lightly and outlined.

    Args:
        ids: (h, w) object ids, 0 outside of objects.
        colours: (n + 1, 3) by id.
    """
    canvas = _canvas(ids.shape)
    canvas[..., :3] = colours[ids]
    canvas[..., 3] = np.where(ids > 0, np.where(outlines(ids), OPAQUE, LIGHTLY_FILLED), 0)
    return canvas


def colour_objects(fates: Fates) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Choose colours (n + 1, 3) by id of the objects annotated, and of those found.

    An object found has the colour of its partner; one without has the next of its own.
    """
    hues = np.array([ImageColor.getrgb(hue) for hue in HUES], np.uint8)
    annotated = np.arange(len(fates.annotated))
    own = np.arange(len(fates.found)) + len(annotated)
    found = np.where(fates.partners > 0, fates.partners, own)
    return hues[annotated % len(hues)], hues[found % len(hues)]


def paint_classes(labels: NDArray[np.uint8], colours: Sequence[str]) -> Layer:
    """Draw classes (h, w) but class 0 in their colours."""
    canvas = _canvas(labels.shape)
    for index, colour in enumerate(colours[1:], 1):
        _lay(canvas, labels == index, colour, FILLED)
    return canvas


def paint_object_errors(found: Ids, annotated: Ids, fates: Fates) -> Layer:
    """Draw what became of objects: those without a partner filled, all others a pale outline."""
    canvas = _canvas(found.shape)
    of_found, of_annotated = fates.found[found], fates.annotated[annotated]
    _lay(canvas, outlines(found) & (of_found == Fate.MATCHED), PALE, OPAQUE)
    for fate, name in ((Fate.SPLIT, "split"), (Fate.MERGED, "merged")):
        _lay(canvas, (of_found == fate) | (of_annotated == fate), ERRORS[name], FILLED)
    _lay(canvas, of_found == Fate.ALONE, ERRORS["extra"], FILLED)
    _lay(canvas, of_annotated == Fate.ALONE, ERRORS["missed"], FILLED)
    _outline_errors(canvas, found, of_found, "extra")
    _outline_errors(canvas, annotated, of_annotated, "missed")
    return canvas


def paint_pixel_errors(
    labels: NDArray[np.uint8], semantic: NDArray[np.uint8], ignored: Mask | None
) -> Layer:
    """Draw the pixels whose class (h, w) is wrong; class 0 is nothing."""
    canvas = _canvas(labels.shape)
    wrong = labels != semantic
    if ignored is not None:
        wrong &= ~ignored
    _lay(canvas, wrong, ERRORS["other class"], OPAQUE)
    _lay(canvas, wrong & (labels == 0), ERRORS["missed"], OPAQUE)
    _lay(canvas, wrong & (semantic == 0), ERRORS["extra"], OPAQUE)
    return canvas


def outline_mergers(canvas: Layer, found: Ids, annotated: Ids, fates: Fates) -> None:
    """Outline the objects, annotated or found, that were merged or split."""
    for ids, of in ((found, fates.found), (annotated, fates.annotated)):
        _outline_errors(canvas, ids, of[ids], None)


def hatch(canvas: Layer, ignored: Mask) -> None:
    """Hatch what (h, w) is left out of all scores."""
    rows, columns = np.indices(ignored.shape, np.int32)
    _lay(canvas, ignored & ((rows + columns) % 8 < 2), PALE, FILLED)


def outlines(ids: Ids) -> Mask:
    """Give the pixels of objects (h, w) that have a neighbour (4-connectivity) of another id."""
    edge = np.zeros(ids.shape, bool)
    below, right = ids[1:] != ids[:-1], ids[:, 1:] != ids[:, :-1]
    edge[1:] |= below
    edge[:-1] |= below
    edge[:, 1:] |= right
    edge[:, :-1] |= right
    return edge & (ids > 0)


def _outline_errors(canvas: Layer, ids: Ids, fates: NDArray[np.uint8], alone: str | None) -> None:
    edge = outlines(ids)
    named = {Fate.SPLIT: "split", Fate.MERGED: "merged"}
    for fate, name in (named | ({Fate.ALONE: alone} if alone else {})).items():
        _lay(canvas, edge & (fates == fate), ERRORS[name], OPAQUE)


def _canvas(shape: tuple[int, ...]) -> Layer:
    return np.zeros((*shape, 4), np.uint8)


def _lay(canvas: Layer, mask: Mask, colour: str, alpha: int) -> None:
    canvas[mask] = (*ImageColor.getrgb(colour), alpha)
