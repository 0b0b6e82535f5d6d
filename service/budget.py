"""How the memory that the process may take is divided, where the settings do not say otherwise.

A system ends a process that takes too much, and all its requests with it; so none of this is left
to chance. On a GPU, models and tiles are bounded by nothing here: it refuses what is too much, and
is asked for less from then on.
"""

from model.architecture import Architecture
from model.memory import usable_memory
from model.segmentation import DEFAULT_TILE_EDGE
from service.models.loaded import bytes_a_pixel

MODELS_PART, TILE_PART, IMAGES_PART = 2, 8, 4
"""Of the memory, models that are open may take a half, the largest tile of each an eighth, and
images that are held a fourth. The rest is for the process itself and its decoders."""
MOST_PIXELS = 512_000_000
BYTES_A_PIXEL = 8
"""Of an image that is held: its file, its pixels and its labels."""


def models_bytes() -> int:
    """Give what open models may take on a CPU."""
    return usable_memory() // MODELS_PART


def tile_pixels(architecture: Architecture) -> int:
    """Give what the largest tile of a network may have on a CPU, in px."""
    fitting = usable_memory() // TILE_PART // bytes_a_pixel(architecture)
    return min(fitting, DEFAULT_TILE_EDGE**2)


def image_pixels() -> int:
    """Give what images that are held at a time may have together, in px."""
    return min(usable_memory() // IMAGES_PART // BYTES_A_PIXEL, MOST_PIXELS)
