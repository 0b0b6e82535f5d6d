"""Pixels of annotated images: from files to arrays, one image at a time."""

import struct
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from model.errors import DatasetError
from model.samples import MOST_SAMPLES, channels_of, take
from training.data.forms import Pair, count_pages, reading

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_CHANNELS = {0: 1, 2: 3, 3: 3, 4: 1, 6: 3}
"""Channels of each colour type, without alpha. Source: W3C PNG, third edition, section 11.2.1."""
PNG_PALETTE = 3
ORIENTATION = 274
"""The TIFF and EXIF tag that says how a picture is turned; 1 is upright."""
PLAIN_TIFFS = (tifffile.PHOTOMETRIC.MINISBLACK, tifffile.PHOTOMETRIC.RGB)
LARGEST_ID = np.iinfo(np.int32).max


class PngHeader(NamedTuple):
    """What a PNG says before its pixels."""

    height: int
    width: int
    colour: int
    """The colour type."""


def read_shape(pair: Pair) -> tuple[int, int, int]:
    """Read the shape (C, H, W) that `read_image` would give, from headers alone.

    Raises:
        DatasetError: if the file cannot be read, or is stored in a way that `read_image` refuses.
    """
    with reading(pair.image):
        if _is_png(pair.image):
            header = _read_png_header(pair.image)
            return PNG_CHANNELS[header.colour], header.height, header.width
        with tifffile.TiffFile(pair.image) as file:
            page = _plain_page(pair.image, file, pair.page)
            return len(_channels(page)), page.imagelength, page.imagewidth


def read_image(pair: Pair) -> NDArray[Any]:
    """Read an image (C, H, W): 8 or 16-bit integers as stored, floats as float32, without alpha.

    Raises:
        DatasetError: if the file cannot be read, is stored in a way that the service reads
            otherwise, or holds values that are not finite.
    """
    with reading(pair.image):
        pixels = _read_png(pair.image) if _is_png(pair.image) else _read_tiff(pair.image, pair.page)
    pixels = _native(pair.image, pixels)
    if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
        where = "" if pair.page is None else f", page {pair.page},"
        count = int(np.count_nonzero(~np.isfinite(pixels)))
        raise DatasetError(
            f"{pair.image}{where} has {count} value(s) that are not finite; replace them."
        )
    return pixels


def read_labels(pair: Pair) -> NDArray[Any]:
    """Read the labels (H, W) of an image: one integer a pixel.

    In a PNG with a palette, as the service answers, they are its indices. Grey that is stored as
    colour, three times the same, is read once.

    Raises:
        DatasetError: if the file cannot be read, has colours, or holds numbers that are no ids.
    """
    path = pair.labels
    with reading(path):
        labels = _read_png_labels(path) if _is_png(path) else _read_tiff(path, pair.page)
    if labels.dtype == bool:
        labels = labels.astype(np.uint8)
    if len(labels) == 3 and (labels == labels[0]).all():
        labels = labels[:1]
    if labels.shape[0] != 1 or not np.issubdtype(labels.dtype, np.integer):
        colours = "; convert each colour to the id of its class or object, the background's to 0"
        raise DatasetError(
            f"{path} must hold one integer a pixel; found {len(labels)} channel(s) of "
            f"{labels.dtype}{colours if len(labels) == 3 else ''}."
        )
    if labels.size and labels.max() > LARGEST_ID:
        raise DatasetError(f"{path} holds the label {labels.max()}; at most {LARGEST_ID} is read.")
    plane: NDArray[Any] = labels[0]
    return plane


def _is_png(path: Path) -> bool:
    return path.suffix.lower() == ".png"


def _read_png(path: Path) -> NDArray[Any]:
    channels = PNG_CHANNELS[_read_png_header(path).colour]
    pixels = np.atleast_3d(imagecodecs.png_decode(path.read_bytes()))
    return np.moveaxis(pixels, 2, 0)[:channels]


def _read_png_labels(path: Path) -> NDArray[Any]:
    if _read_png_header(path).colour != PNG_PALETTE:
        return _read_png(path)
    with Image.open(path, formats=["PNG"]) as file:
        return np.asarray(file)[np.newaxis]


