"""Label maps and objects as clients read them: a PNG, or COCO run-length encoding."""

from collections.abc import Sequence
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import ImageColor

from model.artefact import ClassInfo
from model.errors import ObjectsTooMany
from model.segmentation import Objects
from service.images import png
from service.negotiation import AnswerFormat
from service.runs import Runs
from service.schemas import RunLength, Segment

LEVEL = 6
"""Of libdeflate. On one map of membranes, 512×512 px, packed and not filtered, it came within a
tenth of the smallest that levels 1 to 12 gave, in a twentieth of level 12's time."""
GREY = 0
"""The colour type whose samples are values of their own. Source: PNG, section 11.2.1."""

LARGEST_ID = (1 << 16) - 1
"""The most that a pixel of a PNG can say."""


Found = NDArray[np.uint8] | Objects
"""What was found in an image: a label map (H, W), or objects."""


def encode(
    found: Found, classes: Sequence[ClassInfo], media_type: AnswerFormat
) -> bytes | list[Segment]:
    """Write what was found as a PNG, or give its segments.

    Raises:
        ObjectsTooMany: A PNG cannot number so many objects.
    """
    as_png = media_type is AnswerFormat.PNG
    if isinstance(found, Objects):
        return encode_ids(found) if as_png else encode_objects(found, classes)
    return encode_png(found, classes) if as_png else encode_segments(found, classes)


def encode_png(labels: NDArray[np.uint8], classes: Sequence[ClassInfo]) -> bytes:
    """Write a label map (H, W) as an indexed PNG, in as few bits a pixel as its classes need.

    A pixel is the id of its class, and the palette has the classes' colours, so the file is data
    and picture at once.
    """
    bits = next(bits for bits in (1, 2, 4, 8) if len(classes) <= 1 << bits)
    colours = bytes(part for entry in classes for part in ImageColor.getrgb(entry.colour))
    return _png(labels.shape, bits, png.PALETTE, pack(labels, bits), colours)


def pack(labels: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """Put the values (H, W) of a row side by side in bytes, the first in the highest bits."""
    if bits == 1:
        return np.packbits(labels, axis=1)
    in_a_byte = 8 // bits
    padded = np.pad(labels, ((0, 0), (0, -labels.shape[1] % in_a_byte)))
    packed = np.zeros((len(labels), padded.shape[1] // in_a_byte), np.uint8)
    for place in range(in_a_byte):
        packed |= padded[:, place::in_a_byte] << (8 - bits * (place + 1))
    return packed


def encode_segments(labels: NDArray[np.uint8], classes: Sequence[ClassInfo]) -> list[Segment]:
    """Give one segment a class, also for one that the label map (H, W) does not hold."""
    return _segments(labels, range(len(classes)), classes)


def encode_ids(objects: Objects) -> bytes:
    """Write objects as a 16-bit grey PNG, whose pixels are their ids.

    Raises:
        ObjectsTooMany: There are more than 16 bits can number.
    """
    count = objects.classes.size
    if count > LARGEST_ID:
        raise ObjectsTooMany(
            f"The image has {count:,} objects; a PNG of 16 bits numbers {LARGEST_ID:,}. "
            "Ask for format=json."
        )
    rows = objects.ids.astype(">u2").view(np.uint8)
    return _png(objects.shape, 16, GREY, rows)


def encode_objects(objects: Objects, classes: Sequence[ClassInfo]) -> list[Segment]:
    """Give one segment an object."""
    found = [classes[index] for index in objects.classes]
    return _segments(objects.ids, range(1, len(found) + 1), found)


def _png(
    shape: tuple[int, ...], bits: int, colour: int, rows: NDArray[np.uint8], palette: bytes = b""
) -> bytes:
    """Write a PNG of packed rows (H, bytes), none of them filtered."""
    height, width = shape
    filtered = np.zeros((height, 1 + rows.shape[1]), np.uint8)
    filtered[:, 1:] = rows
    form = png.Form(width, height, bits, colour, 0, 0, 0)
    contents = {b"IHDR": form.packed()}
    if palette:
        contents[b"PLTE"] = palette
    contents[b"IDAT"] = bytes(imagecodecs.deflate_encode(filtered.tobytes(), level=LEVEL))
    return png.write({**contents, b"IEND": b""})


def _segments(ids: NDArray[Any], wanted: range, classes: Sequence[ClassInfo]) -> list[Segment]:
    """Give one segment for each id that is wanted, and its class, from the runs of a whole map."""
    size = (ids.shape[0], ids.shape[1])
    runs = Runs.of(ids, wanted)
    table = zip(wanted, classes, runs.areas(), runs.boxes(), runs.counts(), strict=True)
    return [
        Segment(
            id=index,
            class_name=entry.name,
            area=area,
            bbox=box,
            rle=RunLength(size=size, counts=counts),
        )
        for index, entry, area, box, counts in table
    ]
