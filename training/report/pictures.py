"""Arrays to pictures that stand inside the page."""

import base64
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model.intensity import IntensityRule

LARGEST_EDGE = 512
"""Pictures are scaled down to this, in px, so that a page of many stays small."""
JPEG_QUALITY = 88

Size = tuple[int, int]


def drawn_size(shape: tuple[int, ...]) -> Size:
    """Give the size (h, w) at which layers over an image (H, W) are drawn, in px.

    Small images are magnified by a whole number, so that outlines do not cover what they enclose.
    """
    height, width = shape
    longer = max(height, width)
    if longer <= LARGEST_EDGE:
        times = LARGEST_EDGE // longer
        return height * times, width * times
    factor = LARGEST_EDGE / longer
    return max(round(height * factor), 1), max(round(width * factor), 1)


def resample(labels: NDArray[Any], size: Size) -> NDArray[Any]:
    """Scale labels (H, W) to (h, w), each pixel taking the nearest label."""
    rows, columns = (
        np.arange(length) * whole // length
        for whole, length in zip(labels.shape, size, strict=True)
    )
    chosen: NDArray[Any] = labels[rows[:, np.newaxis], columns]
    return chosen


def photograph(image: NDArray[Any], rule: IntensityRule) -> str:
    """Give an image (C, H, W) as a JPEG data URI, on the scale that the network reads.

    Three channels are shown as colour; of any other number, the first is shown.
    """
    shown = image if image.shape[0] == 3 else image[:1]
    scaled = (rule.measure(shown).apply(shown) + 1) * 127.5
    pixels = np.moveaxis(scaled.round().astype(np.uint8), 0, 2)
    picture = Image.fromarray(pixels if len(image) == 3 else pixels[..., 0])
    picture.thumbnail((LARGEST_EDGE, LARGEST_EDGE), Image.Resampling.BOX)
    return _data_uri(picture, "jpeg", quality=JPEG_QUALITY, subsampling=0)


def layer(pixels: NDArray[np.uint8]) -> str:
    """Give what lies over an image, (h, w, 4) RGBA, as a PNG data URI."""
    return _data_uri(Image.fromarray(pixels), "png", optimize=True)


def _data_uri(picture: Image.Image, kind: str, **options: int | bool) -> str:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"
