"""A TIFF's first page: what its tags say about pixels, and how many pages stand behind it.

Source: TIFF 6.0, section 8; sections 15 and 19 for tiles and sample formats.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from math import prod

from model.errors import ImageUnreadable
from model.samples import MOST_SAMPLES
from service.images.directory import (
    LAYOUTS,
    Entry,
    Layout,
    read_entries,
    read_number,
    read_values,
)

MAX_PAGES = 1000
MAX_SEGMENTS = 200_000
MAX_DESCRIPTION_BYTES = 2**16


class Tag(IntEnum):
    """The tags that are looked at."""

    SUBFILE = 254
    WIDTH = 256
    HEIGHT = 257
    BITS = 258
    COMPRESSION = 259
    PHOTOMETRIC = 262
    FILL_ORDER = 266
    DESCRIPTION = 270
    STRIP_OFFSETS = 273
    ORIENTATION = 274
    SAMPLES = 277
    STRIP_ROWS = 278
    STRIP_BYTES = 279
    PLANAR = 284
    PREDICTOR = 317
    COLOUR_MAP = 320
    TILE_WIDTH = 322
    TILE_HEIGHT = 323
    TILE_OFFSETS = 324
    TILE_BYTES = 325
    INK_SET = 332
    EXTRA_SAMPLES = 338
    SAMPLE_FORMAT = 339
    DEPTH = 32997
    """Planes of a volume. Source: libtiff, `tiff.h`."""
    STK_PLANES = 33629
    """As many values as planes. Source: MetaMorph Stack format, UIC2."""


MAX_VALUES = {
    **dict.fromkeys((Tag.WIDTH, Tag.HEIGHT, Tag.COMPRESSION, Tag.PHOTOMETRIC), 1),
    **dict.fromkeys((Tag.FILL_ORDER, Tag.ORIENTATION, Tag.SAMPLES, Tag.STRIP_ROWS), 1),
    **dict.fromkeys((Tag.PLANAR, Tag.PREDICTOR, Tag.INK_SET, Tag.DEPTH), 1),
    **dict.fromkeys((Tag.TILE_WIDTH, Tag.TILE_HEIGHT), 1),
    **dict.fromkeys((Tag.BITS, Tag.EXTRA_SAMPLES, Tag.SAMPLE_FORMAT), MOST_SAMPLES),
    **dict.fromkeys((Tag.STRIP_OFFSETS, Tag.STRIP_BYTES), MAX_SEGMENTS),
    **dict.fromkeys((Tag.TILE_OFFSETS, Tag.TILE_BYTES), MAX_SEGMENTS),
    Tag.COLOUR_MAP: 3 * 2**16,
}
"""The tags that say how pixels are stored, each with the most values that it may have."""

IMAGEJ_PLANES = re.compile(rb"^images=(\d{1,9})\b", re.MULTILINE)
TIFFFILE_PLANES = re.compile(rb'\{"shape": \[([\d, ]{1,99})\].*"truncated": true')


@dataclass(frozen=True, slots=True)
class Page:
    """A directory, and what its tags say about pixels."""

    layout: Layout
    entries: dict[int, Entry]
    """All tags, unread."""
    values: dict[Tag, tuple[int, ...]]
    """The tags that say how pixels are stored."""

    def number(self, tag: Tag, default: int | None = None) -> int:
        """Read a tag's only or first value."""
        if tag in self.values:
            return self.values[tag][0]
        if default is None:
            raise ImageUnreadable(f"The TIFF lacks its tag {tag}.")
        return default

    @property
    def height(self) -> int:
        """Stored rows, in px."""
        return self.number(Tag.HEIGHT)

    @property
    def width(self) -> int:
        """Stored columns, in px."""
        return self.number(Tag.WIDTH)

    @property
    def samples(self) -> int:
        """Samples of a pixel, with alpha."""
        return self.number(Tag.SAMPLES, 1)

    @property
    def bits(self) -> int:
        """Bits of a sample."""
        return self.number(Tag.BITS, 1)

    @property
    def photometric(self) -> int:
        """What the samples mean."""
        return self.number(Tag.PHOTOMETRIC)

    @property
    def compression(self) -> int:
        """How strips or tiles are packed."""
        return self.number(Tag.COMPRESSION, 1)

    @property
    def planes(self) -> int:
        """How many times the image is covered: once, or once for each sample."""
        return self.samples if self.number(Tag.PLANAR, 1) == 2 else 1

    @property
    def is_tiled(self) -> bool:
        """Whether the pixels lie in tiles, rather than in strips of whole rows."""
        return Tag.TILE_WIDTH in self.values

    @property
    def segment_size(self) -> tuple[int, int]:
        """Rows and columns of a tile or strip, in px."""
        if self.is_tiled:
            return self.number(Tag.TILE_HEIGHT), self.number(Tag.TILE_WIDTH)
        return min(self.number(Tag.STRIP_ROWS, self.height), self.height), self.width

    @property
    def segments(self) -> list[tuple[int, int]]:
        """Offset and number of bytes of each tile or strip."""
        tags = (Tag.STRIP_OFFSETS, Tag.STRIP_BYTES)
        if self.is_tiled:
            tags = (Tag.TILE_OFFSETS, Tag.TILE_BYTES)
        return list(zip(*(self.values.get(tag, ()) for tag in tags), strict=True))


