"""The cheapest exact tiling of an image, within the memory that there is.

A pass costs what its convolutions cost, and a convolution's output is a rectangle whose edges grow
linearly with those of the tile. So the halo is dear where tiles are small, and what is cut into n
rows is cheapest in the lowest tiles that do with n. The plan is the best of these.
"""

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.architecture import Architecture
from model.errors import GeometryError
from model.geometry import Geometry, convolutions, flops
from model.tiling import Plan, Region, count_tiles, lay_tiles, region_of, spans_of

FIXED_SHARES = (
    *(64, 96, 128, 160, 192, 256, 320, 384, 448, 512, 576, 640, 768, 896),
    *(1024, 1280, 1536, 2048),
)
"""What tiles of fixed edges give where they have neighbours, in px."""


@dataclass(frozen=True, slots=True)
class TileShapes:
    """Input shapes that tiles may have."""

    largest_area: int
    """Height times width, in px: what the memory allows."""
    edges: tuple[int, ...] = ()
    """The only heights and widths, in px; none are every one that the network takes."""

    @classmethod
    def fixed(cls, geometry: Geometry, largest_edge: int) -> "TileShapes":
        """Give few edges, so that every shape of them can be prepared before it is needed.

        Raises:
            GeometryError: if no tile of that edge covers an image.
        """
        require_tiling(geometry, largest_edge)
        edges = {geometry.edge_for(share) for share in FIXED_SHARES if share % geometry.stride == 0}
        top = geometry.edge_at_most(largest_edge)
        return cls(top**2, tuple(sorted({edge for edge in edges if edge < top} | {top})))

    @property
    def all(self) -> tuple[tuple[int, int], ...]:
        """Every height and width, smallest first, where edges are fixed."""
        pairs = [(height, width) for height in self.edges for width in self.edges]
        fitting = [
            (height, width) for height, width in pairs if height * width <= self.largest_area
        ]
        return tuple(sorted(fitting, key=lambda shape: (shape[0] * shape[1], shape)))


def plan_tiles(
    image_shape: tuple[int, int],
    architecture: Architecture,
    shapes: TileShapes,
    region: Region | None = None,
) -> Plan:
    """Find the cheapest cover of an image, or of a region of it, by tiles of one shape.

    Args:
        image_shape: Height and width of the whole image, from 1×1.
        architecture: Of the network; its convolutions are the cost.
        shapes: What a tile may be.
        region: What is wanted; None is the whole image.

    Raises:
        GeometryError: for an empty image, a region outside of it, or shapes that cannot cover it.
    """
    geometry = Geometry(architecture.depth)
    region = region_of(image_shape, region)
    (_, height), (_, width) = spans_of(region, geometry)
    return lay_tiles(image_shape, geometry, _cheapest(height, width, architecture, shapes), region)


def work(plan: Plan, architecture: Architecture) -> int:
    """Floating-point operations of all tiles of a plan."""
    return len(plan.tiles) * flops(architecture, plan.tile_shape)


def require_tiling(geometry: Geometry, largest_edge: int) -> None:
    """Refuse a largest edge from which no image can be put together.

    Raises:
        GeometryError: then.
    """
    if largest_edge < geometry.smallest_tiling_edge:
        raise GeometryError(
            f"Tiles of {largest_edge} px cannot cover an image without seams: "
            f"the smallest edge that can is {geometry.smallest_tiling_edge} px."
        )


@functools.lru_cache(maxsize=4096)
def _cheapest(
    height: int, width: int, architecture: Architecture, shapes: TileShapes
) -> tuple[int, int]:
    """Give the input shape of the tiles that cover a height and a width with the least work.

    Raises:
        GeometryError: if no shape covers them.
    """
    rows, columns = (_Axis.of(length, architecture, shapes) for length in (height, width))
    costs = rows.edges_of_outputs * _flops_of(architecture) @ columns.edges_of_outputs.T
    fits = np.multiply.outer(rows.edges, columns.edges) <= shapes.largest_area
    if not fits.any():
        edges = f" with edges of {', '.join(map(str, shapes.edges))} px" if shapes.edges else ""
        smallest = Geometry(architecture.depth).smallest_tiling_edge
        raise GeometryError(
            f"No tile of at most {shapes.largest_area:,} px{edges} covers {height}×{width} px; "
            f"from {smallest}×{smallest} px on, tiles cover every image."
        )
    costs[~fits] = np.iinfo(np.int64).max
    row, column = np.unravel_index(costs.argmin(), costs.shape)
    return int(rows.edges[row]), int(columns.edges[column])


@dataclass(frozen=True, slots=True, eq=False)
class _Axis:
    """The ways to cover one axis."""

    edges: NDArray[np.int64]
    """(n,) input edges."""
    edges_of_outputs: NDArray[np.int64]
    """(n, convolutions) the edge of every convolution's output, added up over the tiles."""

    @classmethod
    def of(cls, length: int, architecture: Architecture, shapes: TileShapes) -> "_Axis":
        geometry = Geometry(architecture.depth)
        whole = geometry.edge_for(length)
        smallest = min(whole, geometry.smallest_tiling_edge)
        longest = min(whole, shapes.largest_area // geometry.smallest_edge)
        candidates = shapes.edges or range(smallest, longest + 1, geometry.stride)
        edges = np.array(sorted(edge for edge in candidates if edge >= smallest), np.int64)
        counts = np.array([count_tiles(length, geometry, edge) for edge in edges], np.int64)
        counts, lowest = np.unique(counts, return_index=True)  # for each count, the smallest edge
        edges = edges[lowest]
        layers = convolutions(architecture)
        outputs = [layer.edge(int(edge)) for edge in edges for layer in layers]
        table = np.array(outputs, np.int64).reshape(len(edges), len(layers))
        return cls(edges, counts[:, np.newaxis] * table)


def _flops_of(architecture: Architecture) -> NDArray[np.int64]:
    return np.array([layer.flops for layer in convolutions(architecture)], np.int64)
