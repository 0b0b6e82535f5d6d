"""An image's bytes, read as an array.

A hostile file attacks the parser through what it says about itself: metadata that unpacks to
gigabytes, directories that loop, names of other files. So each format is first walked here, by
rules of a few lines, and the library that decodes it is shown only the parts that carry pixels:

    bytes -> walk -> size, orientation -> limits -> pixel-carrying parts -> library -> (C, H, W)

Whatever a library raises becomes `ImageUnreadable` in one place, `_reading`.
"""

import re
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from itertools import pairwise
from math import ceil, prod
from typing import Any, Literal

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL.JpegImagePlugin import JpegImageFile
from tifffile import COMPRESSION, TiffFile

from model.errors import (
    ImageEmpty,
    ImagePagesRefused,
    ImageTooLarge,
    ImageUnreadable,
    ImageValuesInvalid,
    UNetError,
)

Format = Literal["png", "jpeg", "tiff"]
Pixels = NDArray[Any]
ByteOrder = Literal["<", ">"]

_MAGIC: dict[bytes, Format] = {
    b"\x89PNG\r\n\x1a\n": "png",
    b"\xff\xd8\xff": "jpeg",
    b"II*\0": "tiff",
    b"MM\0*": "tiff",
    b"II+\0": "tiff",
    b"MM\0+": "tiff",
}

_MAX_PNG_CHUNKS = 100_000
_PNG_PIXEL_CHUNKS = frozenset({b"IHDR", b"PLTE", b"IDAT", b"IEND"})

_MAX_JPEG_MARKERS = 4096
_MAX_JPEG_SCANS = 100
"""Progressive files have about ten; each scan costs a pass over all pixels."""
_JPEG_FRAMES = frozenset({0xC0, 0xC1, 0xC2, 0xC9, 0xCA})
_JPEG_OTHER_FRAMES = frozenset(range(0xC0, 0xD0)) - _JPEG_FRAMES - {0xC4, 0xC8, 0xCC}
_JPEG_SCAN, _JPEG_END, _JPEG_EXIF = 0xDA, 0xD9, 0xE1
_EXIF_PREFIX = b"Exif\0\0"
_JPEG_METADATA = frozenset(range(0xE0, 0xF0)) - {0xE0, 0xEE} | {0xFE}
"""All application segments and comments but JFIF and Adobe, which tell the colour space."""
_JPEG_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]")
_JPEG_WINDOW = 1 << 20
"""Bytes searched at one go: a search holds the interpreter's lock."""

_MAX_TIFF_ENTRIES = 1024
_MAX_TIFF_PAGES = 1000
_MAX_TIFF_SEGMENTS = 200_000
_MAX_TIFF_PADDING_BYTES = 64 * 2**20
_TIFF_TYPES = {1: "B", 3: "H", 4: "I", 16: "Q"}
_TIFF_COMPRESSIONS = frozenset({1, 5, 8, 32773, 32946, 50000})
_TIFF_UNCOMPRESSED = 1
_TIFF_COLOURS = {0: 1, 1: 1, 2: 3, 3: 1, 5: 4}
"""Samples of a pixel, without alpha, of each photometric interpretation that is read."""
_TIFF_WHITE_IS_ZERO, _TIFF_PALETTE, _TIFF_CMYK = 0, 3, 5
_TIFF_NUMBERS = {1: "unsigned integer", 2: "signed integer", 3: "floating-point"}
_TIFF_BITS = {1: {1, 2, 4, 8, 16}, 2: {8, 16}, 3: {16, 32, 64}}
_IMAGEJ_PLANES = re.compile(rb"^images=(\d{1,9})\b", re.MULTILINE)
_TIFFFILE_PLANES = re.compile(rb'\{"shape": \[([\d, ]{1,99})\].*"truncated": true')

_SUBFILE, _WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 254, 256, 257, 258, 259, 262
_FILL_ORDER, _DESCRIPTION, _STRIP_OFFSETS, _ORIENTATION, _SAMPLES = 266, 270, 273, 274, 277
_STRIP_ROWS, _STRIP_BYTES, _PLANAR, _PREDICTOR, _COLOUR_MAP = 278, 279, 284, 317, 320
_TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS, _TILE_BYTES, _INK_SET = 322, 323, 324, 325, 332
_EXTRA_SAMPLES, _SAMPLE_FORMAT, _DEPTH, _STK_PLANES = 338, 339, 32997, 33629

