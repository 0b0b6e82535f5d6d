"""Label maps as clients read them: an indexed PNG, or COCO run-length encoding."""

import io
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor
from pycocotools import mask as coco

from model.artefact import ClassInfo
from service.schemas import RunLength, Segment

FAST = 1
"""zlib level: a label map is mostly runs, higher levels cost time and save little."""

RUNS_A_CALL = 1 << 18
"""Runs compressed at one go: pycocotools holds the interpreter's lock."""

_THREE_RUNS = re.compile(rb"(?:[P-o]*[0-O]){3}")
"""Each run ends with a character below P."""


def encode_png(labels: NDArray[np.uint8], classes: Sequence[ClassInfo]) -> bytes:
    """Write a label map (H, W) as an 8-bit indexed PNG.

    A pixel is the id of its class, and the palette has the classes' colours, so the file is data
    and picture at once.
    """
    picture = Image.frombuffer("P", labels.shape[::-1], np.ascontiguousarray(labels))
    colours = bytes(part for entry in classes for part in ImageColor.getrgb(entry.colour))
    picture.putpalette(colours.ljust(3 << 8, b"\0"))  # with few colours, Pillow would pack bits
    file = io.BytesIO()
    picture.save(file, "PNG", compress_level=FAST)
    return file.getvalue()


def encode_segments(labels: NDArray[np.uint8], classes: Sequence[ClassInfo]) -> list[Segment]:
    """Give one segment a class, also for one that the label map (H, W) does not hold."""
    by_column = np.asfortranarray(labels)
    return [_segment(by_column == entry.id, entry) for entry in classes]


def _segment(mask: NDArray[np.bool_], entry: ClassInfo) -> Segment:
    runs = _runs(mask)
    size = (mask.shape[0], mask.shape[1])
    return Segment(
        id=entry.id,
        class_name=entry.name,
        area=int(runs[1::2].sum()),
        bbox=_bounds(mask),
        rle=RunLength(size=size, counts=_compress(runs, size).decode()),
    )


def _runs(mask: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Give the lengths of a mask's runs, column by column; the first is of pixels outside."""
    pixels = mask.ravel("F")
    changes = np.flatnonzero(pixels[1:] != pixels[:-1]) + 1
    runs = np.diff(changes, prepend=0, append=pixels.size)
    return np.concatenate(([0], runs)) if pixels[0] else runs


def _bounds(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """Give left, top, width and height of what a mask holds; all 0 if that is nothing."""
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    if not rows.size:
        return 0, 0, 0, 0
    top, bottom, left, right = (int(edge) for edge in (*rows[[0, -1]], *columns[[0, -1]]))
    return left, top, right - left + 1, bottom - top + 1


def _compress(runs: NDArray[np.intp], size: tuple[int, int]) -> bytes:
    """Write runs as COCO does, a part at a time.

    A run is written as its difference to the one before the last, but for the first three. So each
    part begins with the last three runs of the one before, which are then cut off.
    """
    parts = []
    for start in range(0, runs.size, RUNS_A_CALL):
        known = min(start, 3)
        part = runs[start - known : start + RUNS_A_CALL]
        uncompressed: Any = {"size": list(size), "counts": part}  # a form that its stubs lack
        text: bytes = coco.frPyObjects(uncompressed, *size)["counts"]
        parts.append(_THREE_RUNS.sub(b"", text, count=1) if known else text)
    return b"".join(parts)
