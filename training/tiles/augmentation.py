"""Training tiles: one composed warp for image and labels.

Where a pixel of the tile is read in the image is composed once, of a shift, a rotation, a flip, a
zoom and an elastic deformation, and the image is sampled once: nothing is resampled twice. The
window of the image that a tile can read is cut out before, so that no whole image is touched.

All chance comes from one generator a tile, seeded by the run, the step and the tile's place in the
batch: a tile does not depend on what was drawn before it, nor on which process draws it.

Source: Ronneberger et al. 2015, section 3.1.
"""

import math
from collections.abc import Sequence, Sized
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from model.geometry import Geometry
from training.plan import Plan
from training.tiles.store import IGNORED, Store, StoredImage

ELASTIC_GRID = 3
"""Displacement vectors along an edge of the tile."""
ELASTIC_SIGMA = 10.0
"""Standard deviation of a displacement, in px of the tile."""
OVERSHOOT = 1.375**2
"""Bicubic interpolation leaves the range of its vectors by this factor at most: the sum of its
weights without their signs, along both axes."""
CONTRAST_SIGMA = 0.2
BRIGHTNESS_SIGMA = 0.15
COLOUR_SIGMA = 0.1
"""Of the brightness of single channels."""
LARGEST_NOISE = 0.15
"""Of the intensity variation, in units of the scaled image (−1 to 1)."""


@dataclass(frozen=True, slots=True)
class Tiles:
    """What one step learns from."""

    pixels: Tensor
    """(N, C, edge, edge) float32."""
    labels: Tensor
    """(N, edge − 2·halo, edge − 2·halo) int64 class ids."""
    weights: Tensor
    """The same shape, float32; 0 where the annotation is to be ignored."""


@dataclass(frozen=True, slots=True)
class Warp:
    """Where a tile lies in its image, and how it is bent."""

    centre: Tensor
    """(2,) row and column in the image, in px."""
    turn: Tensor
    """(2, 2) rotation, flip and zoom: px of the image for a px of the tile."""
    bend: Tensor
    """(2, 3, 3) displacements, in px of the image."""

    def places(self, edge: int) -> Tensor:
        """Give (edge, edge, 2) rows and columns in the image, in px; some may lie outside.

        Shift, turn and bend are one bilinear form of what a row and a column of the tile are:
        the bicubic weights of its place among the displacements, its offset from the centre, and 1.
        """
        basis = bicubic_basis(edge).to(self.turn.device)
        form = self.turn.new_zeros(2, ELASTIC_GRID + 2, ELASTIC_GRID + 2)
        form[:, :-2, :-2] = self.bend
        form[:, -2, -1], form[:, -1, -2] = self.turn[:, 0], self.turn[:, 1]
        form[:, -1, -1] = self.centre
        return torch.stack([basis @ axis @ basis.T for axis in form], dim=-1)

    def reach(self, edge: int) -> NDArray[np.float64]:
        """Bound the distance of a place from the centre, (2,) along rows and columns, in px."""
        corner = self.turn.abs().sum(1) * (edge - 1) / 2
        bend = self.bend.abs().amax((1, 2)) * OVERSHOOT
        return np.asarray((corner + bend).double())

    def to(self, device: torch.device) -> "Warp":
        """Copy to a device."""
        return Warp(self.centre.to(device), self.turn.to(device), self.bend.to(device))


@cache
def bicubic_basis(edge: int) -> Tensor:
    """Give (edge, 3 + 2): weights of the displacements, offset from the centre in px, and 1."""
    unit = torch.eye(ELASTIC_GRID)[None, :, :, None]
    weights = functional.interpolate(unit, (edge, 1), mode="bicubic", align_corners=True)[0, ..., 0]
    offset = torch.arange(edge) - (edge - 1) / 2
    return torch.cat([weights, offset[None], torch.ones(1, edge)]).T.contiguous()