_TIFF_TAGS = {
    **dict.fromkeys((_WIDTH, _HEIGHT, _COMPRESSION, _PHOTOMETRIC, _FILL_ORDER, _ORIENTATION), 1),
    **dict.fromkeys((_SAMPLES, _STRIP_ROWS, _PLANAR, _PREDICTOR, _INK_SET, _DEPTH), 1),
    **dict.fromkeys((_TILE_WIDTH, _TILE_HEIGHT), 1),
    **dict.fromkeys((_BITS, _EXTRA_SAMPLES, _SAMPLE_FORMAT), 8),
    **dict.fromkeys((_STRIP_OFFSETS, _STRIP_BYTES), _MAX_TIFF_SEGMENTS),
    **dict.fromkeys((_TILE_OFFSETS, _TILE_BYTES), _MAX_TIFF_SEGMENTS),
    _COLOUR_MAP: 3 * 2**16,
}
"""The tags that say how pixels are stored, each with the most values that it may have."""


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """What an image says about itself, before its pixels are decoded."""

    format: Format
    height: int
    """Rows in px, once the orientation is applied."""
    width: int
    """Columns in px, once the orientation is applied."""
    orientation: int
    """How the stored rows and columns lie, as the TIFF tag 274 counts it: 1 is upright."""


def read_header(data: bytes, *, max_image_pixels: int) -> ImageHeader:
    """Read an image's form and size, and judge the size.

    Args:
        data: The whole file.
        max_image_pixels: The most pixels, height times width, that are taken.

    Raises:
        ImageEmpty: There are no bytes.
        ImageUnreadable: The bytes are no PNG, JPEG or TIFF, or one that is not read.
        ImageTooLarge: The image has more pixels than the limit.
        ImagePagesRefused: The image has more than one page.
        ImageValuesInvalid: The image has no pixels.
    """
    format_ = _format(data)
    with _reading(format_):
        height, width, orientation = _HEADER_READERS[format_](data)
    _check_size(height, width, max_image_pixels)
    if orientation in (5, 6, 7, 8):
        height, width = width, height
    return ImageHeader(format_, height, width, orientation if orientation in range(1, 9) else 1)


def decode(data: bytes, header: ImageHeader) -> Pixels:
    """Decode an image whose header was read, and set it upright.

    Alpha is dropped and the colours stay as they are stored; palettes and CMYK become RGB.

    Args:
        data: The whole file.
        header: What `read_header` said about it.

    Returns:
        (C, H, W) uint8, uint16, int8, int16 or float32, C being 1 or 3. It may be a view with any
        strides, and read-only.

    Raises:
        ImageUnreadable: The image is truncated or damaged.
        ImageValuesInvalid: Some pixels are not finite.
    """
    with _reading(header.format):
        pixels = _upright(_DECODERS[header.format](data), header.orientation)
        if pixels.shape[1:] != (header.height, header.width):
            raise _damaged(header.format)
    _check_finite(pixels)
    return pixels


@contextmanager
def _reading(format_: Format) -> Iterator[None]:
    """Turn whatever a parser raises into `ImageUnreadable`, in our words."""
    try:
        yield
    except UNetError:
        raise
    except Exception as exc:
        raise _damaged(format_) from exc


def _damaged(format_: Format) -> ImageUnreadable:
    return ImageUnreadable(
        f"The image starts like a {format_.upper()} but is truncated or damaged."
    )


def _format(data: bytes) -> Format:
    if not data:
        raise ImageEmpty("The image holds no bytes.")
    for magic, format_ in _MAGIC.items():
        if data.startswith(magic):
            return format_
    start = re.sub(r"[^ -~]", ".", data[:8].decode("latin-1"))
    raise ImageUnreadable(
        f"The image is no PNG, JPEG or TIFF: it starts with '{start}' (hex {data[:8].hex(' ')})."
    )


def _check_size(height: int, width: int, max_image_pixels: int) -> None:
    size = f"{width} \N{MULTIPLICATION SIGN} {height}"
    if height < 1 or width < 1:
        raise ImageValuesInvalid(f"The image has no pixels: its size is {size}.")
    if height * width > max_image_pixels:
        raise ImageTooLarge(
            f"The image has {size} = {height * width:,} pixels; the limit is {max_image_pixels:,}."
        )