def read_page(data: bytes) -> Page:
    """Read the first directory, and what it says of pixels."""
    layout = LAYOUTS[data[:4]]
    entries = read_entries(data, layout, read_number(layout.offset, data, layout.first))
    check_samples(data, layout, entries)
    values = {
        tag: read_values(data, layout, entries[tag], max_count)
        for tag, max_count in MAX_VALUES.items()
        if tag in entries
    }
    return Page(layout, entries, values)


def check_samples(data: bytes, layout: Layout, entries: Mapping[int, Entry]) -> None:
    """Check how many samples a pixel has, before the tags that say something of each."""
    if Tag.SAMPLES in entries:
        (samples,) = read_values(data, layout, entries[Tag.SAMPLES], 1)
        if samples > MOST_SAMPLES:
            raise ImageUnreadable(
                f"The TIFF has {samples} samples a pixel; at most {MOST_SAMPLES} are read."
            )


def count_pages(data: bytes, page: Page) -> int:
    """Count the pages up to one more than the limit, those behind a single directory too."""
    return max(chained_pages(data, page.layout), hidden_planes(data, page))


def chained_pages(data: bytes, layout: Layout) -> int:
    """Count the directories of the chain, without reduced images and masks.

    Only the first entry of each is read: the tags stand in order, and 254 comes first.
    """
    pages, offset = 0, read_number(layout.offset, data, layout.first)
    seen: set[int] = set()
    while offset and pages <= MAX_PAGES:
        if offset in seen or len(seen) > 2 * MAX_PAGES:
            raise ImageUnreadable("The TIFF's directories form a loop, or a chain without end.")
        seen.add(offset)
        count = read_number(layout.count, data, offset)
        start = offset + layout.count.size
        entry = Entry(*layout.entry.unpack_from(data, start))
        is_page = entry.tag != Tag.SUBFILE or not read_values(data, layout, entry, 1)[0] & 0b101
        pages += is_page or not pages
        offset = read_number(layout.offset, data, start + count * layout.entry.size)
    return pages


def hidden_planes(data: bytes, page: Page) -> int:
    """Count the planes behind a single directory: of a volume, MetaMorph, ImageJ or tifffile."""
    planes = [1, page.number(Tag.DEPTH, 1)]
    if Tag.STK_PLANES in page.entries:
        planes.append(page.entries[Tag.STK_PLANES].length)
    text = read_description(data, page)
    if text.startswith(b"ImageJ=") and (found := IMAGEJ_PLANES.search(text)):
        planes.append(int(found[1]))
    if found := TIFFFILE_PLANES.match(text):
        size = page.height * page.width * page.samples
        planes.append(prod(int(edge) for edge in found[1].split(b",")) // max(size, 1))
    return max(planes)


def read_description(data: bytes, page: Page) -> bytes:
    """Read the start of the description, where programs keep the form of a stack."""
    if Tag.DESCRIPTION not in page.entries:
        return b""
    entry = page.entries[Tag.DESCRIPTION]
    offset = read_number(page.layout.offset, entry.inline, 0)
    return data[offset : offset + min(entry.length, MAX_DESCRIPTION_BYTES)]
