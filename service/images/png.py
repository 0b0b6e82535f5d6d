"""PNG: a chain of checksummed chunks.

Source: W3C Portable Network Graphics specification, third edition; its sections are named below.
"""

import struct
import zlib
from collections.abc import Iterator
from math import ceil
from typing import NamedTuple

import imagecodecs
import numpy as np

from model.errors import ImageUnreadable
from service.images.directory import exif_orientation
from service.images.pixels import Grid, Pixels, channels_first

SIGNATURE = b"\x89PNG\r\n\x1a\n"
SIGNATURES: tuple[bytes, ...] = (SIGNATURE,)

FORM = ">IIBBBBB"
"""How the chunk IHDR is laid out. Source: section 11.2.1."""

MAX_CHUNKS = 100_000

PALETTE = 3
"""The colour type whose samples are places in a palette."""
SAMPLES = {0: 1, 2: 3, PALETTE: 1, 4: 2, 6: 4}
"""Samples of a pixel, for each colour type. Source: section 11.2.1."""
CHANNELS = {0: 1, 2: 3, PALETTE: 3, 4: 1, 6: 3}
"""Channels without alpha, for each colour type."""
BITS = {0: {1, 2, 4, 8, 16}, 2: {8, 16}, 3: {1, 2, 4, 8}, 4: {8, 16}, 6: {8, 16}}
"""Bits that a sample may have, for each colour type. Source: section 11.2.1."""
FILTERS = 5
"""Filters that a row may have, counted from 0. Source: section 9.2."""

PASSES = (
    ((0, 0, 1, 1),),
    (
        (0, 0, 8, 8),
        (0, 4, 8, 8),
        (4, 0, 8, 4),
        (0, 2, 4, 4),
        (2, 0, 4, 2),
        (0, 1, 2, 2),
        (1, 0, 2, 1),
    ),
)
"""First row, first column, row step and column step of each pass, plain and interlaced.

Source: section 8.1.
"""


class Chunk(NamedTuple):
    """A chunk's name, and where its content lies in the file."""

    name: bytes
    start: int
    stop: int


class Form(NamedTuple):
    """What the chunk IHDR says about the pixels. Source: section 11.2.1."""

    width: int
    height: int
    bits: int
    """Bits of a sample."""
    colour: int
    """What the samples mean: the colour type."""
    compression: int
    filtering: int
    interlacing: int

    def packed(self) -> bytes:
        """Give the content of the chunk."""
        return struct.pack(FORM, *self)


def read_grid(data: bytes) -> Grid:
    """Read how the pixels lie, once the whole chain is there."""
    chunks = list(walk(data))
    form = read_form(data[16:29])
    exif = next((data[chunk.start : chunk.stop] for chunk in chunks if chunk.name == b"eXIf"), b"")
    return Grid(form.height, form.width, exif_orientation(exif), CHANNELS[form.colour])


def decode(data: bytes) -> Pixels:
    """Decode to (C, H, W) as stored, 16-bit samples with all their bits."""
    contents = read_contents(data)
    form = read_form(contents[b"IHDR"])
    if form.colour == PALETTE:
        check_palette(contents[b"PLTE"], form.bits)
    else:
        del contents[b"PLTE"]
    # Each error that libpng meets in the rows costs imagecodecs a reference to None; some ten
    # thousand of them end a Python 3.11 process. So errors are found before.
    check_rows(contents[b"IDAT"], form)
    # Pillow would squeeze 16-bit colour to 8 bits, and let rows be missing.
    return channels_first(imagecodecs.png_decode(write({**contents, b"IEND": b""})))


def walk(data: bytes) -> Iterator[Chunk]:
    """Walk the chunks from the first to the end.

        length of content | name | content | checksum of name and content

    Source: section 5.3.
    """
    position = len(SIGNATURE)
    for _ in range(MAX_CHUNKS):
        length, name = struct.unpack_from(">I4s", data, position)
        start, stop = position + 8, position + 8 + length
        is_first = position == len(SIGNATURE)
        if stop + 4 > len(data) or is_first != (name == b"IHDR"):
            raise ValueError(f"the chunk at {position} is cut or out of place")
        yield Chunk(name, start, stop)
        if name == b"IEND":
            return
        position = stop + 4
    raise ImageUnreadable(f"The PNG has more than {MAX_CHUNKS:,} chunks.")


def read_form(content: bytes) -> Form:
    """Read the content of the chunk IHDR, and check that the standard knows such a form."""
    form = Form(*struct.unpack(FORM, content))
    methods = [form.compression, form.filtering, form.interlacing]
    if form.bits not in BITS.get(form.colour, ()) or methods not in ([0, 0, 0], [0, 0, 1]):
        raise ImageUnreadable(
            f"The PNG has colour type {form.colour} with {form.bits} bits and methods {methods}, "
            "which the standard does not know."
        )
    return form


def read_contents(data: bytes) -> dict[bytes, bytes]:
    """Hold all chunks to their checksums, and join the contents of those that carry pixels."""
    view = memoryview(data)
    contents: dict[bytes, list[memoryview]] = {b"IHDR": [], b"PLTE": [], b"IDAT": []}
    for name, start, stop in walk(data):
        (checksum,) = struct.unpack_from(">I", data, stop)
        if zlib.crc32(view[start - 4 : stop]) != checksum:
            raise ValueError(f"the chunk at {start - 8} contradicts its checksum")
        if name in contents:
            contents[name].append(view[start:stop])
    return {name: b"".join(parts) for name, parts in contents.items()}


def check_palette(palette: bytes, bits: int) -> None:
    """Check that a palette has colours, and no more than samples can tell. Source: 11.2.2."""
    if not 0 < len(palette) <= 3 << bits or len(palette) % 3:
        raise ValueError(f"a palette of {len(palette)} bytes for samples of {bits} bits")


def check_rows(packed: bytes, form: Form) -> None:
    """Check that the data unpack to just the rows that the form asks for, with known filters."""
    passes = rows_of_passes(form)
    size = sum(rows * row_bytes for rows, row_bytes in passes)
    unpacked = np.frombuffer(imagecodecs.deflate_decode(packed, out=size), np.uint8)
    if unpacked.size != size:
        raise ValueError(f"the rows unpack to {unpacked.size} bytes, not {size}")
    start = 0
    for rows, row_bytes in passes:
        stop = start + rows * row_bytes
        if (unpacked[start:stop:row_bytes] >= FILTERS).any():
            raise ValueError("a row has an unknown filter")
        start = stop


def rows_of_passes(form: Form) -> list[tuple[int, int]]:
    """Count the rows, and the bytes of a row with its filter, of each pass that has pixels."""
    pixel_bits = form.bits * SAMPLES[form.colour]
    return [
        (ceil((form.height - row) / row_step), 1 + ceil(columns * pixel_bits / 8))
        for row, column, row_step, column_step in PASSES[form.interlacing]
        if form.height > row and (columns := ceil((form.width - column) / column_step)) > 0
    ]


def write(contents: dict[bytes, bytes]) -> bytes:
    """Write a PNG of these chunks."""
    parts = [SIGNATURE]
    for name, content in contents.items():
        checksum = zlib.crc32(content, zlib.crc32(name))
        parts += [struct.pack(">I4s", len(content), name), content, struct.pack(">I", checksum)]
    return b"".join(parts)
