"""Small annotated images, drawn and written as users have them."""

from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray

from training.data.dataset import Dataset, read_dataset

Pixels = NDArray[Any]


def write(path: Path, pixels: Pixels) -> None:
    """Write (H, W), (H, W, samples) or grey pages (N, H, W) by the suffix of the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".png":
        path.write_bytes(imagecodecs.png_encode(pixels))
    else:
        colour = pixels.ndim == 3 and pixels.shape[2] == 3
        tifffile.imwrite(path, pixels, photometric="rgb" if colour else "minisblack")


def noise(shape: tuple[int, ...] = (12, 9), dtype: Any = np.uint8, seed: int = 0) -> Pixels:
    """Draw integers over the whole range of their type."""
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


def stripes(shape: tuple[int, int] = (12, 9), value: int = 1) -> Pixels:
    """Draw a class in several pieces."""
    return np.where(np.indices(shape)[0] % 4 < 2, value, 0).astype(np.uint8)


def write_pair(folder: Path, image: Pixels, labels: Pixels, stem: str = "a") -> None:
    """Write an image as TIFF and its labels as PNG."""
    write(folder / "images" / f"{stem}.tif", image)
    write(folder / "labels" / f"{stem}.png", labels)


def write_many(folder: Path, count: int, groups: list[str] | None = None) -> Dataset:
    """Write and read images t0, t1, … of noise with striped labels, and an index of groups."""
    for number in range(count):
        write_pair(folder, noise(seed=number), stripes(), f"t{number}")
    if groups:
        lines = [f"t{number},{group}\n" for number, group in enumerate(groups)]
        (folder / "index.csv").write_text("id,group\n" + "".join(lines))
    return read_dataset(folder)
