"""What holds for images of all formats: their form, orientation, size and values."""

import struct
from typing import Any

import numpy as np
import pytest
from PIL import Image

from model.errors import ImageEmpty, ImageTooLarge, ImageUnreadable, ImageValuesInvalid
from service.images import ImageHeader, decode, read_header
from tests.service.images.files import (
    LIMIT,
    SHAPE,
    Pixels,
    Tags,
    chunk,
    encoded_png,
    exif_of,
    grey_tags,
    handmade_png,
    handmade_tiff,
    is_same,
    jpeg,
    noise,
    png,
    read,
    tiff,
)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"GIF89a\x01\0", r"starts with 'GIF89a\.\.' \(hex 47 49 46 38 39 61 01 00\)"),
        (b"\x1b[31m", r"starts with '\.\[31m' \(hex 1b 5b 33 31 6d\)"),
        (b"II*", "starts with 'II"),
        ("é".encode(), r"starts with '\.\.' \(hex c3 a9\)"),
    ],
)
def test_bytes_that_are_no_image_are_refused_and_their_start_told(
    data: bytes, message: str
) -> None:
    with pytest.raises(ImageUnreadable, match="no PNG, JPEG or TIFF: it " + message):
        read(data)


def test_no_bytes_are_an_empty_image() -> None:
    with pytest.raises(ImageEmpty):
        read(b"")


def test_an_image_that_is_not_the_headers_is_refused() -> None:
    header = read_header(png(noise(4, 5)), max_image_pixels=LIMIT)
    with pytest.raises(ImageUnreadable):
        decode(png(noise(5, 5)), header)


def stored_for(upright: Pixels, orientation: int) -> Pixels:
    """Lay an upright (H, W, ...) out so that the orientation's word is true of it.

    Source: TIFF 6.0, page 36: where the stored row 0 and column 0 lie in the upright image.
    """
    return {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.swapaxes(0, 1),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(upright, -1),
    }[orientation]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_tiff_is_set_upright(orientation: int) -> None:
    upright = noise(5, 8, 3)
    stored = np.ascontiguousarray(stored_for(upright, orientation))
    data = tiff(stored, photometric="rgb", extratags=[(274, "H", 1, orientation)])
    assert is_same(read(data), np.moveaxis(upright, 2, 0))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_png_is_set_upright(orientation: int, dtype: str) -> None:
    upright = noise(5, 8, dtype=dtype)
    data = encoded_png(np.ascontiguousarray(stored_for(upright, orientation)))
    exif = chunk(b"eXIf", exif_of(orientation).removeprefix(b"Exif\0\0"))
    for before in (b"IDAT", b"IEND"):
        at = data.index(before) - 4
        assert is_same(read(data[:at] + exif + data[at:]), upright[np.newaxis])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_jpeg_is_set_upright(orientation: int) -> None:
    upright = np.kron(noise(2, 3) // 64 * 64, np.ones((16, 16), np.uint8))
    stored = np.ascontiguousarray(stored_for(upright, orientation))
    pixels = read(jpeg(stored, quality=100, exif=exif_of(orientation)))
    assert np.abs(pixels[0].astype(int) - upright).max() <= 3


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_without_meaning_is_taken_as_upright(orientation: int) -> None:
    stored = noise(5, 8)
    data = tiff(stored, extratags=[(274, "H", 1, orientation)])
    assert is_same(read(data), stored[np.newaxis])


def test_the_header_tells_the_size_after_the_orientation() -> None:
    data = tiff(noise(5, 8), extratags=[(274, "H", 1, 6)])
    assert read_header(data, max_image_pixels=40) == ImageHeader("tiff", 8, 5, 6, 1)


@pytest.mark.parametrize("encode", [png, jpeg, tiff])
@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (2, 3), (16, 16), (257, 129)])
def test_any_size_is_read(encode: Any, shape: tuple[int, int]) -> None:
    pixels = read(encode(noise(*shape)))
    assert pixels.shape == (1, *shape)


def huge(format_: str) -> bytes:
    if format_ == "png":
        return handmade_png(60_000, 60_000, 8, 0, bytes(9))
    if format_ == "tiff":
        changed: Tags = {259: ("H", (8,)), 279: ("I", (1,))}
        return handmade_tiff(grey_tags(60_000, 60_000, changed), b"x")
    data = jpeg(noise(8, 8))
    frame = data.index(b"\xff\xc0")
    return data[: frame + 5] + struct.pack(">HH", 60_000, 60_000) + data[frame + 9 :]


@pytest.mark.parametrize("format_", ["png", "jpeg", "tiff"])
def test_an_image_above_the_limit_is_refused_before_it_is_decoded(format_: str) -> None:
    expected = "60000 \u00d7 60000 = 3,600,000,000 pixels; the limit is 128,000,000"
    with pytest.raises(ImageTooLarge, match=expected):
        read_header(huge(format_), max_image_pixels=128_000_000)


def test_the_limit_itself_is_allowed() -> None:
    data = png(noise(10, 10))
    assert read(data, limit=100).shape == (1, 10, 10)
    with pytest.raises(ImageTooLarge):
        read(data, limit=99)


@pytest.mark.parametrize(("channels", "pixels"), [(2, 100), (3, 100), (4, 134), (64, 2134)])
def test_many_channels_count_as_colour_with_as_many_values(channels: int, pixels: int) -> None:
    data = tiff(noise(10, 10, channels), planarconfig="contig")
    assert read_header(data, max_image_pixels=pixels).pixels == pixels
    counted = rf" of {channels} channels, which count as {pixels:,}" if channels > 3 else ""
    with pytest.raises(ImageTooLarge, match=f"10 × 10 = 100 pixels{counted}; the limit"):
        read_header(data, max_image_pixels=pixels - 1)


def test_the_limit_alone_decides_and_not_that_of_the_decoder(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    assert read(png(noise(10, 10))).shape == read(jpeg(noise(10, 10))).shape == (1, 10, 10)


@pytest.mark.parametrize(
    "data",
    [
        handmade_png(0, 5, 8, 0, b""),
        handmade_png(5, 0, 8, 0, b""),
        handmade_tiff(grey_tags(0, 4)),
        handmade_tiff(grey_tags(4, 0)),
        jpeg(noise(8, 8)).replace(b"\x08\0\x08\0\x08", b"\x08\0\0\0\x08"),
    ],
)
def test_an_image_without_pixels_is_refused(data: bytes) -> None:
    with pytest.raises(ImageValuesInvalid, match="no pixels"):
        read(data)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused_and_counted(value: float) -> None:
    stored = noise(*SHAPE, dtype="float32")
    stored[3, 4:7] = value
    with pytest.raises(ImageValuesInvalid, match="3 of the image's 1,961 values are not finite"):
        read(tiff(stored))


def test_values_too_large_for_float32_are_refused() -> None:
    with pytest.raises(ImageValuesInvalid, match="1 of the image's 4"):
        read(tiff(np.array([[0, 1], [2, 1e300]])))
