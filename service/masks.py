"""Label maps as clients read them: an indexed PNG, or COCO run-length encoding."""

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor
from pycocotools import mask as coco

from model.artefact import ClassInfo
from service.schemas import RunLength, Segment

FAST = 1
"""zlib level: a label map is mostly runs, higher levels cost time and save little."""


def encode_png(labels: NDArray[np.uint8], classes: Sequence[ClassInfo]) -> bytes:
    """Write a label map (H, W) as an 8-bit indexed PNG.

    A pixel is the id of its class, and the palette has the classes' colours, so the file is data
    and picture at once.
    """
    picture = Image.frombuffer("P", labels.shape[::-1], np.ascontiguousarray(labels))
    picture.putpalette([part for entry in classes for part in ImageColor.getrgb(entry.colour)])
    file = io.BytesIO()
    picture.save(file, "PNG", bits=8, compress_level=FAST)
    return file.getvalue()


def encode_segments(labels: NDArray[np.uint8], classes: Sequence[ClassInfo]) -> list[Segment]:
    """Give one segment a class, also for one that the label map (H, W) does not hold."""
    by_column = np.asfortranarray(labels)
    return [_segment(by_column == entry.id, entry) for entry in classes]


def _segment(mask: NDArray[np.bool_], entry: ClassInfo) -> Segment:
    rle = coco.encode(mask.view(np.uint8))
    counts = rle["counts"]
    left, top, width, height = (int(edge) for edge in coco.toBbox(rle))
    return Segment(
        id=entry.id,
        class_name=entry.name,
        area=int(coco.area(rle)),
        bbox=(left, top, width, height),
        rle=RunLength(
            size=(mask.shape[0], mask.shape[1]),
            counts=counts.decode() if isinstance(counts, bytes) else counts,
        ),
    )