def _check_finite(pixels: Pixels) -> None:
    if pixels.dtype.kind != "f":
        return
    invalid = pixels.size - int(np.count_nonzero(np.isfinite(pixels)))
    if invalid:
        raise ImageValuesInvalid(
            f"{invalid:,} of the image's {pixels.size:,} values are not finite numbers."
        )


def _upright(pixels: Pixels, orientation: int) -> Pixels:
    """Turn a stored (C, H, W) upright, as a view."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(1, 2)
    row_step = -1 if orientation in (3, 4, 7, 8) else 1
    column_step = -1 if orientation in (2, 3, 6, 7) else 1
    return pixels[:, ::row_step, ::column_step]


def _channels_first(pixels: Pixels) -> Pixels:
    """Turn (H, W) or (H, W, samples) into (C, H, W) without alpha, as a view."""
    if pixels.ndim == 2:
        return pixels[np.newaxis]
    return np.moveaxis(pixels, 2, 0)[: 3 if pixels.shape[2] >= 3 else 1]


def _cmyk_to_rgb(inks: Pixels) -> Pixels:
    """Mix (4, H, W) unsigned inks, the largest value being full ink, to (3, H, W) as deep."""
    full = int(np.iinfo(inks.dtype).max)
    rgb = np.empty((3, *inks.shape[1:]), inks.dtype)
    black = np.invert(inks[3]).astype(np.uint32)
    for ink, colour in zip(inks, rgb, strict=False):
        light = np.invert(ink) * black
        light += full // 2
        np.floor_divide(light, full, out=colour, casting="unsafe")
    return rgb


# PNG: a chain of checksummed chunks. Source: W3C PNG specification, third edition, section 5.


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Walk the chunks: what each is called, and where its content starts and stops."""
    stop = 4
    for _ in range(_MAX_PNG_CHUNKS):
        length, name = struct.unpack_from(">I4s", data, stop + 4)
        start, stop = stop + 12, stop + 12 + length
        if stop + 4 > len(data) or (start == 16) != (name == b"IHDR"):
            raise _damaged("png")
        yield name, start, stop
        if name == b"IEND":
            return
    raise ImageUnreadable(f"The PNG has more than {_MAX_PNG_CHUNKS:,} chunks.")


def _png_header(data: bytes) -> tuple[int, int, int]:
    chunks = list(_png_chunks(data))
    width, height = struct.unpack_from(">II", data, 16)
    exif = next((data[start:stop] for name, start, stop in chunks if name == b"eXIf"), b"")
    return height, width, _exif_orientation(exif)


def _png_pixel_chunks(data: bytes) -> bytes:
    """Leave out text, colour profiles and animations, and hold the rest to its checksums."""
    view = memoryview(data)
    kept = [view[:8]]
    for name, start, stop in _png_chunks(data):
        (checksum,) = struct.unpack_from(">I", data, stop)
        if zlib.crc32(view[start - 4 : stop]) != checksum:
            raise _damaged("png")
        if name in _PNG_PIXEL_CHUNKS:
            kept.append(view[start - 8 : stop + 4])
    return b"".join(kept)


def _decode_png(data: bytes) -> Pixels:
    # Pillow would squeeze 16-bit colour to 8 bits, and let rows be missing.
    return _channels_first(imagecodecs.png_decode(_png_pixel_chunks(data)))


# JPEG: a chain of marked segments. Source: ITU-T T.81, annex B.


def _jpeg_markers(data: bytes) -> Iterator[tuple[int, int]]:
    """Walk the markers up to the image's end: what each is, and its position."""
    position = 2
    for _ in range(_MAX_JPEG_MARKERS):
        position = _next_jpeg_marker(data, position)
        marker = data[position + 1]
        yield marker, position
        if marker == _JPEG_END:
            return
        (length,) = struct.unpack_from(">H", data, position + 2)
        position += 2 + length
    raise ImageUnreadable(f"The JPEG has more than {_MAX_JPEG_MARKERS:,} markers.")


def _next_jpeg_marker(data: bytes, position: int) -> int:
    for start in range(position, len(data), _JPEG_WINDOW):
        if found := _JPEG_MARKER.search(data, start, start + _JPEG_WINDOW + 1):
            return found.start()
    raise _damaged("jpeg")


