"""Training tiles: one composed warp for image and labels, on the training device.

Where a pixel of the tile is read in the image is composed once, of a shift, a rotation, a flip and
an elastic deformation, and the image is sampled once: nothing is resampled twice.

Source: Ronneberger et al. 2015, section 3.1.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from model.geometry import Geometry

ELASTIC_GRID = 3
"""Displacement vectors along an edge of the tile."""
ELASTIC_SIGMA = 10.0
"""Standard deviation of a displacement, in px."""
CONTRAST_SIGMA = 0.2
BRIGHTNESS_SIGMA = 0.15
LARGEST_NOISE = 0.15
"""Of the intensity variation, in units of the scaled image (−1 to 1)."""


@dataclass(frozen=True, slots=True)
class TrainingImage:
    """An annotated image on the training device."""

    pixels: Tensor
    """(C, H, W) float32, intensities scaled."""
    targets: Tensor
    """(2, H, W) float32: class id and weight."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What one step learns from."""

    tiles: Tensor
    """(N, C, edge, edge) float32."""
    labels: Tensor
    """(N, edge − 2·halo, edge − 2·halo) int64 class ids."""
    weights: Tensor
    """The same shape, float32."""


def draw_batch(
    images: Sequence[TrainingImage],
    size: int,
    edge: int,
    geometry: Geometry,
    random: torch.Generator,
) -> Batch:
    """Draw tiles from random images, at random places, randomly warped.

    Args:
        images: What to draw from, with equal chances.
        size: Number of tiles N.
        edge: Input edge of a tile, in px.
        geometry: Geometry of the network.
        random: Generator on the device of the images; the only source of chance.
    """
    device = images[0].pixels.device
    chosen = torch.randint(len(images), (size,), generator=random, device=device).tolist()
    picked = [images[index] for index in chosen]
    sizes = torch.tensor([image.pixels.shape[1:] for image in picked], device=device)
    places = warp(sizes, edge, random)
    inner = places[:, geometry.halo : edge - geometry.halo, geometry.halo : edge - geometry.halo]
    pixels = torch.stack(
        [
            sample(image.pixels, place, "bilinear")
            for image, place in zip(picked, places, strict=True)
        ]
    )
    targets = torch.stack(
        [
            sample(image.targets, place, "nearest")
            for image, place in zip(picked, inner, strict=True)
        ]
    )
    return Batch(vary_intensity(pixels, random), targets[:, 0].long(), targets[:, 1])


def warp(sizes: Tensor, edge: int, random: torch.Generator) -> Tensor:
    """Compose where each pixel of N tiles is read in its image.

    Args:
        sizes: (N, 2) height and width of each image, in px.
        edge: Edge of the tiles, in px.
        random: The source of chance.

    Returns:
        (N, edge, edge, 2) row and column in px; outside of the image, mirror padding holds.
    """
    count = len(sizes)
    centres = torch.rand(count, 2, generator=random, device=sizes.device) * (sizes - 1)
    return compose(centres, rotations(count, random), displacements(count, edge, random))


def compose(centres: Tensor, turns: Tensor, shifts: Tensor) -> Tensor:
    """Turn the pixels of N tiles around their centres, then shift each by its own displacement.

    Args:
        centres: (N, 2) row and column in the image, in px.
        turns: (N, 2, 2) rotations.
        shifts: (N, edge, edge, 2) displacements, in px.

    Returns:
        (N, edge, edge, 2) row and column in px.
    """
    edge = shifts.shape[1]
    axis = torch.arange(edge, device=shifts.device) - (edge - 1) / 2
    offsets = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), dim=-1)
    turned = torch.einsum("ijk,nlk->nijl", offsets, turns)
    return turned + shifts + centres[:, None, None, :]


def rotations(count: int, random: torch.Generator) -> Tensor:
    """Draw (N, 2, 2) rotations by any angle, half of them flipped."""
    device = random.device
    angles = torch.rand(count, generator=random, device=device) * 2 * math.pi
    flips = torch.randint(2, (count,), generator=random, device=device) * 2 - 1
    cosines, sines = angles.cos(), angles.sin()
    rows = [torch.stack([cosines, -sines * flips], -1), torch.stack([sines, cosines * flips], -1)]
    return torch.stack(rows, dim=-2)


def displacements(count: int, edge: int, random: torch.Generator) -> Tensor:
    """Draw elastic deformations (N, edge, edge, 2), in px: 3×3 vectors, bicubic in between."""
    coarse = torch.randn(
        count, 2, ELASTIC_GRID, ELASTIC_GRID, generator=random, device=random.device
    )
    smooth = functional.interpolate(
        coarse * ELASTIC_SIGMA, (edge, edge), mode="bicubic", align_corners=True
    )
    return smooth.permute(0, 2, 3, 1)


def sample(pixels: Tensor, places: Tensor, mode: str) -> Tensor:
    """Read (C, H, W) at (h, w, 2) rows and columns, mirrored at the border.

    Returns:
        (C, h, w).
    """
    last = torch.tensor(pixels.shape[1:], device=pixels.device) - 1
    normalised = (2 * places / last.clamp(min=1) - 1).flip(-1)  # grid_sample wants x before y
    return functional.grid_sample(
        pixels[None], normalised[None], mode=mode, padding_mode="reflection", align_corners=True
    )[0]


def vary_intensity(tiles: Tensor, random: torch.Generator) -> Tensor:
    """Vary contrast, brightness and noise of each tile (N, C, H, W)."""

    def draw() -> Tensor:
        return torch.randn(len(tiles), 1, 1, 1, generator=random, device=random.device)

    noise = torch.randn(tiles.shape, generator=random, device=random.device)
    strength = torch.rand(len(tiles), 1, 1, 1, generator=random, device=random.device)
    varied = tiles * torch.exp(CONTRAST_SIGMA * draw()) + BRIGHTNESS_SIGMA * draw()
    return varied + noise * strength * LARGEST_NOISE
