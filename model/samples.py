"""Which samples of a TIFF are channels that a network reads: the same rule on both sides."""

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

MOST_SAMPLES = 64
"""That a pixel may have."""
ALPHA = (1, 2)
"""Extra samples that are opacity. Source: TIFF 6.0, section 18."""


def channels_of(samples: int, colours: int, extra: Sequence[int]) -> list[int]:
    """Give the places of the samples that are colours or channels of their own: all but opacity.

    Where colour has one sample more and no word on it, that is opacity, as in libtiff.

    Args:
        samples: Of a pixel.
        colours: Those that the photometric interpretation speaks of; they come first.
        extra: What the tag ExtraSamples says of those behind them, as far as it does.
    """
    if not extra and 1 < colours == samples - 1:
        extra = ALPHA
    alpha = {place for place, kind in enumerate(extra, colours) if kind in ALPHA}
    return [place for place in range(samples) if place not in alpha]


def take(pixels: NDArray[Any], places: Sequence[int]) -> NDArray[Any]:
    """Take the samples at some places of (samples, H, W): as a view, where they are the first."""
    count = len(places)
    chosen: NDArray[Any] = pixels[:count] if places == [*range(count)] else pixels[places]
    return chosen