def _jpeg_frame(data: bytes, position: int) -> tuple[int, int, int]:
    """Read height, width and number of samples from the frame header at a position."""
    bits, height, width, samples = struct.unpack_from(">BHHB", data, position + 4)
    if bits != 8 or samples not in (1, 3, 4):
        raise ImageUnreadable(
            f"The JPEG has {samples} samples of {bits} bits a pixel; "
            "1, 3 or 4 samples of 8 bits are read."
        )
    return height, width, samples


def _jpeg_header(data: bytes) -> tuple[int, int, int]:
    frame, exif = None, b""
    for marker, position in _jpeg_markers(data):
        if marker in _JPEG_FRAMES and frame is None:
            frame = _jpeg_frame(data, position)
        elif marker in _JPEG_FRAMES or marker in _JPEG_OTHER_FRAMES:
            raise ImageUnreadable(f"The JPEG has a frame of a kind that is not read: {marker:X}.")
        elif marker == _JPEG_EXIF and not exif and data.startswith(_EXIF_PREFIX, position + 4):
            (length,) = struct.unpack_from(">H", data, position + 2)
            exif = data[position + 4 : position + 2 + length]
        elif marker == _JPEG_SCAN:
            break
    if frame is None:
        raise _damaged("jpeg")
    return frame[0], frame[1], _exif_orientation(exif)


def _jpeg_pixel_segments(data: bytes) -> bytes:
    """Leave out metadata, and whatever follows the image's end."""
    markers = list(_jpeg_markers(data))
    _check_jpeg_scans(markers)
    view = memoryview(data)
    kept = [
        view[start:stop]
        for (marker, start), (_, stop) in pairwise(markers)
        if marker not in _JPEG_METADATA
    ]
    return b"".join([b"\xff\xd8", *kept, b"\xff\xd9"])


def _check_jpeg_scans(markers: list[tuple[int, int]]) -> None:
    scans = sum(marker == _JPEG_SCAN for marker, _ in markers)
    if not 1 <= scans <= _MAX_JPEG_SCANS:
        raise ImageUnreadable(f"The JPEG has {scans} scans; 1 to {_MAX_JPEG_SCANS} are read.")


def _decode_jpeg(data: bytes) -> Pixels:
    image = JpegImageFile(BytesIO(_jpeg_pixel_segments(data)))
    # Pillow has already turned Adobe's inverted inks round.
    if image.mode == "CMYK":
        return _cmyk_to_rgb(np.moveaxis(np.asarray(image), 2, 0))
    return _channels_first(np.asarray(image))


# TIFF: directories of tags. Source: TIFF 6.0, sections 2 and 8; BigTIFF by Aware Systems.


@dataclass(frozen=True, slots=True)
class _TiffLayout:
    """How a TIFF writes its numbers: byte order, and classic or BigTIFF structures."""

    order: ByteOrder
    big: bool

    @property
    def count(self) -> str:
        """Struct format of a directory's number of entries."""
        return f"{self.order}{'Q' if self.big else 'H'}"

    @property
    def entry(self) -> str:
        """Struct format of an entry: code, type, number of values, values or their offset."""
        return f"{self.order}{'HHQ8s' if self.big else 'HHI4s'}"

    @property
    def offset(self) -> str:
        """Struct format of a file offset."""
        return f"{self.order}{'Q' if self.big else 'I'}"


_TiffEntry = tuple[int, int, int, bytes]


@dataclass(frozen=True, slots=True)
class _TiffPage:
    """A TIFF's first directory, and what its tags say about pixels."""

    layout: _TiffLayout
    entries: dict[int, _TiffEntry]
    values: dict[int, tuple[int, ...]]

    def number(self, tag: int, default: int | None = None) -> int:
        """Read a tag's only or first value."""
        if tag not in self.values and default is None:
            raise ImageUnreadable(f"The TIFF lacks its tag {tag}.")
        return self.values.get(tag, (default or 0,))[0]

    @property
    def height(self) -> int:
        """Stored rows, in px."""
        return self.number(_HEIGHT)

    @property
    def width(self) -> int:
        """Stored columns, in px."""
        return self.number(_WIDTH)

    @property
    def samples(self) -> int:
        """Samples of a pixel, with alpha."""
        return self.number(_SAMPLES, 1)

    @property
    def bits(self) -> int:
        """Bits of a sample."""
        return self.number(_BITS, 1)

    @property
    def photometric(self) -> int:
        """What the samples mean."""
        return self.number(_PHOTOMETRIC)

    @property
    def compression(self) -> int:
        """How strips or tiles are packed."""
        return self.number(_COMPRESSION, _TIFF_UNCOMPRESSED)

    @property
    def planes(self) -> int:
        """How many times the image is covered: once, or once for each sample."""
        return self.samples if self.number(_PLANAR, 1) == 2 else 1

    @property
    def is_tiled(self) -> bool:
        """Whether the pixels lie in tiles, rather than in strips of whole rows."""
        return _TILE_WIDTH in self.values

    @property
    def segment_size(self) -> tuple[int, int]:
        """Rows and columns of a tile or strip, in px."""
        if self.is_tiled:
            return self.number(_TILE_HEIGHT), self.number(_TILE_WIDTH)
        return min(self.number(_STRIP_ROWS, self.height), self.height), self.width

    @property
    def segments(self) -> list[tuple[int, int]]:
        """Offset and number of bytes of each tile or strip."""
        tags = (_TILE_OFFSETS, _TILE_BYTES) if self.is_tiled else (_STRIP_OFFSETS, _STRIP_BYTES)
        return list(zip(*(self.values.get(tag, ()) for tag in tags), strict=True))


