"""Training and the service read one TIFF alike: a network is served what it was trained on."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from service.images import decode, read_header
from training.data.forms import Pair
from training.data.pixels import read_image, read_shape

FORMS: dict[str, tuple[int, int, dict[str, Any]]] = {
    "grey": (1, 1, {"photometric": "minisblack"}),
    "grey with alpha": (2, 1, {"photometric": "minisblack", "extrasamples": ["unassalpha"]}),
    "two channels": (2, 2, {"photometric": "minisblack"}),
    "three channels": (3, 3, {"photometric": "minisblack"}),
    "five channels": (5, 5, {"photometric": "minisblack"}),
    "channels, the last opacity": (
        3,
        2,
        {"photometric": "minisblack", "extrasamples": ["unspecified", "assocalpha"]},
    ),
    "channels around opacity": (
        3,
        2,
        {"photometric": "minisblack", "extrasamples": ["assocalpha", "unspecified"]},
    ),
    "colour": (3, 3, {"photometric": "rgb"}),
    "colour with alpha": (4, 3, {"photometric": "rgb", "extrasamples": ["assocalpha"]}),
    "colour and a channel": (4, 4, {"photometric": "rgb", "extrasamples": ["unspecified"]}),
    "colour and two channels": (5, 5, {"photometric": "rgb"}),
    "as many as are read": (64, 64, {"photometric": "minisblack"}),
}
"""Samples of a pixel, channels, and how they are stored."""


def read_twice(path: Path) -> tuple[Any, Any]:
    """Read a file as the service does, and as training does."""
    data, pair = path.read_bytes(), Pair("a", path, path)
    served = decode(data, read_header(data, max_image_pixels=10_000))
    trained = read_image(pair)
    assert trained.shape == read_shape(pair)
    return served, trained


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
@pytest.mark.parametrize("form", FORMS)
def test_a_tiff_has_the_same_channels_on_both_sides(tmp_path: Path, form: str, dtype: str) -> None:
    samples, channels, options = FORMS[form]
    stored = np.random.default_rng(0).integers(0, 120, (12, 9, samples)).astype(dtype)
    stored = stored[..., 0] if samples == 1 else stored
    planes = None if samples == 1 else "contig"
    tifffile.imwrite(tmp_path / "a.tif", stored, planarconfig=planes, **options)

    served, trained = read_twice(tmp_path / "a.tif")

    assert len(served) == channels
    assert served.dtype == trained.dtype == dtype
    np.testing.assert_array_equal(served, trained)


def test_one_sample_more_than_colour_without_a_word_is_opacity_on_both_sides(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.arange(48, dtype=np.uint8).reshape(3, 4, 4), photometric="rgb")
    with tifffile.TiffFile(path) as file:
        entry = file.pages.first.tags["ExtraSamples"].offset
    data = bytearray(path.read_bytes())
    data[entry : entry + 2] = (65000).to_bytes(2, "little")  # a tag that nobody knows
    path.write_bytes(data)

    served, trained = read_twice(path)

    assert len(served) == 3
    np.testing.assert_array_equal(served, trained)
