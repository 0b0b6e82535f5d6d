"""From files to arrays: what is kept of a file's pixels, and which files are refused."""

import io
import struct
import zlib
from pathlib import Path
from typing import Any, Literal

import imagecodecs
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from model.errors import DatasetError
from tests.training.files import noise, stripes, write
from training.data.forms import Pair
from training.data.pixels import read_image, read_labels, read_shape


def pair_of(path: Path, page: int | None = None) -> Pair:
    """One file as both image and labels."""
    return Pair(path.stem, path, path, page)


def as_image(path: Path, page: int | None = None) -> NDArray[Any]:
    """Read an image, and hold what its header promised against it."""
    pair = pair_of(path, page)
    image = read_image(pair)
    assert read_shape(pair) == image.shape
    return image


@pytest.mark.parametrize("suffix", [".png", ".tif", ".tiff", ".PNG"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("samples", [1, 3])
def test_images_are_read_at_full_depth(
    tmp_path: Path, suffix: str, dtype: Any, samples: int
) -> None:
    stored = noise((12, 9, samples)[: 2 if samples == 1 else 3], dtype)
    path = tmp_path / f"a{suffix.lower()}"
    write(path, stored)
    image = as_image(path.rename(tmp_path / f"b{suffix}"))
    assert image.dtype == dtype
    np.testing.assert_array_equal(image, np.moveaxis(np.atleast_3d(stored), 2, 0))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_are_read_as_the_service_reads_them(tmp_path: Path, dtype: Any) -> None:
    stored = np.linspace(-1, 1, 108).reshape(12, 9).astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", stored)
    image = as_image(tmp_path / "a.tif")
    assert image.dtype == np.float32
    np.testing.assert_array_equal(image[0], stored.astype(np.float32))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", ["u2", "i2", "f4"])
def test_any_byte_order_becomes_that_of_the_machine(
    tmp_path: Path, order: Literal["<", ">"], kind: str
) -> None:
    stored = np.arange(108).reshape(12, 9).astype(kind)
    tifffile.imwrite(tmp_path / "a.tif", stored, byteorder=order, photometric="minisblack")
    image = as_image(tmp_path / "a.tif")
    assert image.dtype.isnative
    np.testing.assert_array_equal(image[0], stored)


@pytest.mark.parametrize(("samples", "channels"), [(2, 1), (3, 3), (4, 3)])
def test_alpha_in_a_png_is_dropped(tmp_path: Path, samples: int, channels: int) -> None:
    stored = noise((12, 9, samples))
    write(tmp_path / "a.png", stored)
    np.testing.assert_array_equal(
        as_image(tmp_path / "a.png"), np.moveaxis(stored[:, :, :channels], 2, 0)
    )


@pytest.mark.parametrize(
    ("photometric", "samples", "extra", "channels"),
    [
        ("minisblack", 2, ["unassalpha"], 1),
        ("minisblack", 2, ["unspecified"], 2),
        ("minisblack", 5, None, 5),
        ("rgb", 4, ["assocalpha"], 3),
        ("rgb", 4, ["unspecified"], 4),
        ("rgb", 5, ["assocalpha", "unspecified"], 4),
        ("rgb", 5, None, 5),
    ],
)
def test_of_a_tiff_alpha_is_dropped_and_channels_are_kept(
    tmp_path: Path, photometric: str, samples: int, extra: list[str] | None, channels: int
) -> None:
    stored = noise((12, 9, samples))
    tifffile.imwrite(
        tmp_path / "a.tif",
        stored,
        photometric=photometric,
        planarconfig="contig",
        extrasamples=extra,
    )
    kept = [0, 1, 2, 4] if extra == ["assocalpha", "unspecified"] else range(channels)
    np.testing.assert_array_equal(
        as_image(tmp_path / "a.tif"), np.moveaxis(stored[:, :, kept], 2, 0)
    )


@pytest.mark.parametrize("read", [read_shape, read_image])
def test_a_tiff_of_more_samples_than_the_service_reads_is_refused(
    tmp_path: Path, read: Any
) -> None:
    tifffile.imwrite(
        tmp_path / "a.tif", noise((12, 9, 65)), photometric="minisblack", planarconfig="contig"
    )
    with pytest.raises(DatasetError, match=r"a\.tif has 65 samples a pixel; at most 64 are read"):
        read(pair_of(tmp_path / "a.tif"))


def test_an_image_with_a_palette_has_its_colours(tmp_path: Path) -> None:
    picture = Image.fromarray(stripes())
    picture.putpalette([0, 0, 0, 230, 159, 0])
    picture.save(tmp_path / "a.png")
    np.testing.assert_array_equal(as_image(tmp_path / "a.png")[:, 0, 0], [230, 159, 0])


def test_a_tiff_of_single_bits_is_read_as_numbers(tmp_path: Path) -> None:
    stored = stripes((12, 8)).astype(bool)
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="minisblack")
    assert as_image(tmp_path / "a.tif").dtype == np.uint8
    np.testing.assert_array_equal(read_labels(pair_of(tmp_path / "a.tif")), stored)


STACKS: list[dict[str, Any]] = [
    {},
    {"imagej": True},
    {"imagej": True, "truncate": True},
    {"compression": "zlib"},
    {"rowsperstrip": 5},
]


@pytest.mark.parametrize("stored", STACKS, ids=str)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_every_page_of_a_stack_is_read_however_it_is_stored(
    tmp_path: Path, stored: dict[str, Any], dtype: Any
) -> None:
    stack = noise((4, 12, 9), dtype)
    path = tmp_path / "x-volume.tif"
    tifffile.imwrite(path, stack, photometric="minisblack", **stored)
    for page in range(4):
        np.testing.assert_array_equal(as_image(path, page), stack[page : page + 1])
        np.testing.assert_array_equal(read_labels(pair_of(path, page)), stack[page])


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_a_page_is_read_without_the_pixels_of_any_other(
    tmp_path: Path, compression: str | None
) -> None:
    """The other pages are cut off or damaged, and it does not matter."""
    path = tmp_path / "x-volume.tif"
    stack = noise((4, 64, 64))
    tifffile.imwrite(path, stack, photometric="minisblack", compression=compression)
    with tifffile.TiffFile(path) as file:
        places = [(page.dataoffsets[0], page.databytecounts[0]) for page in file.pages]
    data = bytearray(path.read_bytes())
    for page, (start, size) in enumerate(places):
        if page != 2:
            data[start : start + size] = b"\xff" * size
    path.write_bytes(data)
    np.testing.assert_array_equal(as_image(path, 2)[0], stack[2])


def test_coloured_pages_have_their_channels(tmp_path: Path) -> None:
    stack = noise((2, 12, 9, 3))
    tifffile.imwrite(tmp_path / "x-volume.tif", stack, photometric="rgb")
    np.testing.assert_array_equal(
        as_image(tmp_path / "x-volume.tif", 1), np.moveaxis(stack[1], 2, 0)
    )


def test_labels_with_a_palette_are_its_indices(tmp_path: Path) -> None:
    """As the service answers: a corrected answer can be learnt from."""
    labels = stripes() * 2
    picture = Image.fromarray(labels)
    picture.putpalette([0, 0, 0, 230, 159, 0, 86, 180, 233])
    picture.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_labels(pair_of(tmp_path / "a.png")), labels)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.uint32, np.int32, np.int64])