def _tiff_layout(data: bytes) -> _TiffLayout:
    return _TiffLayout("<" if data[:2] == b"II" else ">", big=b"+" in data[2:4])


def _tiff_first(data: bytes, layout: _TiffLayout) -> int:
    """Read the offset of the first directory."""
    return int(struct.unpack_from(layout.offset, data, 8 if layout.big else 4)[0])


def _tiff_entries(data: bytes, layout: _TiffLayout, offset: int) -> dict[int, _TiffEntry]:
    """Read the entries of the directory at an offset, the first of each code."""
    (count,) = struct.unpack_from(layout.count, data, offset)
    if count > _MAX_TIFF_ENTRIES:
        raise ImageUnreadable(f"The TIFF's directory has more than {_MAX_TIFF_ENTRIES:,} entries.")
    start, size = offset + struct.calcsize(layout.count), struct.calcsize(layout.entry)
    entries: dict[int, _TiffEntry] = {}
    for index in range(count):
        entry = struct.unpack_from(layout.entry, data, start + index * size)
        entries.setdefault(entry[0], entry)
    return entries


def _tiff_values(
    data: bytes, layout: _TiffLayout, entry: _TiffEntry, max_count: int
) -> tuple[int, ...]:
    """Read an entry's integers, from the entry itself or from where it points."""
    code, kind, count, inline = entry
    if kind not in _TIFF_TYPES or not 1 <= count <= max_count:
        raise ImageUnreadable(f"The TIFF's tag {code} has {count} values of type {kind}.")
    values = f"{layout.order}{count}{_TIFF_TYPES[kind]}"
    if struct.calcsize(values) <= len(inline):
        return struct.unpack_from(values, inline)
    return struct.unpack_from(values, data, struct.unpack(layout.offset, inline)[0])


def _exif_orientation(exif: bytes) -> int:
    """Read the orientation from an EXIF block, which is a small TIFF: 1 where there is none."""
    exif = exif.removeprefix(_EXIF_PREFIX)
    if exif[:4] not in (b"II*\0", b"MM\0*"):
        return 1
    layout = _tiff_layout(exif)
    entries = _tiff_entries(exif, layout, _tiff_first(exif, layout))
    return _tiff_values(exif, layout, entries[_ORIENTATION], 1)[0] if _ORIENTATION in entries else 1


def _tiff_header(data: bytes) -> tuple[int, int, int]:
    page = _tiff_page(data)
    return page.height, page.width, page.number(_ORIENTATION, 1)


def _tiff_page(data: bytes) -> _TiffPage:
    """Read the first directory, and check that it describes one page that is there."""
    layout = _tiff_layout(data)
    entries = _tiff_entries(data, layout, _tiff_first(data, layout))
    values = {
        tag: _tiff_values(data, layout, entries[tag], max_count)
        for tag, max_count in _TIFF_TAGS.items()
        if tag in entries
    }
    page = _TiffPage(layout, entries, values)
    _check_tiff_pages(data, page)
    _check_tiff_numbers(page)
    _check_tiff_colours(page)
    if page.height and page.width:
        _check_tiff_segments(data, page)
    return page


