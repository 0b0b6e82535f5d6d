"""A directory of tags, as TIFF files and EXIF blocks have it.

    entry: tag | type | number of values | the values, or their offset in the file

Source: TIFF 6.0, section 2; BigTIFF by Aware Systems for the larger numbers.
"""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from struct import Struct
from typing import NamedTuple

from model.errors import ImageUnreadable

MAX_ENTRIES = 1024
TYPES = {1: "B", 3: "H", 4: "I", 16: "Q"}
"""Struct formats of the types that unsigned integers have."""
ORIENTATION = 274
EXIF_PREFIX = b"Exif\0\0"
"""What stands before an EXIF block in a JPEG. Source: CIPA DC-008, section 4.5.4."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How a file writes its numbers: in which byte order and how wide."""

    order: str
    """The byte order, as `struct` writes it."""
    count: Struct
    """A directory's number of entries."""
    entry: Struct
    """An entry's tag, type, number of values, and values or their offset."""
    offset: Struct
    """A position in the file."""
    kind: int
    """The type as wide as an offset, so that one number of it fits into an entry."""
    first: int
    """Where the offset of the first directory stands."""


CLASSIC = {
    b"II*\0": Layout("<", Struct("<H"), Struct("<HHI4s"), Struct("<I"), 4, 4),
    b"MM\0*": Layout(">", Struct(">H"), Struct(">HHI4s"), Struct(">I"), 4, 4),
}
BIG = {
    b"II+\0": Layout("<", Struct("<Q"), Struct("<HHQ8s"), Struct("<Q"), 16, 8),
    b"MM\0+": Layout(">", Struct(">Q"), Struct(">HHQ8s"), Struct(">Q"), 16, 8),
}
LAYOUTS = CLASSIC | BIG
"""The layout that each start of a file promises."""


class Entry(NamedTuple):
    """One tag of a directory, its values not yet read."""

    tag: int
    kind: int
    """The values' type."""
    length: int
    """The number of values."""
    inline: bytes
    """The values themselves if they fit, or else the offset where they stand."""


def read_number(number: Struct, data: bytes, position: int) -> int:
    """Read the one number of a struct."""
    return int(number.unpack_from(data, position)[0])


def read_entries(data: bytes, layout: Layout, offset: int) -> dict[int, Entry]:
    """Read the directory at an offset by its tags, the first entry of each."""
    count = read_number(layout.count, data, offset)
    if count > MAX_ENTRIES:
        raise ImageUnreadable(f"The TIFF's directory has more than {MAX_ENTRIES:,} entries.")
    start, size = offset + layout.count.size, layout.entry.size
    entries: dict[int, Entry] = {}
    for index in range(count):
        entry = Entry(*layout.entry.unpack_from(data, start + index * size))
        entries.setdefault(entry.tag, entry)
    return entries


def read_values(data: bytes, layout: Layout, entry: Entry, max_count: int) -> tuple[int, ...]:
    """Read an entry's integers, from the entry itself or from where it points."""
    if entry.kind not in TYPES or not 1 <= entry.length <= max_count:
        raise ImageUnreadable(
            f"The TIFF's tag {entry.tag} has {entry.length} values of type {entry.kind}."
        )
    values = f"{layout.order}{entry.length}{TYPES[entry.kind]}"
    if struct.calcsize(values) <= len(entry.inline):
        return struct.unpack_from(values, entry.inline)
    return struct.unpack_from(values, data, read_number(layout.offset, entry.inline, 0))


def write_directory(layout: Layout, position: int, values: Mapping[int, Sequence[int]]) -> bytes:
    """Write a single directory of integers, all of one type, to stand at a position."""
    spilled_at = position + layout.count.size + len(values) * layout.entry.size + layout.offset.size
    entries, spilled = bytearray(), bytearray()
    for tag, numbers in sorted(values.items()):
        inline = struct.pack(f"{layout.order}{len(numbers)}{TYPES[layout.kind]}", *numbers)
        if len(numbers) > 1:
            spilled += inline
            inline = layout.offset.pack(spilled_at + len(spilled) - len(inline))
        entries += layout.entry.pack(tag, layout.kind, len(numbers), inline)
    return layout.count.pack(len(values)) + entries + layout.offset.pack(0) + spilled


def exif_orientation(exif: bytes) -> int:
    """Read the orientation from an EXIF block, which is a small TIFF: 1 where there is none."""
    exif = exif.removeprefix(EXIF_PREFIX)
    layout = CLASSIC.get(exif[:4])
    if layout is None:
        return 1
    entries = read_entries(exif, layout, read_number(layout.offset, exif, layout.first))
    return read_values(exif, layout, entries[ORIENTATION], 1)[0] if ORIENTATION in entries else 1
