"""PNG files of every form."""

import gc
import struct
import sys
import zlib

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from model.errors import ImageUnreadable
from tests.service.images.files import (
    PNG_SIGNATURE,
    SHAPE,
    Pixels,
    chunk,
    encoded_png,
    handmade_png,
    is_same,
    noise,
    pillow,
    read,
)


@pytest.mark.parametrize("samples", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_png_colours_and_depths_are_exact_and_alpha_is_dropped(samples: int, dtype: str) -> None:
    stored = noise(*SHAPE, samples, dtype=dtype)
    data = encoded_png(stored.squeeze())
    colours = 3 if samples >= 3 else 1
    assert is_same(read(data), np.moveaxis(stored[..., :colours], 2, 0))


def test_16_bit_rgb_png_keeps_its_low_bits() -> None:
    stored = np.arange(3 * 64, dtype=np.uint16).reshape(8, 8, 3) + 1000
    assert is_same(read(encoded_png(stored)), np.moveaxis(stored, 2, 0))


@pytest.mark.parametrize(("bits", "scale"), [(1, 255), (2, 85), (4, 17)])
def test_png_of_few_bits_spans_the_range_of_8_bits(bits: int, scale: int) -> None:
    values = np.arange(16, dtype=np.uint8).reshape(2, 8) % 2**bits
    packed = bytes(imagecodecs.packints_encode(values.ravel(), bits))
    half = len(packed) // 2
    data = handmade_png(8, 2, bits, 0, b"\0" + packed[:half] + b"\0" + packed[half:])
    assert is_same(read(data), values[np.newaxis] * np.uint8(scale))


def test_png_palette_gives_its_colours_whatever_is_transparent() -> None:
    indices = noise(*SHAPE)
    palette = noise(256, 3, seed=1)
    image = Image.fromarray(indices).convert("P")
    image.putdata(indices.ravel().tolist())
    image.putpalette(palette.ravel().tolist())
    data = pillow(image, "PNG", transparency=7)
    assert is_same(read(data), np.moveaxis(palette[indices], 2, 0))


@pytest.mark.parametrize("shape", [(1, 1), (2, 9), (5, 1), (8, 8), (37, 53)])
@pytest.mark.parametrize("bits", [8, 16])
def test_interlaced_png_is_read(bits: int, shape: tuple[int, int]) -> None:
    stored = noise(*shape, 3, dtype=f"uint{bits}")
    big_endian = stored.astype(stored.dtype.newbyteorder(">"))
    passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2)]
    passes += [(0, 1, 2, 2), (1, 0, 2, 1)]
    reduced = [big_endian[y::dy, x::dx] for y, x, dy, dx in passes]
    rows = b"".join(b"\0" + row.tobytes() for part in reduced for row in part if part.size)
    header = struct.pack(">IIBBBBB", shape[1], shape[0], bits, 2, 0, 0, 1)
    chunks = [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND")]
    assert is_same(read(PNG_SIGNATURE + b"".join(chunks)), np.moveaxis(stored, 2, 0))


def test_animated_png_gives_its_default_image() -> None:
    frames = [Image.fromarray(noise(*SHAPE, 3, seed=seed)) for seed in range(3)]
    data = pillow(frames[0], "PNG", save_all=True, append_images=frames[1:])
    assert b"acTL" in data
    assert is_same(read(data), np.moveaxis(np.asarray(frames[0]), 2, 0))


@pytest.mark.parametrize("bits", [8, 16])
def test_png_gamma_and_colour_profile_do_not_change_the_pixels(bits: int) -> None:
    row = bytes(range(16 * bits // 8))
    extra = [chunk(b"gAMA", struct.pack(">I", 100_000)), chunk(b"tRNS", b"\0\1")]
    plain = read(handmade_png(16, 1, bits, 0, b"\0" + row))
    assert is_same(read(handmade_png(16, 1, bits, 0, b"\0" + row, *extra)), plain)


@pytest.mark.parametrize("name", [b"zTXt", b"iCCP", b"iTXt", b"eXIf", b"acTL", b"fdAT", b"zzZz"])
def test_no_chunk_but_those_of_pixels_reaches_the_decoder_of_png(
    name: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[bytes] = []

    def png_decode(data: bytes) -> Pixels:
        shown.append(data)
        return noise(4, 1)

    monkeypatch.setattr(imagecodecs, "png_decode", png_decode)
    plain = handmade_png(1, 4, 8, 0, bytes(8))
    read(handmade_png(1, 4, 8, 0, bytes(8), chunk(name, b"k\0\0" + zlib.compress(bytes(10**6)))))
    assert shown == [plain]


def test_png_whose_pixels_were_changed_under_their_checksum_is_refused() -> None:
    data = bytearray(handmade_png(4, 1, 8, 0, b"\0abcd"))
    data[data.index(b"IDAT") + 8] ^= 1
    with pytest.raises(ImageUnreadable, match="PNG but is truncated or damaged"):
        read(bytes(data))


ROWS = b"\0" + bytes(64 * 6)
DAMAGED_ROWS = {
    "too few": zlib.compress(ROWS * 40),
    "too many": zlib.compress(ROWS * 65),
    "unknown filter": zlib.compress(ROWS * 63 + b"\x05" + ROWS[1:]),
    "wrong checksum": zlib.compress(ROWS * 64)[:-1] + b"\0",
    "cut": zlib.compress(ROWS * 64)[:-20],
    "no deflate": b"\0" * 99,
    "none": b"",
}


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("damage", DAMAGED_ROWS)
def test_png_with_damaged_rows_is_refused_though_its_chunks_are_whole(
    bits: int, damage: str
) -> None:
    whole = handmade_png(64 * 16 // bits, 64, bits, 2, ROWS * 64)
    idat = chunk(b"IDAT", zlib.compress(ROWS * 64))
    assert read(whole).shape == (3, 64, 64 * 16 // bits)
    with pytest.raises(ImageUnreadable, match="truncated or damaged"):
        read(whole.replace(idat, chunk(b"IDAT", DAMAGED_ROWS[damage])))


@pytest.mark.parametrize("damage", DAMAGED_ROWS)
def test_damaged_pngs_do_not_use_up_the_references_to_none(damage: str) -> None:
    idat = chunk(b"IDAT", zlib.compress(ROWS * 64))
    data = handmade_png(64, 64, 16, 2, ROWS * 64).replace(
        idat, chunk(b"IDAT", DAMAGED_ROWS[damage])
    )
    gc.collect()
    before = sys.getrefcount(None)
    for _ in range(300):
        with pytest.raises(ImageUnreadable):
            read(data)
    gc.collect()
    assert sys.getrefcount(None) > before - 100


@pytest.mark.parametrize("palette", [[], [b""], [bytes(4)], [bytes(3 * 257)]])
def test_png_whose_palette_is_missing_or_malformed_is_refused(palette: list[bytes]) -> None:
    extra = [chunk(b"PLTE", colours) for colours in palette]
    with pytest.raises(ImageUnreadable):
        read(handmade_png(1, 1, 8, 3, b"\0\0", *extra))


@pytest.mark.parametrize(("bits", "colour"), [(3, 0), (4, 2), (16, 3), (8, 1), (8, 7), (32, 0)])
def test_png_of_an_unknown_form_is_refused_and_told(bits: int, colour: int) -> None:
    with pytest.raises(ImageUnreadable, match=f"colour type {colour} with {bits} bits"):
        read(handmade_png(1, 1, bits, colour, bytes(9)))
