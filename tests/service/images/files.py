"""Images as files, as encoders write them and by hand; and how the tests read them."""

import struct
import zlib
from io import BytesIO
from typing import Any

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from service.images import decode, read_header

Pixels = NDArray[Any]
Tags = dict[int, tuple[str, tuple[int, ...]]]
LIMIT = 10_000_000
SHAPE = (37, 53)
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def noise(*shape: int, dtype: str = "uint8", seed: int = 0) -> Pixels:
    if np.dtype(dtype).kind == "f":
        return np.random.default_rng(seed).normal(size=shape).astype(dtype)
    limits = np.iinfo(dtype)
    return np.random.default_rng(seed).integers(limits.min, limits.max, shape, dtype, endpoint=True)


def pillow(image: Image.Image, format_: str, **options: Any) -> bytes:
    buffer = BytesIO()
    image.save(buffer, format_, **options)
    return buffer.getvalue()


def png(pixels: Pixels, **options: Any) -> bytes:
    return pillow(Image.fromarray(pixels), "PNG", **options)


def encoded_png(pixels: Pixels) -> bytes:
    """Encode 16-bit colour too, which Pillow does not write."""
    return bytes(imagecodecs.png_encode(pixels))


def jpeg(pixels: Pixels, **options: Any) -> bytes:
    return pillow(Image.fromarray(pixels), "JPEG", **options)


def encoded_jpeg(pixels: Pixels, **options: Any) -> bytes:
    """Encode kinds of JPEG that Pillow does not write."""
    return bytes(imagecodecs.jpeg8_encode(pixels, **options))


def tiff(pixels: Pixels, **options: Any) -> bytes:
    buffer = BytesIO()
    options.setdefault("photometric", "minisblack")
    tifffile.imwrite(buffer, pixels, **options)
    return buffer.getvalue()


def chunk(name: bytes, content: bytes = b"") -> bytes:
    checksum = zlib.crc32(name + content)
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum)


def handmade_png(
    width: int, height: int, bits: int, colour: int, rows: bytes, *extra: bytes
) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    chunks = [chunk(b"IHDR", header), *extra, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND")]
    return PNG_SIGNATURE + b"".join(chunks)


def handmade_tiff(tags: Tags, content: bytes = b"", following: int = 0) -> bytes:
    """Write a little-endian TIFF: the content at offset 8, then one directory."""
    kinds = {"B": 1, "H": 3, "I": 4}
    start = 8 + len(content)
    spill = start + 2 + 12 * len(tags) + 4
    entries, values = b"", b""
    for code, (kind, numbers) in sorted(tags.items()):
        packed = struct.pack(f"<{len(numbers)}{kind}", *numbers)
        entries += struct.pack("<HHI", code, kinds[kind], len(numbers))
        if len(packed) <= 4:
            entries += packed.ljust(4, b"\0")
        else:
            entries += struct.pack("<I", spill + len(values))
            values += packed
    directory = struct.pack("<H", len(tags)) + entries + struct.pack("<I", following)
    return b"II*\0" + struct.pack("<I", start) + content + directory + values


def grey_tags(height: int = 4, width: int = 4, changed: Tags | None = None) -> Tags:
    """Tags of an uncompressed 8-bit image whose pixels start at offset 8."""
    tags: Tags = {
        256: ("I", (width,)),
        257: ("I", (height,)),
        258: ("H", (8,)),
        259: ("H", (1,)),
        262: ("H", (1,)),
        273: ("I", (8,)),
        279: ("I", (height * width,)),
    }
    return tags | (changed or {})


def exif_of(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[274] = orientation
    return exif.tobytes()


def read(data: bytes, limit: int = LIMIT) -> Pixels:
    """Read an image, and hold its header and form to what is promised of every image."""
    header = read_header(data, max_image_pixels=limit)
    pixels = decode(data, header)
    assert pixels.shape == (header.channels, header.height, header.width)
    assert pixels.dtype.name in ("uint8", "uint16", "int8", "int16", "float32")
    assert pixels.dtype.isnative
    return pixels


def is_same(read_pixels: Pixels, expected: Pixels) -> bool:
    return read_pixels.dtype == expected.dtype and np.array_equal(read_pixels, expected)