def test_labels_are_any_integers(tmp_path: Path, dtype: Any) -> None:
    labels = (noise((12, 9)) // 3).astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", labels, photometric="minisblack")
    np.testing.assert_array_equal(read_labels(pair_of(tmp_path / "a.tif")), labels)


def test_labels_with_colours_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.png", noise((12, 9, 3)))
    said = r"a\.png must hold one integer .* 3 channel.*uint8; convert each colour to the id"
    with pytest.raises(DatasetError, match=said):
        read_labels(pair_of(tmp_path / "a.png"))


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_labels_in_grey_that_are_stored_as_colour_are_read_once(
    tmp_path: Path, suffix: str
) -> None:
    write(tmp_path / f"a{suffix}", np.stack([stripes()] * 3, axis=2))
    np.testing.assert_array_equal(read_labels(pair_of(tmp_path / f"a{suffix}")), stripes())


def test_labels_that_are_no_integers_are_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((12, 9), np.float32))
    with pytest.raises(DatasetError, match=r"one integer a pixel; found 1 channel.*float32"):
        read_labels(pair_of(tmp_path / "a.tif"))


def test_labels_beyond_32_bits_are_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.full((6, 6), 2**31, np.uint32))
    with pytest.raises(DatasetError, match="holds the label 2147483648; at most 2147483647"):
        read_labels(pair_of(tmp_path / "a.tif"))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_counted_and_refused(tmp_path: Path, value: float) -> None:
    pixels = np.zeros((12, 9), np.float32)
    pixels[3, 4:6] = value
    tifffile.imwrite(tmp_path / "a.tif", pixels)
    with pytest.raises(DatasetError, match=r"a\.tif has 2 value\(s\) that are not finite"):
        read_image(pair_of(tmp_path / "a.tif"))


def test_a_value_that_the_service_cannot_hold_is_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.full((6, 6), 1e300))
    with pytest.raises(DatasetError, match="not finite"):
        read_image(pair_of(tmp_path / "a.tif"))


def test_the_page_with_values_that_are_not_finite_is_named(tmp_path: Path) -> None:
    pixels = np.zeros((3, 12, 9), np.float32)
    pixels[1, 0, 0] = np.nan
    tifffile.imwrite(tmp_path / "x-volume.tif", pixels, photometric="minisblack")
    assert not read_image(pair_of(tmp_path / "x-volume.tif", 0)).any()
    with pytest.raises(DatasetError, match=r"x-volume\.tif, page 1, has 1 value"):
        read_image(pair_of(tmp_path / "x-volume.tif", 1))


