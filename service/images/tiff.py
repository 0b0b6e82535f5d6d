"""TIFF: a page of strips or tiles, and a directory of tags that says how they are stored.

Source: TIFF 6.0, of which sections are named below.
"""

from io import BytesIO
from math import ceil

import numpy as np
from tifffile import COMPRESSION, TiffFile

from model.errors import ImagePagesRefused, ImageUnreadable
from model.samples import channels_of, take
from service.images.directory import LAYOUTS, write_directory
from service.images.page import MAX_PAGES, Page, Tag, count_pages, read_page
from service.images.pixels import Grid, Pixels, cmyk_to_rgb

SIGNATURES = tuple(LAYOUTS)

MAX_PADDING_BYTES = 64 * 2**20

UNCOMPRESSED = 1
COMPRESSIONS = frozenset({UNCOMPRESSED, 5, 8, 32773, 32946, 50000})
"""None, LZW, deflate, PackBits, deflate by its old number, Zstandard.

Source: section 8, and libtiff, `tiff.h`.
"""

WHITE_IS_ZERO, GREY, RGB, PALETTE, CMYK = 0, 1, 2, 3, 5
COLOURS = {WHITE_IS_ZERO: 1, GREY: 1, RGB: 3, PALETTE: 1, CMYK: 4}
"""Samples of a pixel, without extra ones, of each photometric interpretation that is read."""

UNSIGNED = 1
NUMBERS = {UNSIGNED: "unsigned integer", 2: "signed integer", 3: "floating-point"}
"""What the sample formats mean. Source: section 19."""
BITS = {UNSIGNED: {1, 2, 4, 8, 16}, 2: {8, 16}, 3: {16, 32, 64}}
"""The bits of a sample that are read, for each sample format."""

CHOICES = {
    Tag.FILL_ORDER: {1, 2},
    Tag.PLANAR: {1, 2},
    Tag.PREDICTOR: {1, 2, 3},
    Tag.INK_SET: {1},
    Tag.EXTRA_SAMPLES: {0, 1, 2},
}
"""The values that are read of tags which name a choice."""

TAGS_READ_HERE = frozenset({Tag.ORIENTATION, Tag.COLOUR_MAP, Tag.INK_SET, Tag.DEPTH})
"""The tags that the decoder need not see."""
STRIP_TAGS = frozenset({Tag.STRIP_OFFSETS, Tag.STRIP_BYTES, Tag.STRIP_ROWS})
TILE_TAGS = frozenset({Tag.TILE_OFFSETS, Tag.TILE_BYTES, Tag.TILE_WIDTH, Tag.TILE_HEIGHT})
"""The decoder sees those of strips, or those of tiles."""


def read_grid(data: bytes) -> Grid:
    """Read how the pixels lie, once the page is known to be one that is read."""
    page = checked_page(data)
    channels = 3 if page.photometric in (PALETTE, CMYK) else len(channel_places(page))
    return Grid(page.height, page.width, page.number(Tag.ORIENTATION, 1), channels)


def decode(data: bytes) -> Pixels:
    """Decode to (C, H, W) as stored, in numbers that the network reads."""
    page = checked_page(data)
    with TiffFile(BytesIO(pixel_tags(data, page))) as tiff:
        stored = tiff.pages.first.asarray(squeeze=False, maxworkers=1)
    samples = np.moveaxis(stored[0, 0], 2, 0) if page.planes == 1 else stored[:, 0, :, :, 0]
    return to_native(to_channels(samples, page))


def checked_page(data: bytes) -> Page:
    """Read the first page, and check that it is the only one, in a form that is read."""
    page = read_page(data)
    check_pages(data, page)
    check_choices(page)
    check_numbers(page)
    check_compression(page)
    check_colours(page)
    if page.height and page.width:
        check_segments(data, page)
    return page


def check_pages(data: bytes, page: Page) -> None:
    """Check that there is one page."""
    pages = count_pages(data, page)
    if pages > 1:
        count = f"more than {MAX_PAGES:,}" if pages > MAX_PAGES else f"{pages:,}"
        raise ImagePagesRefused(f"The TIFF has {count} pages; one is read.")


def check_choices(page: Page) -> None:
    """Check the tags that name one of a few ways to store pixels."""
    for tag, choices in CHOICES.items():
        if found := set(page.values.get(tag, ())) - choices:
            raise ImageUnreadable(
                f"The TIFF's tag {tag} is {min(found)}; {sorted(choices)} are read."
            )


def check_numbers(page: Page) -> None:
    """Check that all samples are numbers of one type that is read."""
    kinds = set(page.values.get(Tag.SAMPLE_FORMAT, (UNSIGNED,)))
    bits = set(page.values.get(Tag.BITS, (1,)))
    if len(kinds) == len(bits) == 1:
        kind = min(kinds)
        if page.bits in BITS.get(kind, ()):
            return
        found = f"{page.bits}-bit {NUMBERS.get(kind, f'format {kind}')} samples"
    else:
        found = f"{sorted(bits)}-bit samples of formats {sorted(kinds)}"
    raise ImageUnreadable(
        f"The TIFF has {found}; integers of up to 16 bits and floating-point are read."
    )


