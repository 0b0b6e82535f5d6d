"""How the memory that the process may take is divided, where the settings do not say otherwise.

A system ends a process that takes too much, and all its requests with it. On a GPU, models and
tiles are bounded by nothing here: it refuses what is too much, and is asked for less for a while.
Uploads are bounded by their size and number alone, before their images are known.
"""

import functools

from model.architecture import Architecture
from model.memory import usable_memory
from model.segmentation import DEFAULT_TILE_EDGE
from service.models.loaded import bytes_a_pixel
from service.settings import Settings

MODELS_PART, TILE_PART, IMAGES_PART = 2, 8, 4
"""Of the memory, models that are open may take a half, the largest tile of each an eighth, and
images that are held a fourth. The rest is for the process itself and its decoders."""
MOST_PIXELS, MOST_PIXELS_HELD = 128_000_000, 512_000_000
BYTES_A_PIXEL = 12
"""Of an image that is held: file, pixels and labels of 8-bit colour, read by a grey model."""


@functools.cache
def memory() -> int:
    """Give the memory that is divided, as it was when somebody first asked, in bytes."""
    return usable_memory()


def models_bytes() -> int:
    """Give what open models may take on a CPU."""
    return memory() // MODELS_PART


def tile_pixels(architecture: Architecture) -> int:
    """Give what the largest tile of a network may have on a CPU, in px."""
    fitting = memory() // TILE_PART // bytes_a_pixel(architecture)
    return min(fitting, DEFAULT_TILE_EDGE**2)


def filled(settings: Settings) -> Settings:
    """Give settings with the limits of images that they leave to the memory."""
    pixels = memory() // IMAGES_PART // BYTES_A_PIXEL
    limits = {
        "max_image_pixels": min(pixels, MOST_PIXELS),
        "max_pending_pixels": min(pixels, MOST_PIXELS_HELD),
    }
    left = {name: limit for name, limit in limits.items() if not getattr(settings, name)}
    return settings.model_copy(update=left)
