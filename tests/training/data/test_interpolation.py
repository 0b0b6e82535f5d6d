"""Masks whose edges became grey, and labels that have many values of their own."""

from collections.abc import Callable
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from model.errors import DatasetError
from tests.conftest import DATA
from tests.training.drawn import blocks, discs, with_borders
from tests.training.files import Pixels
from training.data.forms import Pair, find_pairs
from training.data.interpolation import require_uninterpolated
from training.data.pixels import read_labels

PAIR = Pair("a", Path("images/a.png"), Path("labels/a.png"))


def resized(mask: Pixels, factor: float, how: Image.Resampling) -> Pixels:
    edges = [round(edge * factor) for edge in mask.shape[::-1]]
    return np.asarray(Image.fromarray(mask).resize((edges[0], edges[1]), how))


def jpeg(mask: Pixels, quality: int) -> Pixels:
    decoded: Pixels = imagecodecs.jpeg_decode(imagecodecs.jpeg_encode(mask, quality))
    return decoded


INTERPOLATED: dict[str, Callable[[NDArray[np.uint8]], Pixels]] = {
    "blurred a little": lambda mask: ndimage.gaussian_filter(mask, 0.7),
    "blurred": lambda mask: ndimage.gaussian_filter(mask, 2.0),
    "blurred in 16 bits": lambda mask: ndimage.gaussian_filter(mask.astype(np.uint16) * 257, 1.0),
    "enlarged": lambda mask: resized(mask, 2, Image.Resampling.BILINEAR),
    "shrunk": lambda mask: resized(mask, 0.6, Image.Resampling.BILINEAR),
    "halved": lambda mask: resized(mask, 0.5, Image.Resampling.BOX),
    "turned": lambda mask: np.asarray(Image.fromarray(mask).rotate(7, Image.Resampling.BICUBIC)),
    "JPEG of quality 95": lambda mask: jpeg(mask, 95),
    "JPEG of quality 75": lambda mask: jpeg(mask, 75),
    "JPEG of quality 40": lambda mask: jpeg(mask, 40),
}


@pytest.mark.parametrize("how", INTERPOLATED)
@pytest.mark.parametrize("inverted", [False, True])
def test_an_interpolated_mask_is_refused_with_what_to_do(how: str, inverted: bool) -> None:
    mask = np.where((discs(0) > 0) ^ inverted, 255, 0).astype(np.uint8)
    require_uninterpolated(PAIR, mask)
    with pytest.raises(DatasetError, match=r"a mask that was interpolated: .* threshold it, or"):
        require_uninterpolated(PAIR, INTERPOLATED[how](mask))


def test_the_page_of_an_interpolated_mask_is_named() -> None:
    pair = Pair("x-001", Path("x-volume.tif"), Path("x-labels.tif"), 1)
    mask = ndimage.gaussian_filter(np.where(discs(0) > 0, 255, 0).astype(np.uint8), 1.0)
    with pytest.raises(DatasetError, match=r"x-labels\.tif, page 1, holds a mask"):
        require_uninterpolated(pair, mask)


@pytest.mark.parametrize(
    "labels",
    [
        discs(0) * 4,
        blocks(0, 120, 192),
        with_borders(blocks(0, 400, 192)),
        blocks(0, 2000, 64),
        np.repeat([[0, 0, 0, 60, 130, 255, 255, 255]], 9, axis=0),
        np.full((8, 8), 255),
        np.zeros((8, 8), np.uint64),
        np.where(discs(0) > 0, 200, -1),
        discs(0) * 1_000_000,
    ],
    ids=[
        "discs",
        "cells that fill the plane",
        "cells apart",
        "cells of a pixel or two",
        "a class drawn around another",
        "white alone",
        "black alone",
        "a negative value to be ignored",
        "large ids",
    ],
)
def test_labels_of_many_values_are_no_interpolated_mask(labels: Pixels) -> None:
    require_uninterpolated(PAIR, labels)


@pytest.mark.parametrize("folder", ["isbi2012", "dsb2018", "t98g"])
def test_real_labels_are_refused_only_once_they_are_blurred(folder: str) -> None:
    if not DATA.is_dir():
        pytest.skip(f"{DATA} is not here; it cannot be shipped with the project")
    for pair in find_pairs(DATA / folder).pairs[:5]:
        labels = read_labels(pair)
        require_uninterpolated(pair, labels)
        mask = np.where(labels > 0, 255, 0).astype(np.uint8)
        for blurred in (ndimage.gaussian_filter(mask, 1.0), jpeg(mask, 75)):
            with pytest.raises(DatasetError, match="interpolated"):
                require_uninterpolated(pair, blurred)