class Sampler:
    """Draws the tiles of any step of a run."""

    def __init__(
        self, store: Store, plan: Plan, geometry: Geometry, seed: int, device: torch.device
    ) -> None:
        self.store = store
        self.plan = plan
        self.geometry = geometry
        self.seed = seed
        self.device = device
        sizes = [math.sqrt(math.prod(image.size)) for image in store.images]
        self._chances = torch.tensor(sizes, dtype=torch.float64)
        self._class_weights = torch.from_numpy(store.class_weights).to(device)

    def draw(self, step: int, places: Sequence[int]) -> Tiles:
        """Draw the tiles at some places of a step's batch."""
        drawn = [self._draw_one(step, place) for place in places]
        pixels, labels, weights = (torch.stack(part) for part in zip(*drawn, strict=True))
        return Tiles(pixels, labels, weights)

    def _draw_one(self, step: int, place: int) -> tuple[Tensor, Tensor, Tensor]:
        random = generator(self.seed, step, place)
        image = self.store.images[int(torch.multinomial(self._chances, 1, generator=random))]
        warp = draw_warp(image, self.plan, random)
        pixels, labels, weights = self.cut(image, warp)
        noise = torch.Generator(self.device).manual_seed(random.initial_seed())
        varied = vary_intensity(pixels, random, noise)
        return varied.expand(self.store.channels, -1, -1), labels, weights  # grey stays grey

    def cut(self, image: StoredImage, warp: Warp) -> tuple[Tensor, Tensor, Tensor]:
        """Sample the pixels (C, edge, edge) of the image's channels, labels and weights."""
        edge, halo = self.plan.tile_edge, self.geometry.halo
        rows, columns = window(warp, edge, image.size)
        read = np.s_[rows[0] : rows[1], columns[0] : columns[1]]
        warp = warp.to(self.device)
        places = mirror(warp.places(edge), image.size)
        places -= torch.tensor([rows[0], columns[0]], device=self.device)
        inner = places[halo : edge - halo, halo : edge - halo]

        scaled = image.scale.apply(image.pixels[(..., *read)])
        pixels = sample(self._tensor(scaled), places, "bilinear")
        ids = sample(self._tensor(image.ids[read])[None], inner, "nearest")[0].long()
        borders = sample(self._tensor(image.borders[read])[None], inner, "nearest")[0]
        classes = self._tensor(image.classes, torch.long)
        labels = classes[ids.clamp(min=0)]
        if self.plan.ridges:
            labels = torch.where(ridges(ids), 0, labels)
        weights = self._class_weights[labels] + torch.where(labels == 0, borders, 0)
        weights = torch.where(ids == IGNORED, 0, weights)
        return pixels, labels, weights

    def _tensor(self, array: NDArray[Any], dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.from_numpy(np.array(array)).to(self.device, dtype)


def generator(*numbers: int) -> torch.Generator:
    """Make a generator on the CPU that some whole numbers seed."""
    seed = int(
        np.random.SeedSequence([number % (1 << 64) for number in numbers]).generate_state(1)[0]
    )
    return torch.Generator().manual_seed(seed)


def draw_warp(image: StoredImage, plan: Plan, random: torch.Generator) -> Warp:
    """Draw where a tile lies and how it is turned, zoomed and bent.

    A share of the tiles are centred on an object: all classes that have some in the image have
    equal chances, and so have all objects of a class. The others lie anywhere.
    """
    where = torch.rand(3, generator=random)
    size = torch.tensor(image.size, dtype=torch.float32)
    centre = where[:2] * (size - 1)
    if image.centres and where[2] < plan.object_share:
        of_class = image.centres[draw_index(image.centres, random)]
        centre = torch.from_numpy(of_class[draw_index(of_class, random)])
    zoom = math.exp((2 * float(torch.rand(1, generator=random)) - 1) * math.log(plan.largest_zoom))
    bend = torch.randn(2, ELASTIC_GRID, ELASTIC_GRID, generator=random) * ELASTIC_SIGMA
    bend = bend if plan.elastic else torch.zeros_like(bend)
    return Warp(centre, rotation(random) / zoom, bend / zoom)


def draw_index(of: Sized, random: torch.Generator) -> int:
    """Draw the index of one of several, all having equal chances."""
    return int(torch.randint(len(of), (1,), generator=random))


def rotation(random: torch.Generator) -> Tensor:
    """Draw a (2, 2) rotation by any angle, half of them flipped."""
    angle = float(torch.rand(1, generator=random)) * 2 * math.pi
    flip = float(torch.randint(2, (1,), generator=random)) * 2 - 1
    cosine, sine = math.cos(angle), math.sin(angle)
    return torch.tensor([[cosine, -sine * flip], [sine, cosine * flip]])


def window(warp: Warp, edge: int, size: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
    """Bound what a tile reads of an image: (start, stop) of rows and columns.

    The centre lies in the image, so what lies beyond a border mirrors into the rest of the window.
    """
    centre, reach = np.asarray(warp.centre.double()), warp.reach(edge)
    starts = np.maximum(np.floor(centre - reach).astype(int) - 1, 0)
    stops = np.minimum(np.ceil(centre + reach).astype(int) + 2, size)
    return (int(starts[0]), int(stops[0])), (int(starts[1]), int(stops[1]))


def mirror(places: Tensor, size: tuple[int, int]) -> Tensor:
    """Reflect rows and columns (…, 2) at the border pixels of an image, as often as it takes."""
    last = torch.tensor(size, device=places.device) - 1
    once = last - (last - places.abs()).abs()
    if once.min() >= 0:
        return once
    period = (2 * last).clamp(min=1)
    folded = places.remainder(period)
    return torch.minimum(folded, period - folded).minimum(last)


def ridges(ids: Tensor) -> Tensor:
    """Mark the pixels (H, W) of an object whose right or lower neighbour is of another object.

    Taken out, they leave a background of one pixel between objects that touch.

    Source: Falk et al. 2019, Nature Methods 16.
    """
    marked = torch.zeros_like(ids, dtype=torch.bool)
    for here, there in ((np.s_[:-1], np.s_[1:]), (np.s_[:, :-1], np.s_[:, 1:])):
        marked[here] |= (ids[here] != ids[there]) & (ids[here] > 0) & (ids[there] > 0)
    return marked


def sample(pixels: Tensor, places: Tensor, mode: str) -> Tensor:
    """Read (C, H, W) at (h, w, 2) rows and columns inside.

    Returns:
        (C, h, w).
    """
    last = torch.tensor(pixels.shape[1:], device=pixels.device) - 1
    normalised = (2 * places / last.clamp(min=1) - 1).flip(-1)  # grid_sample wants x before y
    return functional.grid_sample(
        pixels[None], normalised[None], mode=mode, padding_mode="border", align_corners=True
    )[0]


def vary_intensity(pixels: Tensor, random: torch.Generator, noise: torch.Generator) -> Tensor:
    """Vary contrast, brightness, colour and noise of a tile (C, H, W).

    Args:
        pixels: The tile.
        random: For the tile's own few numbers.
        noise: On the tile's device, for one number a pixel.
    """
    channels = len(pixels)
    contrast, brightness = torch.randn(2, generator=random).tolist()
    strength = float(torch.rand(1, generator=random)) * LARGEST_NOISE
    colour = torch.randn(channels, 1, 1, generator=random).to(pixels.device) * COLOUR_SIGMA
    shift = BRIGHTNESS_SIGMA * brightness + (colour if channels > 1 else 0)
    drawn = torch.randn(pixels.shape, generator=noise, device=pixels.device)
    varied: Tensor = pixels * math.exp(CONTRAST_SIGMA * contrast) + shift + drawn * strength
    return varied
