"""The images that are sent: a micrograph of the repository, laid out to any size."""

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.subject import ROOT

FOLDER = ROOT / "docs" / "samples" / "membranes"
SAMPLE = FOLDER / "images" / "membranes-000.png"


def sample(height: int, width: int | None = None) -> NDArray[np.uint8]:
    """Give (height, width) grey pixels; a square, where no width is said."""
    width = width or height
    with Image.open(SAMPLE) as picture:
        pixels = np.asarray(picture.convert("L"))
    copies = -(-height // pixels.shape[0]), -(-width // pixels.shape[1])
    return np.ascontiguousarray(np.tile(pixels, copies)[:height, :width])


def png(pixels: NDArray[Any]) -> bytes:
    """Write an image as a client would send it."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def read_png(data: bytes) -> NDArray[Any]:
    """Read a label map (H, W) out of an answer."""
    Image.MAX_IMAGE_PIXELS = None  # our own answers
    with Image.open(io.BytesIO(data)) as picture:
        return np.asarray(picture)