@pytest.mark.parametrize("dtype", [np.uint32, np.int32, np.complex64])
def test_numbers_that_the_service_does_not_read_are_refused(tmp_path: Path, dtype: Any) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((12, 9), dtype), photometric="minisblack")
    with pytest.raises(DatasetError, match=f"holds {np.dtype(dtype).name} values"):
        read_image(pair_of(tmp_path / "a.tif"))


@pytest.mark.parametrize(
    "stored",
    [
        {"photometric": "miniswhite"},
        {"photometric": "minisblack", "extratags": [(274, 3, 1, 6, True)]},
        {"photometric": "rgb", "planarconfig": "separate"},
    ],
    ids=["inverted", "turned", "by planes"],
)
@pytest.mark.parametrize("read", [read_shape, read_image, read_labels])
def test_a_tiff_that_the_service_would_read_otherwise_is_refused(
    tmp_path: Path, stored: dict[str, Any], read: Any
) -> None:
    image = noise((3, 12, 9) if "planarconfig" in stored else (12, 9))
    tifffile.imwrite(tmp_path / "a.tif", image, **stored)
    with pytest.raises(DatasetError, match="contiguous and upright"):
        read(pair_of(tmp_path / "a.tif"))


@pytest.mark.parametrize("truncate", [False, True])
@pytest.mark.parametrize("read", [read_shape, read_image, read_labels])
def test_pages_where_one_image_is_wanted_are_refused(
    tmp_path: Path, truncate: bool, read: Any
) -> None:
    tifffile.imwrite(tmp_path / "a.tif", noise((3, 12, 9)), imagej=True, truncate=truncate)
    with pytest.raises(DatasetError, match=r"a\.tif has 3 pages where one image is wanted"):
        read(pair_of(tmp_path / "a.tif"))


def with_orientation(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[274] = orientation
    file = io.BytesIO()
    Image.fromarray(noise()).save(file, "PNG", exif=exif)
    return file.getvalue()


@pytest.mark.parametrize("read", [read_shape, read_image, read_labels])
@pytest.mark.parametrize("orientation", [2, 3, 6, 8])
def test_a_png_that_is_turned_by_its_metadata_is_refused(
    tmp_path: Path, orientation: int, read: Any
) -> None:
    (tmp_path / "a.png").write_bytes(with_orientation(orientation))
    with pytest.raises(DatasetError, match=rf"a\.png is stored with orientation {orientation}"):
        read(pair_of(tmp_path / "a.png"))


def test_metadata_that_leave_a_png_upright_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(with_orientation(1))
    np.testing.assert_array_equal(as_image(tmp_path / "a.png")[0], noise())
    info = PngInfo()
    info.add_text("Comment", "drawn by hand")
    Image.fromarray(noise()).save(tmp_path / "b.png", pnginfo=info)
    np.testing.assert_array_equal(as_image(tmp_path / "b.png")[0], noise())


def cut(data: bytes) -> bytes:
    return data[:-20]


def headless(data: bytes) -> bytes:
    return data[:8] + data[33:]


def strangely_coloured(data: bytes) -> bytes:
    header = b"IHDR" + struct.pack(">IIBBBBB", 9, 12, 8, 5, 0, 0, 0)
    return data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:]


@pytest.mark.parametrize("damage", [cut, headless, strangely_coloured])
@pytest.mark.parametrize("read", [read_shape, read_image, read_labels])
def test_a_png_that_is_damaged_is_refused_before_it_is_decoded(
    tmp_path: Path, damage: Any, read: Any
) -> None:
    (tmp_path / "a.png").write_bytes(damage(imagecodecs.png_encode(noise())))
    with pytest.raises(DatasetError, match=r"a\.png cannot be read"):
        read(pair_of(tmp_path / "a.png"))


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("read", [read_shape, read_image, read_labels])
@pytest.mark.parametrize("content", [b"", b"neither a PNG nor a TIFF", None])
def test_a_file_that_is_no_image_is_named(
    tmp_path: Path, suffix: str, read: Any, content: bytes | None
) -> None:
    path = tmp_path / f"a{suffix}"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DatasetError, match=f"a{suffix} cannot be read"):
        read(pair_of(path))


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("read", [read_image, read_labels])
def test_pixels_that_are_damaged_are_named(tmp_path: Path, suffix: str, read: Any) -> None:
    path = tmp_path / f"a{suffix}"
    if suffix == ".png":
        data = imagecodecs.png_encode(noise((64, 64)))
        place = data.index(b"IDAT") + 8
    else:
        tifffile.imwrite(path, noise((64, 64)), compression="zlib")
        data = path.read_bytes()
        with tifffile.TiffFile(path) as file:
            place = file.pages.first.dataoffsets[0]
    path.write_bytes(data[:place] + b"\x55" * 64 + data[place + 64 :])
    with pytest.raises(DatasetError, match=f"a{suffix} cannot be read"):
        read(pair_of(path))
