"""An image's bytes, read as an array.

A hostile file attacks the parser through what it says about itself: metadata that unpacks to
gigabytes, directories that loop, names of other files. So each format is first walked here, by
rules of a few lines, and the library that decodes it is shown only the parts that carry pixels:

    bytes -> walk -> size, orientation -> limits -> pixel-carrying parts -> library -> (C, H, W)

The modules of the formats raise `ImageUnreadable` for a form that is not read, and anything else
for damage, as their libraries do. It becomes `ImageUnreadable` in one place, `_reading`.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil
from typing import Literal, Protocol

import numpy as np

from model.errors import (
    ImageEmpty,
    ImageTooLarge,
    ImageUnreadable,
    ImageValuesInvalid,
    UNetError,
)
from service.images import jpeg, png, tiff
from service.images.pixels import Grid, Pixels

Format = Literal["png", "jpeg", "tiff"]


class _Codec(Protocol):
    """What the module of a format offers."""

    SIGNATURES: tuple[bytes, ...]
    """The starts that its files have."""

    def read_grid(self, data: bytes) -> Grid:
        """Read how the pixels lie, without decoding them."""

    def decode(self, data: bytes) -> Pixels:
        """Decode to (C, H, W) as stored, not yet upright."""


_CODECS: dict[Format, _Codec] = {"png": png, "jpeg": jpeg, "tiff": tiff}

_SIDEWAYS = frozenset({5, 6, 7, 8})
"""The orientations whose stored rows are columns of the upright image."""


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
    channels: int
    """Without alpha: 1 is grey, 3 are colour."""

    @property
    def pixels(self) -> int:
        """What it counts as: of more channels than three, colour pixels with as many values."""
        return counted(self.height * self.width, self.channels)


def counted(pixels: int, channels: int) -> int:
    """Give what so many pixels count as, of so many channels without alpha."""
    return ceil(pixels * max(channels, 3) / 3)


def read_header(data: bytes, *, max_image_pixels: int) -> ImageHeader:
    """Read an image's form and size, and judge the size.

    Args:
        data: The whole file.
        max_image_pixels: The most pixels, height times width, that are taken.

    Raises:
        ImageEmpty: There are no bytes.
        ImageUnreadable: The bytes are no PNG, JPEG or TIFF, or one that is not read.
        ImageTooLarge: The image counts as more pixels than the limit.
        ImagePagesRefused: The image has more than one page.
        ImageValuesInvalid: The image has no pixels.
    """
    format_ = _format(data)
    with _reading(format_):
        height, width, orientation, channels = _CODECS[format_].read_grid(data)
    if orientation not in range(1, 9):
        orientation = 1
    _check_size(ImageHeader(format_, height, width, orientation, channels), max_image_pixels)
    if orientation in _SIDEWAYS:
        height, width = width, height
    return ImageHeader(format_, height, width, orientation, channels)


def decode(data: bytes, header: ImageHeader) -> Pixels:
    """Decode an image whose header was read, and set it upright.

    Alpha is dropped and the colours stay as they are stored; palettes and CMYK become RGB.

    Args:
        data: The whole file.
        header: What `read_header` said about it.

    Returns:
        (C, H, W) uint8, uint16, int8, int16 or float32. It may be a view with any strides, and
        read-only.

    Raises:
        ImageUnreadable: The image is truncated or damaged.
        ImageValuesInvalid: Some pixels are not finite.
    """
    with _reading(header.format):
        pixels = _upright(_CODECS[header.format].decode(data), header.orientation)
        if pixels.shape != (header.channels, header.height, header.width):
            raise ValueError(f"{header} was read, but {pixels.shape} decoded")
    _check_finite(pixels)
    return pixels


@contextmanager
def _reading(format_: Format) -> Iterator[None]:
    """Turn whatever a parser raises into `ImageUnreadable`, in our words."""
    try:
        yield
    except UNetError:
        raise
    except Exception as exc:  # the parsers document no errors of their own
        raise ImageUnreadable(
            f"The image starts like a {format_.upper()} but is truncated or damaged."
        ) from exc


def _format(data: bytes) -> Format:
    if not data:
        raise ImageEmpty("The image holds no bytes.")
    for format_, codec in _CODECS.items():
        if data.startswith(codec.SIGNATURES):
            return format_
    start = re.sub(r"[^ -~]", ".", data[:8].decode("latin-1"))
    raise ImageUnreadable(
        f"The image is no PNG, JPEG or TIFF: it starts with '{start}' (hex {data[:8].hex(' ')})."
    )


def _check_size(stored: ImageHeader, max_image_pixels: int) -> None:
    size = f"{stored.width} \N{MULTIPLICATION SIGN} {stored.height}"
    pixels = stored.height * stored.width
    if not pixels:
        raise ImageValuesInvalid(f"The image has no pixels: its size is {size}.")
    if stored.pixels > max_image_pixels:
        more = f" of {stored.channels} channels, which count as {stored.pixels:,}"
        raise ImageTooLarge(
            f"The image has {size} = {pixels:,} pixels{more if stored.pixels > pixels else ''}; "
            f"the limit is {max_image_pixels:,}."
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
    """Turn a stored (C, H, W) upright, as a view.

    Source: TIFF 6.0, page 36: where the stored row 0 and column 0 lie in the upright image.
    """
    if orientation in _SIDEWAYS:
        pixels = pixels.swapaxes(1, 2)
    row_step = -1 if orientation in (3, 4, 7, 8) else 1
    column_step = -1 if orientation in (2, 3, 6, 7) else 1
    return pixels[:, ::row_step, ::column_step]
