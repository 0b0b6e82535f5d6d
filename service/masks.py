"""Label maps and objects as clients read them: a PNG, or COCO run-length encoding."""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor

from model.artefact import ClassInfo
from model.errors import ObjectsTooMany
from model.segmentation import Objects
from service.negotiation import AnswerFormat
from service.runs import Runs
from service.schemas import RunLength, Segment

FAST = 1
"""zlib level: a label map is mostly runs, higher levels cost time and save little."""

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
    """Write a label map (H, W) as an 8-bit indexed PNG.

    A pixel is the id of its class, and the palette has the classes' colours, so the file is data
    and picture at once.
    """
    picture = Image.frombuffer("P", labels.shape[::-1], np.ascontiguousarray(labels))
    colours = bytes(part for entry in classes for part in ImageColor.getrgb(entry.colour))
    picture.putpalette(colours.ljust(3 << 8, b"\0"))  # with few colours, Pillow would pack bits
    return _png(picture)


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
    return _png(Image.fromarray(objects.ids.astype(np.uint16)))


def encode_objects(objects: Objects, classes: Sequence[ClassInfo]) -> list[Segment]:
    """Give one segment an object."""
    found = [classes[index] for index in objects.classes]
    return _segments(objects.ids, range(1, len(found) + 1), found)


def _png(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG", compress_level=FAST)
    return file.getvalue()


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