def _read_png_header(path: Path) -> PngHeader:
    """Read the size and colour type, and hold the chain of chunks to be whole and upright."""
    with path.open("rb") as file:
        chunks = _png_chunks(file)
    width, height, _, colour = struct.unpack_from(">IIBB", chunks[b"IHDR"])
    exif = Image.Exif()
    exif.load(chunks.get(b"eXIf", b""))
    if (orientation := exif.get(ORIENTATION, 1)) != 1:
        raise DatasetError(f"{path} is stored with orientation {orientation}. Store it upright.")
    return PngHeader(height, width, colour)


def _png_chunks(file: BinaryIO) -> dict[bytes, bytes]:
    """Read the chunks that say how the pixels lie, without those that hold them."""
    if file.read(len(PNG_SIGNATURE)) != PNG_SIGNATURE:
        raise ValueError("it is no PNG")
    contents: dict[bytes, bytes] = {}
    while b"IEND" not in contents:
        head = file.read(8)
        if len(head) < 8:
            raise ValueError("it ends before its last chunk")
        length, name = struct.unpack(">I4s", head)
        contents[name] = file.read(length) if name in (b"IHDR", b"eXIf") else b""
        file.seek(length + 4 - len(contents[name]), 1)
    return contents


def _read_tiff(path: Path, number: int | None) -> NDArray[Any]:
    """Read a page as (C, H, W); of a stack, no other page is read."""
    with tifffile.TiffFile(path) as file:
        page = _plain_page(path, file, number)
        if _is_described(file, number):
            pixels = page.asarray(maxworkers=1)
        else:
            pixels = np.array(tifffile.memmap(path, mode="r")[number])
    return take(np.moveaxis(np.atleast_3d(pixels), 2, 0), _channels(page))


def _is_described(file: tifffile.TiffFile, number: int | None) -> bool:
    """Tell whether a page has a directory; ImageJ gives a large stack one, for all its pages."""
    return number is None or number < len(file.pages)


def _plain_page(path: Path, file: tifffile.TiffFile, number: int | None) -> tifffile.TiffPage:
    """Give a page, or refuse what the service turns, inverts or rearranges and this does not."""
    if number is None and (pages := count_pages(file)) > 1:
        raise DatasetError(
            f"{path} has {pages} pages where one image is wanted. Store one image a file, its "
            "channels as samples of a pixel; or make a stack pair of it."
        )
    page = file.pages[number or 0].aspage() if _is_described(file, number) else file.pages.first
    orientation = page.tags.valueof(ORIENTATION, default=1)
    if page.photometric not in PLAIN_TIFFS or page.planarconfig != 1 or orientation != 1:
        raise DatasetError(
            f"{path} is stored as photometric {page.photometric!s}, planar configuration "
            f"{page.planarconfig!s}, orientation {orientation}. Store it as grey (black is 0) or "
            "RGB, contiguous and upright."
        )
    if page.samplesperpixel > MOST_SAMPLES:
        raise DatasetError(
            f"{path} has {page.samplesperpixel} samples a pixel; at most {MOST_SAMPLES} are read."
        )
    return page


def _channels(page: tifffile.TiffPage) -> list[int]:
    """Give the places of the samples that are no opacity."""
    colours = 3 if page.photometric == tifffile.PHOTOMETRIC.RGB else 1
    return channels_of(page.samplesperpixel, colours, page.extrasamples)


def _native(path: Path, pixels: NDArray[Any]) -> NDArray[Any]:
    """Give numbers as the service gives them to a network, in this machine's byte order."""
    if pixels.dtype.kind == "f":
        with np.errstate(over="ignore"):  # what becomes infinite is refused as such
            return pixels.astype(np.float32)
    if pixels.dtype == bool:
        return pixels.astype(np.uint8)
    if pixels.dtype.kind not in "iu" or pixels.dtype.itemsize > 2:
        raise DatasetError(
            f"{path} holds {pixels.dtype} values; integers of up to 16 bits and floating-point "
            "are read."
        )
    return pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
