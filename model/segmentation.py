"""One image on its way through a model: what the service and the evaluation both do."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from model.artefact import Manifest
from model.intensity import IntensityScale, match_channels
from model.tiling import Plan, Region, Tile, extract, place, plan_tiles

DEFAULT_TILE_EDGE = 1212
"""Largest input edge of a tile where nobody sets another, in px; it holds 1024×1024 px whole."""

Output = Literal["labels", "logits"]


class Model(Protocol):
    """What gives logits, and the manifest that says what they mean."""

    @property
    def manifest(self) -> Manifest:
        """What is known about the network."""

    def run(self, tiles: NDArray[np.float32], /) -> NDArray[np.float32]:
        """Give the logits (N, K, H − 2·halo, W − 2·halo) of a batch of tiles (N, C, H, W)."""


@dataclass(frozen=True, slots=True)
class Segmentation:
    """An image, its plan, its scale, and the canvas that its tiles fill in any order."""

    manifest: Manifest
    image: NDArray[Any]
    """(C, H, W), with the channels that the model reads."""
    scale: IntensityScale
    """Measured over the whole image."""
    plan: Plan
    canvas: NDArray[Any]
    """(h, w) uint8 class ids, or (K, h, w) float32 logits, of the plan's region."""
    output: Output

    @classmethod
    def begin(
        cls,
        image: NDArray[Any],
        manifest: Manifest,
        edges: Sequence[int],
        *,
        region: Region | None = None,
        output: Output = "labels",
    ) -> "Segmentation":
        """Prepare an image (C, H, W), grey or colour, of any depth.

        Args:
            image: The whole image, also where only a region is wanted.
            manifest: The model's manifest.
            edges: Input edges that a tile may have, in px.
            region: What is wanted; None is the whole image.
            output: Class ids, or the logits of every class.
        """
        image = match_channels(image, manifest.architecture.in_channels)
        plan = plan_tiles((image.shape[1], image.shape[2]), manifest.geometry, edges, region=region)
        shape = plan.region.shape
        canvas: NDArray[Any] = (
            np.zeros(shape, np.uint8)
            if output == "labels"
            else np.zeros((manifest.architecture.num_classes, *shape), np.float32)
        )
        return cls(manifest, image, manifest.intensity.measure(image), plan, canvas, output)

    def read(self, tile: Tile) -> NDArray[np.float32]:
        """Give what the network reads for one tile: (C, edge, edge)."""
        return self.scale.apply(extract(self.image, tile.input_region))

    def write(self, tile: Tile, logits: NDArray[np.float32]) -> None:
        """Put what the network gave for one tile, (K, h, w), in its place."""
        pixels = self.manifest.decide(logits) if self.output == "labels" else logits
        place(self.plan, tile, pixels, self.canvas)


def segment(
    image: NDArray[Any],
    model: Model,
    edges: Sequence[int],
    *,
    region: Region | None = None,
    output: Output = "labels",
) -> NDArray[Any]:
    """Segment an image (C, H, W) on its own, tile by tile.

    Returns:
        (H, W) uint8 class ids, or (K, H, W) float32 logits; of the region, if there is one.
    """
    work = Segmentation.begin(image, model.manifest, edges, region=region, output=output)
    for tile in work.plan.tiles:
        work.write(tile, model.run(work.read(tile)[np.newaxis])[0])
    return work.canvas


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Turn logits (K, H, W) into probabilities (K, H, W)."""
    powers = np.exp(logits - logits.max(axis=0))
    probabilities: NDArray[np.float32] = powers / powers.sum(axis=0)
    return probabilities
