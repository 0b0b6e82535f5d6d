"""Arithmetic of valid convolutions: which edges a network takes and what it leaves of them.

One axis at a time, in px. At every level two 3×3 valid convolutions take 2 px from each side, at
the resolution of that level; pooling halves an edge, an up-convolution doubles it.

        ├──────────── input edge = stride·k + 4·(stride − 1) ────────────┤
        ├─ halo ─┼────────────── output edge ──────────────────┼─ halo ──┤
                 ├──────── share: a multiple of stride ─────┤

The poolings lay a grid of period `stride` over the image. An output pixel depends on its place in
that grid, so tiles of one image start on multiples of the stride, and a tile that has neighbours
gives only its share: the largest multiple of the stride in its output edge.
"""

from dataclasses import dataclass

from model.architecture import Architecture
from model.errors import GeometryError

LOSS_PER_LEVEL = 4
"""Two 3×3 valid convolutions take 4 px from an edge."""


@dataclass(frozen=True, slots=True)
class Geometry:
    """The geometry of a network of a given depth.

    Source: Ronneberger et al. 2015, figure 1 and section 2.
    """

    depth: int

    @property
    def stride(self) -> int:
        """Period of the pooling grid, in px."""
        return 1 << self.depth

    @property
    def offset(self) -> int:
        """Input edges are stride·k + offset, in px."""
        return LOSS_PER_LEVEL * (self.stride - 1)

    @property
    def halo(self) -> int:
        """Border that a forward pass consumes, in px a side."""
        return 6 * self.stride - LOSS_PER_LEVEL

    @property
    def smallest_bottom_edge(self) -> int:
        """Smallest edge at the lowest level from which the expansive path leaves anything, in px.

        It is 8 from depth 2 on: the lowest convolutions take 4 px, those of the expansive path as
        good as 4 more.
        """
        return LOSS_PER_LEVEL + self.offset // self.stride + 1

    @property
    def smallest_edge(self) -> int:
        """Smallest input edge with any output, in px."""
        return self._edge(self.smallest_bottom_edge)

    @property
    def smallest_tiling_edge(self) -> int:
        """Smallest input edge whose share is not empty, in px.

        At depth 4 the smallest edge of all, 188, gives 4 px of every 16: it can hold a tiny image
        whole, but no number of such tiles covers a larger one.
        """
        bottom = self.smallest_bottom_edge
        while self.share(self._edge(bottom)) == 0:
            bottom += 1
        return self._edge(bottom)

    def is_valid(self, input_edge: int) -> bool:
        """Whether every pooling meets an even edge and something is left at the end."""
        on_grid = (input_edge - self.offset) % self.stride == 0
        return on_grid and input_edge >= self.smallest_edge

    def output_edge(self, input_edge: int) -> int:
        """Output edge of a valid input edge.

        Raises:
            GeometryError: naming the valid edges around the one that was found.
        """
        if not self.is_valid(input_edge):
            near = self.edge_at_most(max(input_edge, self.smallest_edge))
            raise GeometryError(
                f"An input edge of {input_edge} px does not fit {self.depth} poolings; "
                f"{near} and {near + self.stride} px do (the smallest is {self.smallest_edge})."
            )
        return input_edge - 2 * self.halo

    def share(self, input_edge: int) -> int:
        """Part of the output edge that a tile with neighbours gives, in px."""
        output_edge = self.output_edge(input_edge)
        return output_edge - output_edge % self.stride

    def edge_at_most(self, limit: int) -> int:
        """Largest valid input edge that is no larger than a limit.

        Raises:
            GeometryError: if even the smallest edge is larger.
        """
        if limit < self.smallest_edge:
            raise GeometryError(
                f"No input edge fits {limit} px: the smallest is {self.smallest_edge} px."
            )
        return limit - (limit - self.offset) % self.stride

    def edge_for(self, output_edge: int) -> int:
        """Smallest valid input edge that gives at least this output edge."""
        needed = max(output_edge + 2 * self.halo, self.smallest_edge)
        return needed + (self.offset - needed) % self.stride

    def contracting_edges(self, input_edge: int) -> tuple[int, ...]:
        """Edges after the convolutions of each level of the contracting path, top to bottom."""
        self.output_edge(input_edge)
        edges = [input_edge - LOSS_PER_LEVEL]
        for _ in range(self.depth):
            edges.append(edges[-1] // 2 - LOSS_PER_LEVEL)
        return tuple(edges)

    def expansive_edges(self, input_edge: int) -> tuple[int, ...]:
        """Edges after the convolutions of each level of the expansive path, bottom to top."""
        edges = [self.contracting_edges(input_edge)[-1]]
        for _ in range(self.depth):
            edges.append(2 * edges[-1] - LOSS_PER_LEVEL)
        return tuple(edges[1:])

    def skip_crops(self) -> tuple[int, ...]:
        """Centre crop of each skip connection, top to bottom, in px a side."""
        return tuple(6 * (1 << (self.depth - level)) - 8 for level in range(self.depth))

    def _edge(self, bottom_edge: int) -> int:
        """Input edge that arrives at the lowest level with the given edge."""
        return self.stride * bottom_edge + self.offset


@dataclass(frozen=True, slots=True)
class Convolution:
    """One convolution of a network, and how its output grows with the tile."""

    flops: int
    """Floating-point operations of one output px, all channels (a multiply-add counts two)."""
    scale: int
    """Input px of the tile to one output px, along an axis."""
    loss: int
    """Input px of the tile that have no output px, along an axis."""

    def edge(self, input_edge: int) -> int:
        """Edge of its output for a tile of a valid input edge, in px."""
        return (input_edge - self.loss) // self.scale


def convolutions(architecture: Architecture) -> tuple[Convolution, ...]:
    """Follow figure 1 from the tile to the logits, convolution by convolution.

    Source: Ronneberger et al. 2015, figure 1.
    """
    found: list[Convolution] = []
    scale, loss = 1, 0

    def convolve(kernel: int, incoming: int, outgoing: int) -> None:
        found.append(Convolution(2 * kernel**2 * incoming * outgoing, scale, loss))

    def convolve_twice(incoming: int, outgoing: int) -> None:
        nonlocal loss
        for channels in (incoming, outgoing):
            loss += 2 * scale
            convolve(3, channels, outgoing)

    incoming = architecture.in_channels
    for level in range(architecture.depth + 1):
        convolve_twice(incoming, architecture.channels(level))
        incoming = architecture.channels(level)
        scale *= 2  # the pooling below; there is none below the last level
    scale //= 2
    for level in reversed(range(architecture.depth)):
        skip, up = architecture.channels(level), up_channels(architecture, level)
        scale //= 2
        convolve(1, 2 * skip, up)  # of its four kernel weights, each output px meets one
        convolve_twice(skip + up, skip)
    convolve(1, architecture.base_channels, architecture.num_classes)
    return tuple(found)


def flops(architecture: Architecture, tile_shape: tuple[int, int]) -> int:
    """Floating-point operations of one tile (a multiply-add counts two).

    Args:
        architecture: Of the network.
        tile_shape: Valid input height and width, in px.

    Source: 300.9 GFLOP for figure 1 of Ronneberger et al. 2015 (572 px, 64 base channels).
    """
    height, width = tile_shape
    return sum(
        layer.flops * layer.edge(height) * layer.edge(width) for layer in convolutions(architecture)
    )


def up_channels(architecture: Architecture, level: int) -> int:
    """Channels that the up-convolution into a level gives."""
    doubled = architecture.variant == "release" and level == 0
    return architecture.channels(level + 1 if doubled else level)
