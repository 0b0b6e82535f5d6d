"""Pixels as the formats store them, and as the network wants them."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[Any]


class Grid(NamedTuple):
    """How a file's pixels lie, before they are set upright."""

    height: int
    """Stored rows, in px."""
    width: int
    """Stored columns, in px."""
    orientation: int
    """What the file says of them, as the TIFF tag 274 counts it; not yet checked."""
    channels: int
    """That they are decoded to."""


def channels_first(pixels: Pixels) -> Pixels:
    """Turn (H, W) or (H, W, samples) into (C, H, W) without alpha, as a view."""
    if pixels.ndim == 2:
        return pixels[np.newaxis]
    return np.moveaxis(pixels, 2, 0)[: 3 if pixels.shape[2] >= 3 else 1]


def cmyk_to_rgb(inks: Pixels) -> Pixels:
    """Mix (4, H, W) unsigned inks, the largest value being full ink, to (3, H, W) as deep."""
    full = int(np.iinfo(inks.dtype).max)
    rgb = np.empty((3, *inks.shape[1:]), inks.dtype)
    black = np.invert(inks[3]).astype(np.uint32)
    for ink, colour in zip(inks[:3], rgb, strict=True):
        light = np.invert(ink) * black
        light += full // 2
        np.floor_divide(light, full, out=colour, casting="unsafe")
    return rgb
