"""Hostile files: bombs, truncation, and changes at random."""

import struct
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from io import BytesIO

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from model.errors import ImageError, ImagePagesRefused, ImageUnreadable
from service.images import directory as directory_module
from service.images import page, read_header
from service.images.jpeg import pixel_segments
from service.images.jpeg import walk as walk_jpeg
from service.images.png import walk as walk_png
from tests.service.images.files import (
    SHAPE,
    chunk,
    encoded_png,
    exif_of,
    grey_tags,
    handmade_png,
    handmade_tiff,
    is_same,
    jpeg,
    noise,
    pillow,
    png,
    read,
    tiff,
)


def counted(items: Iterator[object], message: str) -> int:
    """Count what is walked until it is refused."""
    walked: list[object] = []
    with pytest.raises(ImageUnreadable, match=message):
        walked.extend(items)
    return len(walked)


def test_png_of_a_million_chunks_is_refused_early() -> None:
    data = handmade_png(1, 1, 8, 0, b"\0\x2a", chunk(b"vpAg") * 1_000_000)
    with pytest.raises(ImageUnreadable, match="more than 100,000 chunks"):
        read_header(data, max_image_pixels=1)
    assert counted(walk_png(data), "chunks") == 100_000


def test_jpeg_of_50_000_scans_is_refused_before_it_is_decoded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = jpeg(noise(*SHAPE), progressive=True)
    scan = data.rindex(b"\xff\xda")
    bomb = data[:-2] + data[scan:-2] * 50_000 + data[-2:]
    monkeypatch.setattr("service.images.jpeg.JpegImageFile", pytest.fail)
    with pytest.raises(ImageUnreadable, match="markers"):
        read(bomb)
    assert counted(walk_jpeg(bomb), "markers") == 4096


def test_the_decoder_sees_nothing_of_megabytes_of_exif_in_a_jpeg() -> None:
    data = jpeg(noise(*SHAPE))
    segment = b"\xff\xe1\xff\xff" + b"Exif\0\0".ljust(65_533, b"x")
    bomb = data[:2] + segment * 1000 + data[2:]
    assert is_same(read(bomb), read(data))
    assert pixel_segments(bomb) == pixel_segments(data)
    assert len(list(walk_jpeg(bomb))) == 1000 + len(list(walk_jpeg(data)))


def test_a_loop_of_directories_is_refused() -> None:
    data = handmade_tiff(grey_tags(), bytes(16), following=24)
    with pytest.raises(ImageUnreadable, match="form a loop"):
        read(data)


