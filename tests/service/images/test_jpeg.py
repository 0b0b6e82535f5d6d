"""JPEG files of every form."""

import struct
from typing import Any

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from model.errors import ImageUnreadable
from tests.service.images.files import SHAPE, encoded_jpeg, is_same, jpeg, noise, pillow, read


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}])
@pytest.mark.parametrize("samples", [(), (3,)])
def test_jpeg_gives_what_its_reference_decoder_gives(
    samples: tuple[int, ...], options: dict[str, Any]
) -> None:
    data = jpeg(noise(*SHAPE, *samples), **options)
    expected = imagecodecs.jpeg8_decode(data).reshape(*SHAPE, -1)
    assert is_same(read(data), np.moveaxis(expected, 2, 0))


@pytest.mark.parametrize(
    ("inks", "colour"),
    [
        ((0, 0, 0, 0), (255, 255, 255)),
        ((255, 0, 0, 0), (0, 255, 255)),
        ((0, 0, 0, 255), (0, 0, 0)),
        ((0, 255, 255, 0), (255, 0, 0)),
    ],
)
def test_cmyk_jpeg_of_adobe_is_not_read_inverted(
    inks: tuple[int, ...], colour: tuple[int, ...]
) -> None:
    stored = np.full((16, 16, 4), inks, np.uint8)
    cmyk = Image.frombytes("CMYK", (16, 16), stored.tobytes())
    data = pillow(cmyk, "JPEG", quality=100)
    assert b"Adobe" in data
    difference = read(data).astype(int) - np.reshape(colour, (3, 1, 1))
    assert np.abs(difference).max() <= 3


def test_what_follows_a_jpegs_end_is_ignored() -> None:
    data = jpeg(noise(*SHAPE))
    assert is_same(read(data + jpeg(noise(9, 9)) + b"\xff\xff"), read(data))


def test_jpeg_of_more_than_100_scans_is_refused() -> None:
    data = jpeg(noise(*SHAPE), progressive=True)
    scan = data.rindex(b"\xff\xda")
    spare = 100 - data.count(b"\xff\xda")
    assert read(data[:-2] + data[scan:-2] * spare + data[-2:]).shape == (1, *SHAPE)
    with pytest.raises(ImageUnreadable, match="has 101 scans; 1 to 100 are read"):
        read(data[:-2] + data[scan:-2] * (spare + 1) + data[-2:])


def test_jpeg_of_12_bits_is_refused_and_named() -> None:
    data = encoded_jpeg(noise(*SHAPE, dtype="uint16") >> 4, bitspersample=12)
    with pytest.raises(ImageUnreadable, match="1 samples of 12 bits"):
        read(data)


def test_lossless_jpeg_is_refused_and_named() -> None:
    with pytest.raises(ImageUnreadable, match="frame of a kind that is not read: C3"):
        read(encoded_jpeg(noise(*SHAPE), lossless=True))


def test_jpeg_with_a_second_frame_is_refused() -> None:
    data = jpeg(noise(*SHAPE))
    frame = data.index(b"\xff\xc0")
    second = data[frame : frame + 2 + struct.unpack_from(">H", data, frame + 2)[0]]
    with pytest.raises(ImageUnreadable, match="frame of a kind"):
        read(data[:frame] + second + data[frame:])
