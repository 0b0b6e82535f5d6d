"""TIFF files of every form, and how many pages they have."""

import logging
import struct
from io import BytesIO
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile

from model.errors import ImagePagesRefused, ImageUnreadable
from tests.service.images.files import (
    SHAPE,
    Tags,
    grey_tags,
    handmade_tiff,
    is_same,
    noise,
    read,
    tiff,
)


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("byte_order", ["<", ">"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int8", "int16", "float32"])
def test_tiff_numbers_are_exact_in_any_layout(dtype: str, byte_order: str, big: bool) -> None:
    stored = noise(*SHAPE, dtype=dtype)
    predictor = 3 if dtype == "float32" else 2
    for options in (
        {},
        {"rowsperstrip": 5},
        {"tile": (16, 32)},
        {"compression": "zlib", "rowsperstrip": 7},
        {"compression": "lzw", "predictor": predictor},
        {"compression": "zstd", "tile": (16, 16), "predictor": predictor},
        {"compression": "packbits"},
        {"compression": 32946, "tile": (64, 64)},
    ):
        data = tiff(stored, byteorder=byte_order, bigtiff=big, **options)
        assert is_same(read(data), stored[np.newaxis]), options


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_tiff_of_other_floating_point_becomes_float32(dtype: str) -> None:
    stored = noise(*SHAPE, dtype=dtype)
    assert is_same(read(tiff(stored)), stored[np.newaxis].astype(np.float32))


@pytest.mark.parametrize("dtype", ["uint32", "int32", "uint64", "complex64"])
def test_tiff_of_other_numbers_is_refused_and_named(dtype: str) -> None:
    kind = {"u": "unsigned integer", "i": "signed integer", "c": "format 6"}[np.dtype(dtype).kind]
    bits = np.dtype(dtype).itemsize * 8
    with pytest.raises(ImageUnreadable, match=f"{bits}-bit {kind} samples; integers"):
        read(tiff(np.zeros(SHAPE, dtype)))


@pytest.mark.parametrize("samples", [3, 4])
@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_tiff_rgb_is_exact_and_alpha_is_dropped(samples: int, planar: str, dtype: str) -> None:
    stored = noise(samples, *SHAPE, dtype=dtype)
    for options in ({}, {"compression": "zlib", "rowsperstrip": 6}, {"tile": (16, 16)}):
        pixels = stored if planar == "separate" else np.moveaxis(stored, 0, 2)
        data = tiff(pixels, photometric="rgb", planarconfig=planar, **options)
        assert is_same(read(data), stored[:3])


def test_tiff_grey_with_alpha_gives_the_grey() -> None:
    stored = noise(*SHAPE, 2, dtype="uint16")
    data = tiff(stored, planarconfig="contig", extrasamples=["unassalpha"])
    assert is_same(read(data), stored[np.newaxis, ..., 0])


@pytest.mark.parametrize("kind", ["B", "H", "I"])
def test_all_planes_of_a_tiff_are_decoded_whatever_type_its_tags_have(kind: str) -> None:
    stored = noise(3, 4, 4)
    changed: Tags = {277: (kind, (3,))}
    changed |= {258: (kind, (8, 8, 8)), 259: (kind, (1,)), 262: (kind, (2,)), 284: (kind, (2,))}
    changed |= {273: (kind, (8, 24, 40)), 279: (kind, (16, 16, 16))}
    data = handmade_tiff(grey_tags(changed=changed), stored.tobytes())
    assert is_same(read(data), stored)


def test_stray_tags_of_tiles_do_not_touch_a_tiff_of_strips() -> None:
    stored = noise(4, 4)
    changed: Tags = {273: ("I", (8, 12, 16, 20)), 278: ("I", (1,)), 279: ("I", (4, 4, 4, 4))}
    changed |= {323: ("I", (16,)), 325: ("I", (4,))}
    assert is_same(read(handmade_tiff(grey_tags(changed=changed), stored.tobytes())), stored[None])


@pytest.mark.parametrize("samples", [2, 3, 5, 64])
@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_tiff_of_several_channels_is_exact(samples: int, planar: str, dtype: str) -> None:
    stored = noise(samples, *SHAPE, dtype=dtype)
    predictor = 3 if dtype == "float32" else 2
    for options in (
        {},
        {"compression": "zlib", "rowsperstrip": 6},
        {"compression": "lzw", "predictor": predictor},
        {"tile": (16, 16), "byteorder": ">"},
    ):
        pixels = stored if planar == "separate" else np.moveaxis(stored, 0, 2)
        assert is_same(read(tiff(pixels, planarconfig=planar, **options)), stored), options


@pytest.mark.parametrize("samples", [65, 224, 60_000])
def test_tiff_of_too_many_samples_is_refused_with_their_number(samples: int) -> None:
    with pytest.raises(ImageUnreadable, match=f"{samples} samples a pixel; at most 64"):
        read(tiff(noise(2, 3, samples), planarconfig="contig"))


@pytest.mark.parametrize("photometric", ["miniswhite", "separated"])
def test_tiff_with_channels_behind_colours_of_another_kind_is_refused(photometric: str) -> None:
    samples = 2 if photometric == "miniswhite" else 6
    data = tiff(noise(*SHAPE, samples), photometric=photometric, planarconfig="contig")
    with pytest.raises(ImageUnreadable, match=f"has {samples} samples a pixel, of which"):
        read(data)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_tiff_where_white_is_zero_is_inverted(dtype: str) -> None:
    stored = noise(*SHAPE, dtype=dtype)
    expected = np.iinfo(dtype).max - stored
    assert is_same(read(tiff(stored, photometric="miniswhite")), expected[np.newaxis])


@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
def test_bilevel_tiff_is_black_and_white(photometric: str) -> None:
    stored = noise(*SHAPE) > 127
    white = stored if photometric == "minisblack" else ~stored
    data = tiff(stored, photometric=photometric)
    assert is_same(read(data), white[np.newaxis] * np.uint8(255))


@pytest.mark.parametrize(("bits", "scale"), [(2, 85), (4, 17)])
def test_tiff_of_few_bits_spans_the_range_of_8_bits(bits: int, scale: int) -> None:
    values = np.arange(16, dtype=np.uint8).reshape(2, 8) % 2**bits
    packed = bytes(imagecodecs.packints_encode(values.ravel(), bits))
    tags = grey_tags(2, 8, changed={258: ("H", (bits,)), 279: ("I", (len(packed),))})
    assert is_same(read(handmade_tiff(tags, packed)), values[np.newaxis] * np.uint8(scale))


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_tiff_palette_gives_its_16_bit_colours(dtype: str) -> None:
    indices = noise(*SHAPE, dtype=dtype)
    colours = noise(3, 256 ** np.dtype(dtype).itemsize, dtype="uint16", seed=1)
    data = tiff(indices, photometric="palette", colormap=colours)
    assert is_same(read(data), colours[:, indices])


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_tiff_cmyk_is_mixed_at_full_depth(dtype: str) -> None:
    inks = noise(*SHAPE, 4, dtype=dtype)
    full = float(np.iinfo(dtype).max)
    mixed = (full - inks[..., :3]) * (full - inks[..., 3:]) / full
    pixels = read(tiff(inks, photometric="separated"))
    assert pixels.dtype == dtype
    assert np.abs(np.moveaxis(pixels, 0, 2) - mixed).max() <= 0.5


def test_tiff_with_reversed_bits_is_read() -> None:
    stored = noise(4, 4)
    reversed_ = bytes(imagecodecs.bitorder_encode(stored.tobytes()))
    data = handmade_tiff(grey_tags(changed={266: ("H", (2,))}), reversed_)
    assert is_same(read(data), stored[np.newaxis])


@pytest.mark.parametrize("codec", ["lerc", "jpeg", "jpeg2000", "webp", "jpegxl", "lzma"])
def test_tiff_compressions_off_the_list_are_refused_and_named(codec: str) -> None:
    data = tiff(noise(64, 64, 3), photometric="rgb", compression=codec)
    with pytest.raises(ImageUnreadable, match=r"compression \d+ \(\w+\); none, LZW"):
        read(data)


@pytest.mark.parametrize("photometric", [4, 6, 8, 32803, 34892])
def test_tiff_of_another_colour_space_is_refused_and_named(photometric: int) -> None:
    data = handmade_tiff(grey_tags(changed={262: ("H", (photometric,))}), bytes(16))
    with pytest.raises(ImageUnreadable, match=f"photometric interpretation {photometric};"):
        read(data)


def test_tiff_of_several_pages_is_refused_with_their_number() -> None:
    with pytest.raises(ImagePagesRefused, match="5 pages"):
        read(tiff(noise(5, *SHAPE), metadata=None))


def test_imagej_stack_behind_one_directory_is_refused_with_its_planes() -> None:
    buffer = BytesIO()
    stack = noise(7, *SHAPE, dtype="uint16")
    tifffile.imwrite(buffer, stack, imagej=True, photometric="minisblack")
    data = bytearray(buffer.getvalue())
    # ImageJ itself writes no second directory for stacks above 4 GB.
    first = struct.unpack_from("<I", data, 4)[0]
    following = first + 2 + 12 * struct.unpack_from("<H", data, first)[0]
    data[following : following + 4] = bytes(4)
    assert len(tifffile.TiffFile(BytesIO(bytes(data))).pages) == 1
    with pytest.raises(ImagePagesRefused, match="7 pages"):
        read(bytes(data))


def test_tifffile_stack_behind_one_directory_is_refused_with_its_planes() -> None:
    with pytest.raises(ImagePagesRefused, match="6 pages"):
        read(tiff(noise(6, *SHAPE), truncate=True))


def test_metamorph_stack_behind_one_directory_is_refused() -> None:
    with pytest.raises(ImagePagesRefused, match="3 pages"):
        read(handmade_tiff(grey_tags(changed={33629: ("I", (0, 0, 0))}), bytes(16)))


def test_tiff_volume_is_refused() -> None:
    with pytest.raises(ImagePagesRefused, match="8 pages"):
        read(tiff(noise(8, 16, 16), volumetric=True, tile=(16, 16, 16), metadata=None))


def test_a_pyramid_of_smaller_copies_is_one_page() -> None:
    buffer = BytesIO()
    stored = noise(64, 64)
    with tifffile.TiffWriter(buffer) as writer:
        options: dict[str, Any] = {"photometric": "minisblack", "metadata": None}
        writer.write(stored, subifds=1, **options)
        writer.write(stored[::2, ::2], subfiletype=1, **options)
        writer.write(stored[::4, ::4], subfiletype=1, **options)
    assert is_same(read(buffer.getvalue()), stored[np.newaxis])


def test_an_ome_tiff_that_names_another_file_gives_its_own_pixels(tmp_path: Path) -> None:
    other = tmp_path / "secret.ome.tif"
    tifffile.imwrite(other, np.full((2, *SHAPE), 99, np.uint8), photometric="minisblack")
    plane = '<TiffData IFD="0" FirstZ="{}"><UUID FileName="secret.ome.tif">u</UUID></TiffData>'
    xml = (
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0">'
        '<Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint8" SizeX="53" SizeY="37" '
        f'SizeZ="2" SizeC="1" SizeT="1">{plane.format(0)}{plane.format(1)}</Pixels></Image></OME>'
    )
    stored = noise(*SHAPE)
    assert is_same(read(tiff(stored, description=xml, metadata=None)), stored[np.newaxis])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({277: ("H", (60_000,))}, "60000 samples a pixel"),
        ({258: ("H", (8,) * 60_000)}, "tag 258 has 60000 values"),
        ({258: ("H", (12,))}, "12-bit unsigned integer"),
        ({258: ("H", (8, 16))}, r"\[8, 16\]-bit"),
        ({256: ("I", (4, 4))}, "tag 256 has 2 values"),
        ({273: ("I", (8, 8)), 279: ("I", (16, 16))}, "2 strips or tiles where"),
        ({278: ("I", (1,))}, "1 strips or tiles where its size asks for 4"),
        ({278: ("I", (0,))}, "truncated or damaged"),
        ({279: ("I", (15,))}, "truncated or damaged"),
        ({279: ("I", (10**6,))}, "truncated or damaged"),
        ({279: ("I", (0,))}, "truncated or damaged"),
        ({273: ("I", (0,))}, "truncated or damaged"),
        ({273: ("I", (10**6,))}, "truncated or damaged"),
        ({317: ("H", (77,))}, r"tag 317 is 77; \[1, 2, 3\] are read"),
        ({332: ("H", (2,))}, "tag 332 is 2"),
        ({262: ("H", (3,))}, "in a form that is not read"),
        ({262: ("H", (0,)), 339: ("H", (2,))}, "in a form that is not read"),
        ({324: ("I", (8,))}, "strips or tiles"),
    ],
)
def test_tiff_that_contradicts_itself_is_refused(changed: Tags, message: str) -> None:
    assert read(handmade_tiff(grey_tags(), bytes(16))).shape == (1, 4, 4)
    with pytest.raises(ImageUnreadable, match=message):
        read(handmade_tiff(grey_tags(changed=changed), bytes(16)))


def test_vendor_tags_are_not_interpreted(caplog: pytest.LogCaptureFixture) -> None:
    vendors = (33628, 34118, 34361, 34412, 50838, 50839, 65420, 65426, 34665, 34853, 330, 37706)
    tags = grey_tags(changed=dict.fromkeys(vendors, ("I", (1, 2, 3, 4))))
    with caplog.at_level(logging.DEBUG):
        assert read(handmade_tiff(tags, bytes(16))).shape == (1, 4, 4)
    assert not caplog.records
