"""From pixels of any depth to the numbers that a network reads: the same rule on both sides.

The scale of an image is measured once, over the whole of it, before it is cut into tiles: a scale
of each tile's own would show as seams.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from model.errors import ImageChannelsRefused

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue. Source: Rec. ITU-R BT.601."""

HISTOGRAM_CHUNK = 1 << 20
"""Pixels counted at a time: counting widens each to 8 bytes."""


@dataclass(frozen=True, slots=True)
class IntensityScale:
    """The linear scale of one image or channel: `low` becomes −1, `high` 1; beyond, it is cut."""

    low: float
    high: float

    def apply(self, pixels: NDArray[Any]) -> NDArray[np.float32]:
        """Scale pixels of any shape; an image without contrast becomes all 0."""
        half = np.float32((self.high - self.low) / 2)
        if half <= 0:
            return np.zeros(pixels.shape, np.float32)
        scaled = pixels.astype(np.float32)
        with np.errstate(over="ignore"):  # what overflows lies beyond the scale and is cut
            scaled -= np.float32((self.low + self.high) / 2)
            scaled /= half
        return np.clip(scaled, -1, 1, out=scaled)


@dataclass(frozen=True, slots=True)
class ChannelScales:
    """The scales of an image's channels, each its own."""

    channels: tuple[IntensityScale, ...]

    def apply(self, pixels: NDArray[Any]) -> NDArray[np.float32]:
        """Scale pixels (C, H, W), each channel by its own scale."""
        pairs = zip(self.channels, pixels, strict=True)
        return np.stack([scale.apply(channel) for scale, channel in pairs])


Scale = IntensityScale | ChannelScales


class IntensityRule(BaseModel):
    """How the scale of an image is found, over all its pixels and, as a rule, channels together.

    `percentile`: from the image itself, so that exposure does not matter. A percentile is a value
    that the image has, the nearest rank below, whatever its type: one image stored with 8, 16 or
    32 bits gives one scale. `range`: fixed, for values that mean the same in every image.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["percentile", "range"] = "percentile"
    low: float = Field(default=0.5, allow_inf_nan=False)
    """Percentile, or value, that becomes −1."""
    high: float = Field(default=99.5, allow_inf_nan=False)
    """Percentile, or value, that becomes 1."""
    per_channel: bool = False
    """Whether percentiles are those of each channel by itself, not those of all together: colour
    stays colour together, and of stains that are no colours a dim one is seen by itself."""

    @model_validator(mode="after")
    def _in_order(self) -> "IntensityRule":
        if self.low >= self.high:
            raise ValueError(f"low must lie below high; found {self.low} and {self.high}")
        if self.kind == "percentile" and not 0 <= self.low < self.high <= 100:
            raise ValueError(f"percentiles lie in 0 to 100; found {self.low} and {self.high}")
        if self.kind == "range" and self.per_channel:
            raise ValueError("a range is that of all channels")
        return self

    def measure(self, image: NDArray[Any]) -> Scale:
        """Measure the scale over a whole image (C, H, W) of integers or floats."""
        if self.kind == "range":
            return IntensityScale(self.low, self.high)
        if self.per_channel and image.strides[0] != 0:  # grey that was replicated has one
            return ChannelScales(tuple(self._together(channel[np.newaxis]) for channel in image))
        return self._together(image)

    def _together(self, image: NDArray[Any]) -> IntensityScale:
        copies = len(image) if image.strides[0] == 0 else 1
        different = image[:1] if copies > 1 else image  # of grey that was replicated, one channel
        wanted = (self.low, self.high)
        ranks = [int(percent / 100 * (image.size - 1)) // copies for percent in wanted]
        by_histogram = image.dtype in (np.uint8, np.uint16)
        low, high = (_of_ranks_counted if by_histogram else _of_ranks)(different, ranks)
        return IntensityScale(low, high)


def match_channels(image: NDArray[Any], channels: int) -> NDArray[Any]:
    """Give an image (C, H, W) the channels that a network reads.

    Colour becomes luma, at full depth, for a network of one channel; grey is replicated, without a
    copy, for a network of several.

    Raises:
        ImageChannelsRefused: for any other pair of numbers, naming both.
    """
    found = image.shape[0]
    if found == channels:
        return image
    if found == 1:
        return np.broadcast_to(image, (channels, *image.shape[1:]))
    if found == len(LUMA) and channels == 1:
        return _luma(image)
    other = len(LUMA) if channels == 1 else 1
    raise ImageChannelsRefused(
        f"The image has {found} channels; a network of {channels} reads {channels} or {other}."
    )


def _luma(image: NDArray[Any]) -> NDArray[np.float32]:
    luma = np.zeros((1, *image.shape[1:]), np.float32)
    for weight, channel in zip(LUMA, image, strict=True):
        luma[0] += np.float32(weight) * channel
    return luma


def _of_ranks_counted(image: NDArray[Any], ranks: Sequence[int]) -> tuple[float, ...]:
    """Give what would stand at these places of sorted small integers, without sorting them."""
    bins = np.iinfo(image.dtype).max + 1
    counts = np.zeros(bins, np.int64)
    # Whatever the strides, no more than a chunk is copied.
    for chunk in np.nditer(
        image, ["external_loop", "buffered"], buffersize=HISTOGRAM_CHUNK, order="K"
    ):
        counts += np.bincount(chunk, minlength=bins)
    return tuple(np.searchsorted(np.cumsum(counts), ranks, side="right").astype(float).tolist())


def _of_ranks(image: NDArray[Any], ranks: Sequence[int]) -> tuple[float, ...]:
    """Give what would stand at these places of sorted values, in one copy of them."""
    return tuple(np.partition(image, ranks, axis=None)[ranks].astype(float).tolist())