def test_a_chain_of_a_hundred_thousand_directories_is_refused_early(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = handmade_tiff(grey_tags(), bytes(16), following=1000).ljust(1000, b"\0")
    directory = struct.pack("<HHHII", 1, 256, 4, 1, 1)
    offsets = range(1000, 1000 + 18 * 100_000, 18)
    data += b"".join(directory + struct.pack("<I", offset + 18) for offset in offsets)
    places: list[int] = []

    def read_number(number: struct.Struct, data: bytes, place: int) -> int:
        places.append(place)
        return directory_module.read_number(number, data, place)

    monkeypatch.setattr(page, "read_number", read_number)
    with pytest.raises(ImagePagesRefused, match="more than 1,000 pages"):
        read(data)
    assert max(places) < 1000 + 18 * 1001


def tiled(edge: int, content: bytes, compression: int) -> bytes:
    tags = grey_tags(changed={259: ("H", (compression,)), 322: ("I", (edge,)), 323: ("I", (edge,))})
    del tags[273], tags[279]
    tags |= {324: ("I", (8,)), 325: ("I", (len(content),))}
    return handmade_tiff(tags, content)


def test_a_tile_much_larger_than_its_image_is_refused() -> None:
    assert read(tiled(1024, zlib.compress(bytes(1024**2)), 8)).shape == (1, 4, 4)
    with pytest.raises(ImageUnreadable, match="tiles hold 268,435,456 bytes for an image of 16"):
        read(tiled(16_384, zlib.compress(bytes(16)), 8))


COMPRESSIONS = {"zlib": 8, "lzw": 5, "packbits": 32773, "zstd": 50000}
ENCODERS: dict[str, Callable[[bytes], bytes]] = {
    "zlib": zlib.compress,
    "lzw": lambda content: bytes(imagecodecs.lzw_encode(content)),
    "packbits": lambda content: bytes(imagecodecs.packbits_encode(content)),
    "zstd": lambda content: bytes(imagecodecs.zstd_encode(content)),
}


@pytest.mark.parametrize("codec", COMPRESSIONS)
def test_a_strip_never_decodes_to_more_than_its_rows(codec: str) -> None:
    number = COMPRESSIONS[codec]
    # The encoder for PackBits takes minutes.
    bomb = b"\x81\0" * 150_000 if codec == "packbits" else ENCODERS[codec](bytes(20_000_000))
    tags = grey_tags(changed={259: ("H", (number,)), 279: ("I", (len(bomb),))})
    data = handmade_tiff(tags, bomb)
    tracemalloc.start()
    try:
        pixels = read(data)
    except ImageUnreadable:
        pixels = np.zeros((1, 4, 4))
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert not pixels.any()
    assert peak_bytes < 4 * len(data) + 1_000_000


@pytest.mark.parametrize("codec", COMPRESSIONS)
def test_a_strip_that_decodes_to_too_little_is_refused(codec: str) -> None:
    number = COMPRESSIONS[codec]
    content = ENCODERS[codec](bytes(12))
    tags = grey_tags(changed={259: ("H", (number,)), 279: ("I", (len(content),))})
    with pytest.raises(ImageUnreadable, match="truncated or damaged"):
        read(handmade_tiff(tags, content))


SPECIMENS: dict[str, bytes] = {
    "png": png(noise(*SHAPE, 3)),
    "png 16": encoded_png(noise(*SHAPE, 3, dtype="uint16")),
    "png palette": pillow(Image.fromarray(noise(*SHAPE, 3)).quantize(16), "PNG"),
    "jpeg": jpeg(noise(*SHAPE, 3), exif=exif_of(6)),
    "jpeg progressive": jpeg(noise(*SHAPE, 3), progressive=True),
    "tiff": tiff(noise(*SHAPE, dtype="uint16"), rowsperstrip=8, metadata=None),
    "tiff big": tiff(noise(*SHAPE, dtype="float32"), bigtiff=True, tile=(16, 16)),
    "tiff zlib": tiff(noise(*SHAPE), compression="zlib", predictor=2, byteorder=">"),
    "tiff lzw": tiff(noise(*SHAPE, 3), compression="lzw", photometric="rgb"),
    "tiff channels": tiff(noise(*SHAPE, 5), compression="zlib", planarconfig="contig"),
    "tiff pillow": pillow(Image.fromarray(noise(*SHAPE)), "TIFF", compression="packbits"),
}


@pytest.fixture(params=SPECIMENS)
def specimen(request: pytest.FixtureRequest) -> bytes:
    data = SPECIMENS[request.param]
    assert read(data).size > 0
    return data


def pixels_end(data: bytes) -> int:
    """Find the end of what an image needs: a TIFF may have spare bytes behind its last strip."""
    if data[:2] not in (b"II", b"MM"):
        return len(data)
    page = tifffile.TiffFile(BytesIO(data)).pages.first
    ends = [a + b for a, b in zip(page.dataoffsets, page.databytecounts, strict=True)]
    ends += [page.offset + 2, *(tag.valueoffset + tag.valuebytecount for tag in page.tags)]
    return max(ends)


def test_every_truncation_is_an_error(specimen: bytes) -> None:
    end = pixels_end(specimen)
    for length in {*range(0, end, max(1, end // 150)), *range(end - 20, end)}:
        with pytest.raises(ImageError):
            read(specimen[:length])


def test_hostile_changes_raise_our_errors_alone_and_log_nothing(
    specimen: bytes, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    random = np.random.default_rng(0)
    messages: list[str] = []
    for round_ in range(300):
        data = bytearray(specimen)
        # Headers and directories are where lies are told.
        reach = len(data) if round_ % 2 else min(len(data), 400)
        for index in random.integers(reach, size=random.integers(1, 6)):
            data[index if round_ % 4 < 2 else -1 - index] = random.integers(256)
        try:
            read(bytes(data))
        except ImageError as error:
            messages.append(str(error))
    assert len(messages) > 30
    assert all(message.isprintable() and " at 0x" not in message for message in messages)
    assert not caplog.records
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "raised", [OSError, ValueError, MemoryError, RecursionError, KeyError, ZeroDivisionError]
)
@pytest.mark.parametrize("kind", ["png", "jpeg", "tiff"])
def test_whatever_a_parser_raises_is_told_in_our_words(
    kind: str, raised: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise raised("secret at 0x7f00")

    monkeypatch.setattr(imagecodecs, "png_decode", fail)
    monkeypatch.setattr("service.images.jpeg.JpegImageFile", fail)
    monkeypatch.setattr("service.images.tiff.TiffFile", fail)
    with pytest.raises(ImageUnreadable) as caught:
        read(SPECIMENS[kind])
    expected = f"The image starts like a {kind.upper()} but is truncated or damaged."
    assert str(caught.value) == expected
    assert isinstance(caught.value.__cause__, raised)