def _check_tiff_pages(data: bytes, page: _TiffPage) -> None:
    pages = max(_chained_pages(data, page.layout), _hidden_planes(data, page))
    if pages > 1:
        count = f"more than {_MAX_TIFF_PAGES:,}" if pages > _MAX_TIFF_PAGES else f"{pages:,}"
        raise ImagePagesRefused(f"The TIFF has {count} pages; one is read.")


def _chained_pages(data: bytes, layout: _TiffLayout) -> int:
    """Count the directories of the chain up to the limit, without reduced images and masks."""
    pages, offset = 0, _tiff_first(data, layout)
    seen: set[int] = set()
    while offset and pages <= _MAX_TIFF_PAGES:
        if offset in seen or len(seen) > 2 * _MAX_TIFF_PAGES:
            raise ImageUnreadable("The TIFF's directories form a loop, or a chain without end.")
        seen.add(offset)
        (count,) = struct.unpack_from(layout.count, data, offset)
        start = offset + struct.calcsize(layout.count)
        entry = struct.unpack_from(layout.entry, data, start)
        is_page = entry[0] != _SUBFILE or not _tiff_values(data, layout, entry, 1)[0] & 0b101
        pages += is_page or not pages
        start += count * struct.calcsize(layout.entry)
        (offset,) = struct.unpack_from(layout.offset, data, start)
    return pages


