"""Annotated images out of nothing: for examples, tests and trying the software without data.

    python -m training.synthetic membranes --out DIR --count 4 --size 512 --seed 0

    membranes       like neuropil in serial-section TEM at 4 nm/px; 8-bit; labels 0 and 255 (inside)
    blobs           like fluorescent nuclei; 8-bit; 16-bit instance labels
    touching-cells  like cells in phase contrast; 16-bit; 16-bit instance labels without gaps

The same kind, size and seed give the same image.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import tifffile
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage, signal

Kind = Literal["membranes", "blobs", "touching-cells"]
Size = tuple[int, int]
Field = NDArray[np.float64]
Pixels = NDArray[np.unsignedinteger[Any]]

SMALLEST_EDGE = 64
"""Smallest edge in px: with less room an image may hold no object."""

_NEURITES = {(55, 75): 3, (24, 42): 17, (7, 16): 120}
"""Spans of radii in px, and how many of each are tried on 512 x 512 px."""


@dataclass(frozen=True, eq=False)
class _Foam:
    """A plane filled with round cells: their ids from 1, and distances to their circles in px."""

    cells: NDArray[np.int32]
    nearest: Field
    third: Field


def generate(kind: Kind, size: Size, seed: int) -> tuple[Pixels, Pixels]:
    """Draw one annotated image.

    Args:
        kind: What it looks like.
        size: Height and width in px, each at least 64.
        seed: Not negative; the same gives the same.

    Returns:
        The image, (H, W) uint8 or, for touching cells, uint16; and its labels, (H, W) uint8 of
        0 and 255 for membranes, uint16 ids from 1 without gaps for the others, 0 outside.

    Raises:
        ValueError: The kind is unknown, or an edge is too small.
    """
    if kind not in _PAINTERS:
        raise ValueError(f"kind must be one of {', '.join(_PAINTERS)}, got {kind!r}")
    if min(size) < SMALLEST_EDGE:
        raise ValueError(f"size must be at least {SMALLEST_EDGE} px each way, got {size}")
    return _PAINTERS[kind](np.random.default_rng(seed), size)


def _membranes(rng: Generator, size: Size) -> tuple[Pixels, Pixels]:
    share = max(size[0] * size[1], 128**2) / 512**2
    radii = [rng.uniform(*span, round(count * share)) for span, count in _NEURITES.items()]
    foam = _foam(rng, size, np.concatenate(radii), bend=14.0, ripple=1.5)
    walls: Field = ndimage.distance_transform_edt(~_borders(foam.cells))
    meeting = (foam.third - foam.nearest) / 3.0
    width = np.clip(2.9 + 0.45 * _noise(rng, size, 12), 2.2, 4.2)
    inside = np.minimum(walls, meeting) > width
    depth = np.clip(102 + 13 * _noise(rng, size, 20), 75, 130)
    stain = np.exp(-np.square(np.minimum(walls, meeting) / width) * 1.2)
    image = _cytoplasm(rng, foam.cells, walls) - depth * stain
    image = ndimage.gaussian_filter(image + rng.normal(0, 28, size), 0.7)
    image += 6 * _noise(rng, size, 90) + rng.normal(0, rng.uniform(6, 14), size)
    return _to_bits(image, np.uint8), np.where(inside, 255, 0).astype(np.uint8)


def _cytoplasm(rng: Generator, cells: NDArray[np.int32], walls: Field) -> Field:
    """Paint what lies between the membranes: tint, grain, vesicles and mitochondria."""
    size = (cells.shape[0], cells.shape[1])
    tint = rng.normal(151, 9, cells.max() + 1)
    crowding = rng.uniform(0, 0.009, cells.max() + 1)
    image: Field = tint[cells] + 16 * _noise(rng, size, 2) + 12 * _noise(rng, size, 6)
    seeded = (rng.random(size) < crowding[cells]) & (walls > 8)
    y, x = np.ogrid[-6:7, -6:7]
    vesicle = 60 * np.exp(-np.square((np.hypot(y, x) - 2.8) / 1.1))
    image -= signal.fftconvolve(seeded * rng.uniform(0.2, 1, size), vesicle, mode="same")
    for row, column in _mitochondria(rng, walls):
        _paint_mitochondrion(rng, image, (row, column), reach=float(walls[row, column]))
    return image


def _mitochondria(rng: Generator, walls: Field) -> list[tuple[int, int]]:
    """Pick centres with room around them, each in another place."""
    centres: list[tuple[int, int]] = []
    for row, column in rng.permutation(np.argwhere(walls > 26))[:60]:
        if all(np.hypot(row - r, column - c) > 90 for r, c in centres):
            centres.append((int(row), int(column)))
    return centres[: max(1, walls.size // 60_000)]


def _paint_mitochondrion(
    rng: Generator, image: Field, centre: tuple[int, int], reach: float
) -> None:
    across = min(0.75 * reach, rng.uniform(18, 32))
    along = min(0.85 * reach, across * rng.uniform(1.0, 1.5))
    v, u = _turned(image.shape, centre, rng.uniform(0, np.pi))
    edge = (np.hypot(u / along, v / across) - 1) * across
    cristae = 18 * np.sin(2 * np.pi * (u + 2.5 * np.sin(v / 6)) / rng.uniform(5, 7))
    body = 82 + cristae + 12 * rng.standard_normal(image.shape)
    cover = 1 / (1 + np.exp(np.clip(edge / 0.8, -40, 40)))
    image += cover * (body - image)
    image += 22 * np.exp(-np.square((edge - 4) / 1.6)) - 40 * np.exp(-np.square(edge / 1.4))


def _blobs(rng: Generator, size: Size) -> tuple[Pixels, Pixels]:
    scale = rng.uniform(8, 13)
    count = max(4, round(size[0] * size[1] * 0.25 / scale**2 / np.pi))
    radii = scale * rng.uniform(0.75, 1.3, count)
    labels, bright = np.zeros(size, np.int32), np.zeros(size)
    for label, (centre, radius) in enumerate(zip(*_packed(rng, size, radii, 0.9), strict=True), 1):
        v, u = _turned(size, (centre[0], centre[1]), rng.uniform(0, np.pi))
        stretch, angle = rng.uniform(1.0, 1.3), np.arctan2(v, u)
        outline = radius * (1 + 0.05 * np.cos(3 * angle + rng.uniform(0, 6)))
        inside = np.hypot(u / stretch, v * stretch) < outline
        labels[inside & (labels == 0)] = label
        bright[inside] = np.maximum(bright[inside], rng.uniform(60, 170))
    bright *= 1 + 0.12 * _noise(rng, size, 3)
    light = ndimage.gaussian_filter(bright, 1.2) + 0.18 * ndimage.gaussian_filter(bright, 8) + 14
    light *= np.clip(1 + 0.15 * _noise(rng, size, size[0] // 2), 0.5, 1.5)
    image = light + rng.normal(0, 1, size) * np.sqrt(np.maximum(light, 1)) * 0.6
    return _to_bits(image, np.uint8), _renumbered(labels)


def _touching_cells(rng: Generator, size: Size) -> tuple[Pixels, Pixels]:
    largest = min(26, min(size) / 4)
    radii = largest * rng.uniform(0.5, 1, max(8, round(26 * size[0] * size[1] / 256**2)))
    foam = _foam(rng, size, radii, bend=9.0, ripple=0.7)
    labels = _renumbered(np.where(foam.nearest < 5 + 2 * _noise(rng, size, 14), foam.cells, 0))
    inwards = ndimage.distance_transform_edt(~_borders(labels) & (labels > 0))
    outwards = ndimage.distance_transform_edt(labels == 0)
    image = 31_000 + 500 * _noise(rng, size, 60) + 16_000 * np.exp(-np.abs(outwards - 2) / 2.5)
    grain = 1_700 * _noise(rng, size, 2) + 1_800 * _noise(rng, size, 6)
    nuclei = 5_500 / (1 + np.exp(np.clip((9 - inwards) / 1.5, -40, 40)))
    tint = rng.normal(-3_500, 900, int(labels.max()) + 1)
    body = 31_000 + tint[labels] + grain - nuclei - 7_000 * np.exp(-np.square((inwards - 2.5) / 2))
    image = np.where(labels > 0, body + 15_000 * np.exp(-np.square(inwards / 1.2)), image)
    image = ndimage.gaussian_filter(image, 0.9) + rng.normal(0, 450, size)
    return _to_bits(image, np.uint16), labels


_PAINTERS: dict[Kind, Callable[[Generator, Size], tuple[Pixels, Pixels]]] = {
    "membranes": _membranes,
    "blobs": _blobs,
    "touching-cells": _touching_cells,
}


def _noise(rng: Generator, size: Size, scale: int) -> Field:
    """Give a smooth random field of mean 0 and deviation 1 that changes over `scale` px."""
    step = max(scale // 2, 1)
    coarse = rng.standard_normal((size[0] // step + 6, size[1] // step + 6))
    field: Field = ndimage.zoom(ndimage.gaussian_filter(coarse, scale / step, mode="wrap"), step)
    field = field[2 * step : 2 * step + size[0], 2 * step : 2 * step + size[1]]
    return np.asarray((field - field.mean()) / field.std(), dtype=np.float64)


def _packed(rng: Generator, size: Size, radii: Field, gap: float) -> tuple[Field, Field]:
    """Place circles, the largest first, so that no two overlap; drops what finds no place.

    Returns:
        (N, 2) centres as row and column, and (N,) radii, both in px.
    """
    placed, kept = np.empty((0, 2)), np.empty(0)
    for radius in np.sort(radii)[::-1]:
        tries = rng.uniform(0, 1, (200, 2)) * size
        apart = np.hypot(*np.moveaxis(tries[:, None] - placed, -1, 0)) > (radius + kept) * gap + 1
        free = tries[apart.all(axis=1)]
        placed, kept = np.concatenate([placed, free[:1]]), np.append(kept, [radius] * len(free[:1]))
    return placed, kept


def _foam(rng: Generator, size: Size, radii: Field, bend: float, ripple: float) -> _Foam:
    """Pack circles, bends the plane and gives every pixel to its nearest circle.

    The plane is shifted by about `bend` px over long distances and `ripple` px over short ones.
    """
    rows, columns = np.mgrid[: size[0], : size[1]].astype(np.float64)
    rows += bend * _noise(rng, size, 50) + ripple * _noise(rng, size, 8)
    columns += bend * _noise(rng, size, 50) + ripple * _noise(rng, size, 8)
    cells = np.zeros(size, np.int32)
    first, second, third = (np.full(size, np.inf) for _ in range(3))
    for label, (centre, radius) in enumerate(zip(*_packed(rng, size, radii, 1.0), strict=True), 1):
        distance = np.hypot(rows - centre[0], columns - centre[1]) - radius
        cells[distance < first] = label
        third = np.minimum(third, np.maximum(second, distance))
        second = np.minimum(second, np.maximum(first, distance))
        first = np.minimum(first, distance)
    return _Foam(cells, first, third)


def _borders(labels: NDArray[Any]) -> NDArray[np.bool_]:
    """Mark the pixels whose right or lower neighbour has another id."""
    borders = np.zeros(labels.shape, np.bool_)
    borders[:-1] |= labels[:-1] != labels[1:]
    borders[:, :-1] |= labels[:, :-1] != labels[:, 1:]
    return borders


def _turned(shape: Sequence[int], centre: tuple[float, float], angle: float) -> tuple[Field, Field]:
    """Give the coordinates of every pixel in axes through `centre`, turned by `angle` radians."""
    rows, columns = np.mgrid[: shape[0], : shape[1]].astype(np.float64)
    rows, columns = rows - centre[0], columns - centre[1]
    turn = np.array([np.cos(angle), np.sin(angle)])
    return rows * turn[0] - columns * turn[1], rows * turn[1] + columns * turn[0]


def _renumbered(labels: NDArray[np.int32]) -> NDArray[np.uint16]:
    """Keep the largest component of every id, drops specks and counts from 1 without gaps."""
    result = np.zeros(labels.shape, np.uint16)
    for label in range(1, int(labels.max()) + 1):
        components, _ = ndimage.label(labels == label)
        areas = np.bincount(components.ravel())[1:]
        if areas.size and areas.max() >= 30:
            result[components == areas.argmax() + 1] = result.max() + 1
    return result


def _to_bits(image: Field, dtype: type[np.unsignedinteger[Any]]) -> Pixels:
    return np.clip(np.rint(image), 0, np.iinfo(dtype).max).astype(dtype)


def write(folder: Path, kind: Kind, count: int, size: Size, seed: int) -> None:
    """Write annotated images as a data folder: `images/` and `labels/`, same stems.

    Args:
        folder: Made where it is missing; files of the same name are replaced.
        kind: What the images look like; 16-bit ones become TIFF, all else PNG.
        count: Number of images.
        size: Height and width in px.
        seed: Seed of the first image; the next one has the next seed.

    Raises:
        ValueError: The size or seed is one that `generate` does not take.
    """
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for number in range(seed, seed + count):
        image, labels = generate(kind, size, number)
        stem = f"{kind}-{number:03}"
        if image.dtype == np.uint16:
            path = folder / "images" / f"{stem}.tif"
            tifffile.imwrite(path, image, compression="zlib", predictor=True, metadata=None)
        else:
            Image.fromarray(image).save(folder / "images" / f"{stem}.png", optimize=True)
        Image.fromarray(labels).save(folder / "labels" / f"{stem}.png", optimize=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m training.synthetic", description="Write annotated images as a data folder."
    )
    parser.add_argument("kind", choices=get_args(Kind))
    parser.add_argument("--out", type=Path, required=True, help="data folder to write")
    parser.add_argument("--count", type=int, default=8, help="number of images (%(default)s)")
    parser.add_argument("--size", type=int, default=512, help="edge in px (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the first image (%(default)s)")
    options = parser.parse_args(arguments)
    try:
        write(options.out, options.kind, options.count, (options.size, options.size), options.seed)
    except ValueError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