def check_compression(page: Page) -> None:
    """Check that the compression is one of those read, which unpack within given bounds."""
    if page.compression not in COMPRESSIONS:
        names = {member.value: f" ({member.name})" for member in COMPRESSION}
        raise ImageUnreadable(
            f"The TIFF has compression {page.compression}{names.get(page.compression, '')}; "
            "none, LZW, deflate, PackBits and Zstandard are read."
        )


def check_colours(page: Page) -> None:
    """Check that the samples are grey, RGB, a palette or CMYK, with or without alpha.

    Behind grey and RGB there may be more channels.
    """
    colours = COLOURS.get(page.photometric)
    if colours is None:
        raise ImageUnreadable(
            f"The TIFF has photometric interpretation {page.photometric}; "
            "grey, RGB, palette and CMYK are read."
        )
    others = len(channel_places(page)) - colours
    if page.samples < colours or (others and page.photometric not in (GREY, RGB)):
        raise ImageUnreadable(
            f"The TIFF has {page.samples} samples a pixel, of which {others + colours} are no "
            f"alpha, where its photometric interpretation {page.photometric} has {colours}."
        )
    if not is_read_together(page):
        raise ImageUnreadable(
            f"The TIFF has photometric interpretation {page.photometric} with samples of "
            f"{page.bits} bits in a form that is not read."
        )


def channel_places(page: Page) -> list[int]:
    """Give the places of the samples that are no opacity."""
    extra = page.values.get(Tag.EXTRA_SAMPLES, ())
    return channels_of(page.samples, COLOURS[page.photometric], extra)


def is_read_together(page: Page) -> bool:
    """Tell whether colours, numbers and bits go together."""
    if page.bits < 8 and page.samples > 1:
        return False
    is_unsigned = page.number(Tag.SAMPLE_FORMAT, UNSIGNED) == UNSIGNED
    if page.photometric == PALETTE:
        return is_unsigned and len(page.values.get(Tag.COLOUR_MAP, ())) == 3 << page.bits
    return is_unsigned or page.photometric not in (WHITE_IS_ZERO, CMYK)


def check_segments(data: bytes, page: Page) -> None:
    """Check that strips or tiles cover the image, decode to little more, and lie in the file."""
    rows, columns = page.segment_size
    segments = page.segments
    expected = ceil(page.height / rows) * ceil(page.width / columns) * page.planes
    if len(segments) != expected or {Tag.STRIP_OFFSETS, Tag.TILE_OFFSETS} <= page.values.keys():
        raise ImageUnreadable(
            f"The TIFF has {len(segments):,} strips or tiles where its size asks for {expected:,}."
        )
    if any(not start or not size or start + size > len(data) for start, size in segments):
        raise ValueError("a strip or tile is empty or lies outside the file")
    pixel_bits = page.bits * page.samples // page.planes
    image_bytes = page.height * ceil(page.width * pixel_bits / 8) * page.planes
    decoded_bytes = expected * rows * ceil(columns * pixel_bits / 8)
    if decoded_bytes > 4 * image_bytes + MAX_PADDING_BYTES:
        raise ImageUnreadable(
            f"The TIFF's tiles hold {decoded_bytes:,} bytes for an image of {image_bytes:,}."
        )
    needed = decoded_bytes if page.is_tiled else image_bytes
    if page.compression == UNCOMPRESSED and sum(size for _, size in segments) < needed:
        raise ValueError(f"the strips or tiles have fewer bytes than the {needed} of the image")


def pixel_tags(data: bytes, page: Page) -> bytes:
    """Give the TIFF a directory of nothing but the tags that say how pixels are stored.

    It is written anew: where the decoder understood an entry otherwise than it was checked here,
    it could leave pixels as the memory before was.
    """
    layout = page.layout
    unused = STRIP_TAGS if page.is_tiled else TILE_TAGS
    shown: dict[int, tuple[int, ...]] = {
        tag: values for tag, values in page.values.items() if tag not in TAGS_READ_HERE | unused
    }
    return b"".join(
        [
            data[: layout.first],
            layout.offset.pack(len(data)),
            memoryview(data)[layout.first + layout.offset.size :],
            write_directory(layout, len(data), shown),
        ]
    )


def to_channels(samples: Pixels, page: Page) -> Pixels:
    """Turn stored (samples, H, W) into grey, RGB or channels (C, H, W)."""
    if page.photometric == PALETTE:
        colour_map = np.array(page.values[Tag.COLOUR_MAP], np.uint16).reshape(3, -1)
        return colour_map[:, samples[0]]
    if page.photometric == CMYK:
        return cmyk_to_rgb(samples[:4])
    channels = take(samples, channel_places(page))
    if page.bits < 8:
        channels = channels * np.uint8(255 // (2**page.bits - 1))
    return np.invert(channels) if page.photometric == WHITE_IS_ZERO else channels


def to_native(pixels: Pixels) -> Pixels:
    """Turn every floating-point type into float32, and foreign byte order into this machine's."""
    native = np.dtype(np.float32) if pixels.dtype.kind == "f" else pixels.dtype.newbyteorder("=")
    # What float32 cannot hold becomes infinite, and is then refused as such.
    with np.errstate(over="ignore"):
        return pixels.astype(native, copy=False)
