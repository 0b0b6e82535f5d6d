"""The overlap-tile strategy: an image of any size, in tiles whose answers join without a seam.

        mirror padding                       input region of one tile
      ┌──────────────────────┐             ┌───────────────────────┐
      │  ┌────────────────┐  │             │         halo          │
      │  │ image          │  │             │   ┌───────────────┐   │
      │  │   ┌───┬───┐    │  │             │   │ output region │   │
      │  │   │   │   │    │  │             │   └───────────────┘   │
      │  │   ├───┼───┤    │  │             │                       │
      └──┴───┴───┴───┴────┴──┘             └───────────────────────┘

All coordinates are those of the image. Three rules make the joined tiles equal to one pass over the
whole image:

1. Every tile starts on a multiple of the stride, so all share the phase of the pooling grid.
2. The halo is read from the image around the tile; the border of the image alone is mirrored.
3. Tiles give the share of their output that no other tile gives.

Source: Ronneberger et al. 2015, figure 2.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from model.errors import GeometryError
from model.geometry import Geometry


@dataclass(frozen=True, slots=True)
class Region:
    """A rectangle of an image, in px; `bottom` and `right` are the first row and column outside."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        return self.bottom - self.top, self.right - self.left

    def within(self, outer: "Region") -> tuple[slice, slice]:
        """Where this region lies in an array that holds the outer one."""
        return (
            slice(self.top - outer.top, self.bottom - outer.top),
            slice(self.left - outer.left, self.right - outer.left),
        )


@dataclass(frozen=True, slots=True)
class Tile:
    """One forward pass."""

    input_region: Region
    """What the tile reads; it may reach over the border of the image."""
    output_region: Region
    """What the tile writes; regions of a plan's tiles cover its region once."""
    halo: int

    @property
    def crop(self) -> tuple[slice, slice]:
        """Where the output region lies in the tile's own output."""
        valid = Region(
            self.input_region.top + self.halo,
            self.input_region.left + self.halo,
            self.input_region.bottom - self.halo,
            self.input_region.right - self.halo,
        )
        return self.output_region.within(valid)


@dataclass(frozen=True, slots=True)
class Plan:
    """The tiles that cover a region of an image, all of one shape, row by row."""

    image_shape: tuple[int, int]
    region: Region
    tile_shape: tuple[int, int]
    """Input height and width of every tile, in px."""
    tiles: tuple[Tile, ...]


class PixelSource(Protocol):
    """Anything shaped (C, H, W) that gives rectangles of itself: an array, a memory map."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Channels, height and width."""

    def __getitem__(self, key: Any, /) -> Any:
        """Return the pixels of a slice."""


def lay_tiles(
    image_shape: tuple[int, int],
    geometry: Geometry,
    tile_shape: tuple[int, int],
    region: Region | None = None,
) -> Plan:
    """Cover an image, or a region of it, by tiles of one shape, no more than it takes.

    Args:
        image_shape: Height and width of the whole image, from 1×1.
        geometry: Geometry of the network.
        tile_shape: Valid input height and width of a tile, in px.
        region: What is wanted; None is the whole image.

    Raises:
        GeometryError: for an empty image, a region outside of it, or tiles that cannot cover it.
    """
    region = region_of(image_shape, region)
    rows, columns = (
        _origins(span, geometry, edge)
        for span, edge in zip(spans_of(region, geometry), tile_shape, strict=True)
    )
    tiles = tuple(
        _tile(top, left, tile_shape, geometry, region) for top in rows for left in columns
    )
    return Plan(image_shape, region, tile_shape, tiles)


def region_of(image_shape: tuple[int, int], region: Region | None) -> Region:
    """Give the region that is wanted of an image: all of it, if none is named.

    Raises:
        GeometryError: for an empty image, or a region outside of it.
    """
    whole = Region(0, 0, *image_shape)
    region = whole if region is None else region
    _check(whole, region)
    return region


def spans_of(region: Region, geometry: Geometry) -> tuple[tuple[int, int], tuple[int, int]]:
    """Give what tiles have to cover, rows and columns: the first px, on the grid, and how many."""
    top, left = (start - start % geometry.stride for start in (region.top, region.left))
    return (top, region.bottom - top), (left, region.right - left)


def count_tiles(length: int, geometry: Geometry, edge: int) -> int:
    """Tiles of an input edge that cover a length; the last gives its whole output.

    Raises:
        GeometryError: if no number of them does.
    """
    beyond = length - geometry.output_edge(edge)
    if beyond <= 0:
        return 1
    if geometry.share(edge) == 0:
        raise GeometryError(
            f"Tiles of {edge} px cannot cover {length} px: "
            f"the smallest edge that can is {geometry.smallest_tiling_edge} px."
        )
    return 1 + -(-beyond // geometry.share(edge))


def extract(image: PixelSource, region: Region) -> NDArray[Any]:
    """Read a region of an image (C, H, W), mirrored where it reaches over the border.

    Only the rows and columns that the region needs are asked of the image.

    Returns:
        (C, h, w) of the image's own dtype.
    """
    _, height, width = image.shape
    rows, above = _mirror(region.top, region.bottom, height)
    columns, left = _mirror(region.left, region.right, width)
    block = np.asarray(image[:, rows, columns])
    if above is not None:
        block = block[:, above]
    if left is not None:
        block = block[:, :, left]
    return block


def place(plan: Plan, tile: Tile, output: NDArray[Any], canvas: NDArray[Any]) -> None:
    """Write one tile's output (..., h, w) into its place on the canvas (..., H, W)."""
    canvas[(..., *tile.output_region.within(plan.region))] = output[(..., *tile.crop)]


def _check(whole: Region, region: Region) -> None:
    if min(whole.shape) < 1:
        raise GeometryError(f"An image of {whole.bottom}×{whole.right} px has no pixels.")
    inside = (
        0 <= region.top < region.bottom <= whole.bottom
        and 0 <= region.left < region.right <= whole.right
    )
    if not inside:
        raise GeometryError(
            f"The region {region} is empty or lies outside of the image of "
            f"{whole.bottom}×{whole.right} px."
        )


def _origins(span: tuple[int, int], geometry: Geometry, edge: int) -> list[int]:
    start, length = span
    count = count_tiles(length, geometry, edge)
    return [start + index * geometry.share(edge) for index in range(count)]


def _tile(
    top: int, left: int, tile_shape: tuple[int, int], geometry: Geometry, region: Region
) -> Tile:
    halo = geometry.halo
    height, width = tile_shape

    def end(origin: int, edge: int, border: int) -> int:
        return (
            border
            if border <= origin + geometry.output_edge(edge)
            else origin + geometry.share(edge)
        )

    return Tile(
        Region(top - halo, left - halo, top - halo + height, left - halo + width),
        Region(
            max(top, region.top),
            max(left, region.left),
            end(top, height, region.bottom),
            end(left, width, region.right),
        ),
        halo,
    )


def _mirror(start: int, stop: int, size: int) -> tuple[slice, NDArray[np.intp] | None]:
    """Split mirrored coordinates into the slice to read and the order to take it in.

    The border pixel is not repeated, and the mirror image is mirrored again as often as it takes:
    one px is its own mirror image.
    """
    if start >= 0 and stop <= size:
        return slice(start, stop), None
    period = max(2 * (size - 1), 1)
    folded = np.arange(start, stop) % period
    indices = np.where(folded < size, folded, period - folded)
    low = int(indices.min())
    return slice(low, int(indices.max()) + 1), indices - low
