"""JPEG: a chain of marked segments.

Source: ITU-T T.81, annex B.
"""

import re
import struct
from collections.abc import Iterator
from io import BytesIO
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from PIL.JpegImagePlugin import JpegImageFile

from model.errors import ImageUnreadable
from service.images.directory import EXIF_PREFIX, exif_orientation
from service.images.pixels import Grid, Pixels, channels_first, cmyk_to_rgb

SIGNATURES: tuple[bytes, ...] = (b"\xff\xd8\xff",)

MAX_MARKERS = 4096
MAX_SCANS = 100
"""Progressive files have about ten; each scan costs a pass over all pixels."""
WINDOW_BYTES = 1 << 20
"""Bytes searched at one go: a search holds the interpreter's lock."""

FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""The markers that start a frame. Source: T.81, table B.1."""
FRAMES_READ = frozenset({0xC0, 0xC1, 0xC2, 0xC9, 0xCA})
"""Sequential and progressive frames; lossless and hierarchical ones are not read."""
SCAN, END, EXIF = 0xDA, 0xD9, 0xE1
METADATA = frozenset(range(0xE0, 0xF0)) - {0xE0, 0xEE} | {0xFE}
"""All application segments and comments but JFIF and Adobe, which tell the colour space."""
MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]")
"""Any marker but those without a segment. Source: T.81, B.1.1.2 to B.1.1.4."""


class Marker(NamedTuple):
    """What a marker is, and its position in the file."""

    kind: int
    start: int


class Frame(NamedTuple):
    """What a frame header says of the pixels. Source: T.81, B.2.2."""

    bits: int
    """Bits of a sample."""
    height: int
    width: int
    samples: int


def read_grid(data: bytes) -> Grid:
    """Read how the pixels lie from the segments before the first scan."""
    frame, exif = None, b""
    for kind, start in walk(data):
        if kind == SCAN:
            break
        if kind in FRAMES:
            if kind not in FRAMES_READ or frame:
                raise ImageUnreadable(f"The JPEG has a frame of a kind that is not read: {kind:X}.")
            frame = read_frame(data, start)
        elif kind == EXIF and not exif and data.startswith(EXIF_PREFIX, start + 4):
            exif = data[start + 4 : start + 2 + read_length(data, start)]
    if frame is None:
        raise ValueError("no frame before the first scan")
    return Grid(frame.height, frame.width, exif_orientation(exif), 1 if frame.samples == 1 else 3)


def decode(data: bytes) -> Pixels:
    """Decode to (C, H, W) uint8 as stored."""
    image = JpegImageFile(BytesIO(pixel_segments(data)))
    # Pillow has already turned Adobe's inverted inks round.
    if image.mode == "CMYK":
        return cmyk_to_rgb(np.moveaxis(np.asarray(image), 2, 0))
    return channels_first(np.asarray(image))


def walk(data: bytes) -> Iterator[Marker]:
    """Walk the markers up to the image's end."""
    start = 2
    for _ in range(MAX_MARKERS):
        start = next_marker(data, start)
        kind = data[start + 1]
        yield Marker(kind, start)
        if kind == END:
            return
        start += 2 + read_length(data, start)
    raise ImageUnreadable(f"The JPEG has more than {MAX_MARKERS:,} markers.")


def next_marker(data: bytes, position: int) -> int:
    """Find the next marker at or behind a position, past the packed pixels of a scan."""
    for start in range(position, len(data), WINDOW_BYTES):
        if found := MARKER.search(data, start, start + WINDOW_BYTES + 1):
            return found.start()
    raise ValueError(f"no marker behind {position}")


def read_length(data: bytes, start: int) -> int:
    """Read how long the segment of a marker is, without the marker."""
    return int(struct.unpack_from(">H", data, start + 2)[0])


def read_frame(data: bytes, start: int) -> Frame:
    """Read the frame header at a marker."""
    frame = Frame(*struct.unpack_from(">BHHB", data, start + 4))
    if frame.bits != 8 or frame.samples not in (1, 3, 4):
        raise ImageUnreadable(
            f"The JPEG has {frame.samples} samples of {frame.bits} bits a pixel; "
            "1, 3 or 4 samples of 8 bits are read."
        )
    return frame


def pixel_segments(data: bytes) -> bytes:
    """Leave out metadata, and whatever follows the image's end."""
    markers = list(walk(data))
    check_scans(markers)
    view = memoryview(data)
    kept = [
        view[marker.start : following.start]
        for marker, following in pairwise(markers)
        if marker.kind not in METADATA
    ]
    return b"".join([b"\xff\xd8", *kept, b"\xff\xd9"])


def check_scans(markers: list[Marker]) -> None:
    """Check that there are pixels, and not in too many layers."""
    scans = sum(marker.kind == SCAN for marker in markers)
    if not 1 <= scans <= MAX_SCANS:
        raise ImageUnreadable(f"The JPEG has {scans} scans; 1 to {MAX_SCANS} are read.")