def _hidden_planes(data: bytes, page: _TiffPage) -> int:
    """Count the planes behind a single directory: of a volume, MetaMorph, ImageJ or tifffile."""
    planes = [1, page.number(_DEPTH, 1)]
    if _STK_PLANES in page.entries:
        planes.append(page.entries[_STK_PLANES][2])
    if _DESCRIPTION in page.entries:
        _, _, count, inline = page.entries[_DESCRIPTION]
        (offset,) = struct.unpack(page.layout.offset, inline)
        text = data[offset : offset + min(count, 2**16)]
        if text.startswith(b"ImageJ=") and (found := _IMAGEJ_PLANES.search(text)):
            planes.append(int(found[1]))
        if found := _TIFFFILE_PLANES.match(text):
            size = page.height * page.width * page.samples
            planes.append(prod(int(edge) for edge in found[1].split(b",")) // max(size, 1))
    return max(planes)


def _check_tiff_numbers(page: _TiffPage) -> None:
    kinds = set(page.values.get(_SAMPLE_FORMAT, (1,)))
    bits = set(page.values.get(_BITS, (1,)))
    if len(kinds) > 1 or len(bits) > 1 or not bits <= _TIFF_BITS.get(min(kinds), set()):
        found = f"{sorted(bits)}-bit samples of formats {sorted(kinds)}"
        if len(kinds) == len(bits) == 1:
            kind = _TIFF_NUMBERS.get(min(kinds), f"format {min(kinds)}")
            found = f"{page.bits}-bit {kind} samples"
        raise ImageUnreadable(
            f"The TIFF has {found}; integers of up to 16 bits and floating-point are read."
        )
    if page.compression not in _TIFF_COMPRESSIONS:
        names = {member.value: f" ({member.name})" for member in COMPRESSION}
        raise ImageUnreadable(
            f"The TIFF has compression {page.compression}{names.get(page.compression, '')}; "
            "none, LZW, deflate, PackBits and Zstandard are read."
        )


def _check_tiff_colours(page: _TiffPage) -> None:
    colours = _TIFF_COLOURS.get(page.photometric)
    if colours is None or page.number(_INK_SET, 1) != 1:
        raise ImageUnreadable(
            f"The TIFF has photometric interpretation {page.photometric}; "
            "grey, RGB, palette and CMYK are read."
        )
    alpha = page.samples - colours
    is_alpha = page.number(_EXTRA_SAMPLES, 0) in (1, 2)
    if alpha not in (0, 1) or (alpha and colours == 1 and not is_alpha):
        raise ImageUnreadable(
            f"The TIFF has {page.samples} samples a pixel where its photometric interpretation "
            f"{page.photometric} has {colours}, or {colours + 1} with alpha."
        )
    if not _is_read_together(page):
        raise ImageUnreadable(
            f"The TIFF has photometric interpretation {page.photometric} with samples of "
            f"{page.bits} bits in a form that is not read."
        )


def _is_read_together(page: _TiffPage) -> bool:
    """Tell whether colours, numbers and bits go together."""
    if page.bits < 8 and page.samples > 1:
        return False
    is_unsigned = page.number(_SAMPLE_FORMAT, 1) == 1
    if page.photometric == _TIFF_PALETTE:
        return is_unsigned and len(page.values.get(_COLOUR_MAP, ())) == 3 << page.bits
    return is_unsigned or page.photometric not in (_TIFF_WHITE_IS_ZERO, _TIFF_CMYK)


def _check_tiff_segments(data: bytes, page: _TiffPage) -> None:
    """Check that strips or tiles cover the image, decode to little more, and lie in the file."""
    rows, columns = page.segment_size
    segments = page.segments
    expected = ceil(page.height / rows) * ceil(page.width / columns) * page.planes
    if len(segments) != expected or {_STRIP_OFFSETS, _TILE_OFFSETS} <= page.values.keys():
        raise ImageUnreadable(
            f"The TIFF has {len(segments):,} strips or tiles where its size asks for {expected:,}."
        )
    if any(not start or not size or start + size > len(data) for start, size in segments):
        raise _damaged("tiff")
    pixel_bits = page.bits * page.samples // page.planes
    image_bytes = page.height * ceil(page.width * pixel_bits / 8) * page.planes
    decoded_bytes = expected * rows * ceil(columns * pixel_bits / 8)
    if decoded_bytes > 4 * image_bytes + _MAX_TIFF_PADDING_BYTES:
        raise ImageUnreadable(
            f"The TIFF's tiles hold {decoded_bytes:,} bytes for an image of {image_bytes:,}."
        )
    needed = decoded_bytes if page.is_tiled else image_bytes
    if page.compression == _TIFF_UNCOMPRESSED and sum(size for _, size in segments) < needed:
        raise _damaged("tiff")


def _tiff_pixel_tags(data: bytes, page: _TiffPage) -> bytes:
    """Give the TIFF a directory of nothing but the tags that say how pixels are stored."""
    layout = page.layout
    entries = [struct.pack(layout.entry, *page.entries[tag]) for tag in sorted(page.values)]
    start = 8 if layout.big else 4
    return b"".join(
        [
            data[:start],
            struct.pack(layout.offset, len(data)),
            memoryview(data)[start + struct.calcsize(layout.offset) :],
            struct.pack(layout.count, len(entries)),
            *entries,
            struct.pack(layout.offset, 0),
        ]
    )


def _decode_tiff(data: bytes) -> Pixels:
    page = _tiff_page(data)
    with TiffFile(BytesIO(_tiff_pixel_tags(data, page))) as tiff:
        stored = tiff.pages.first.asarray(squeeze=False, maxworkers=1)
    samples = np.moveaxis(stored[0, 0], 2, 0) if page.planes == 1 else stored[:, 0, :, :, 0]
    return _tiff_numbers(_tiff_colours(samples, page))


def _tiff_colours(samples: Pixels, page: _TiffPage) -> Pixels:
    """Turn stored (samples, H, W) into grey or RGB (C, H, W)."""
    if page.photometric == _TIFF_PALETTE:
        colour_map = np.array(page.values[_COLOUR_MAP], np.uint16).reshape(3, -1)
        return colour_map[:, samples[0]]
    if page.photometric == _TIFF_CMYK:
        return _cmyk_to_rgb(samples[:4])
    grey_or_rgb = samples[: _TIFF_COLOURS[page.photometric]]
    if page.bits < 8:
        grey_or_rgb = grey_or_rgb * np.uint8(255 // (2**page.bits - 1))
    return np.invert(grey_or_rgb) if page.photometric == _TIFF_WHITE_IS_ZERO else grey_or_rgb


def _tiff_numbers(pixels: Pixels) -> Pixels:
    """Turn every floating-point type into float32, and foreign byte order into this machine's."""
    # What float32 cannot hold becomes infinite, and is then refused as such.
    with np.errstate(over="ignore"):
        wanted = (
            np.dtype(np.float32) if pixels.dtype.kind == "f" else pixels.dtype.newbyteorder("=")
        )
        return pixels.astype(wanted, copy=False)


_HEADER_READERS: dict[Format, Callable[[bytes], tuple[int, int, int]]] = {
    "png": _png_header,
    "jpeg": _jpeg_header,
    "tiff": _tiff_header,
}
"""For each format: stored height, stored width and orientation."""

_DECODERS: dict[Format, Callable[[bytes], Pixels]] = {
    "png": _decode_png,
    "jpeg": _decode_jpeg,
    "tiff": _decode_tiff,
}
"""For each format: stored (C, H, W), not yet upright."""
