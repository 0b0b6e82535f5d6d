"""One image on its way through a model: what the service and the evaluation both do."""

from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from model.artefact import Averaging, Manifest
from model.components import components_by_class
from model.instances import classes_of, foreground, separate
from model.intensity import Scale, match_channels
from model.planner import TileShapes, plan_tiles
from model.tiling import Plan, Region, Tile, extract, place

DEFAULT_TILE_EDGE = 892
"""Edge of a square as large as tiles may be where nobody sets another, in px. A tile is run to its
end, whoever comes meanwhile: this one costs less than twice what a 512×512 image does. One of 1212
px costs 3.5 times that, and saves 6% of the work of 100 megapixels."""
DEFAULT_SHAPES = TileShapes(DEFAULT_TILE_EDGE**2)

Wanted = Literal["labels", "instances"]
"""What an image is segmented for: the class of every pixel, or objects."""

Output = Literal["labels", "logits", "probabilities", "foreground"]
"""What a canvas holds: class ids; logits, or probabilities, of every class; probabilities of every
class but class 0, which with two classes are a single map."""


Given = Literal["logits", "labels"]
"""What of a network a canvas is filled with."""


class Model(Protocol):
    """What gives logits, and the manifest that says what they mean."""

    @property
    def manifest(self) -> Manifest:
        """What is known about the network."""

    def run(self, tiles: NDArray[np.float32], /) -> NDArray[np.float32]:
        """Give the logits (N, K, H − 2·halo, W − 2·halo) of a batch of tiles (N, C, H, W)."""


@dataclass(frozen=True, slots=True)
class Objects:
    """Objects of an image, each with its own id."""

    ids: NDArray[np.int32]
    """(H, W) ids from 1 without gaps, 0 outside of objects."""
    classes: NDArray[np.uint8]
    """(n,) class id of every object, that of object 1 first."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Height and width of the image."""
        return self.ids.shape


@dataclass(frozen=True, slots=True)
class Segmentation:
    """An image, its plan, its scale, and the canvas that its tiles fill in any order."""

    manifest: Manifest
    image: NDArray[Any]
    """(C, H, W), with the channels that the model reads."""
    scale: Scale
    """Measured over the whole image."""
    plan: Plan
    canvas: NDArray[Any]
    """Of the plan's region: (h, w) uint8, (K, h, w) float32 or, of the foreground, (K − 1, h, w)
    float32."""
    output: Output
    passes: int = 1
    """Passes whose probabilities are averaged on the canvas; this is one of them."""

    @classmethod
    def begin(
        cls,
        image: NDArray[Any],
        manifest: Manifest,
        shapes: TileShapes,
        *,
        region: Region | None = None,
        output: Output = "labels",
    ) -> "Segmentation":
        """Prepare an image (C, H, W), grey or colour, of any depth.

        Args:
            image: The whole image, also where only a region is wanted.
            manifest: The model's manifest.
            shapes: Input shapes that a tile may have.
            region: What is wanted; None is the whole image.
            output: What the canvas holds.
        """
        image = match_channels(image, manifest.architecture.in_channels)
        plan = plan_tiles(image.shape[1:], manifest.architecture, shapes, region)
        shape = plan.region.shape
        maps = manifest.architecture.num_classes - (output == "foreground")
        canvas: NDArray[Any] = (
            np.zeros(shape, np.uint8)
            if output == "labels"
            else np.zeros((maps, *shape), np.float32)
        )
        return cls(manifest, image, manifest.intensity.measure(image), plan, canvas, output)

    @property
    def given(self) -> Given:
        """The least that fills the canvas."""
        return "labels" if self.output == "labels" else "logits"

    def read(self, tile: Tile) -> NDArray[np.float32]:
        """Give what the network reads for one tile: (C, h, w)."""
        return self.scale.apply(extract(self.image, tile.input_region))

    def write(self, tile: Tile, logits: NDArray[np.float32]) -> None:
        """Put what the network gave for one tile, (K, h, w), in its place; once for each tile."""
        pixels = self._kept(logits)
        if self.passes == 1:
            place(self.plan, tile, pixels, self.canvas)
        else:
            share = self.canvas[(..., *tile.output_region.within(self.plan.region))]
            share += pixels[(..., *tile.crop)] / self.passes

    def write_labels(self, tile: Tile, labels: NDArray[np.uint8]) -> None:
        """Put what was decided for one tile, (h, w), in its place on a canvas of labels."""
        place(self.plan, tile, labels, self.canvas)

    def complete(self, model: Model) -> None:
        """Run every tile, where no other image waits for the model."""
        for tile in self.plan.tiles:
            self.write(tile, model.run(self.read(tile)[np.newaxis])[0])

    def labels(self) -> NDArray[np.uint8]:
        """Give the label map (h, w) of a full canvas of labels or of the foreground."""
        if self.output == "labels":
            return self.canvas
        return decide(self.canvas, self.manifest.decision_threshold)

    def objects(self) -> Objects:
        """Give the objects of a full canvas: of the foreground, if the manifest has a rule."""
        if self.output == "labels" and self.manifest.instances is None:
            return Objects(*components_by_class(self.canvas))
        return find_objects(self.canvas, self.manifest)

    def _kept(self, logits: NDArray[np.float32]) -> NDArray[Any]:
        if self.output == "labels":
            return self.manifest.decide(logits)
        if self.output == "logits":
            return logits
        return softmax(logits)[int(self.output == "foreground") :]


def output_for(wanted: Wanted, manifest: Manifest, averaging: Averaging) -> Output:
    """Say what a canvas must hold, and no more, for what is wanted."""
    by_rule = wanted == "instances" and manifest.instances is not None
    return "foreground" if by_rule or averaging != "none" else "labels"


def segment(
    image: NDArray[Any],
    model: Model,
    shapes: TileShapes,
    *,
    region: Region | None = None,
    output: Output = "labels",
) -> NDArray[Any]:
    """Segment an image (C, H, W) on its own, tile by tile.

    Returns:
        (H, W) uint8 class ids, or float32 logits or probabilities; of the region, if there is one.
    """
    work = Segmentation.begin(image, model.manifest, shapes, region=region, output=output)
    work.complete(model)
    return work.canvas


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Turn logits (K, H, W) into probabilities (K, H, W)."""
    powers = np.exp(logits - logits.max(axis=0))
    probabilities: NDArray[np.float32] = powers / powers.sum(axis=0)
    return probabilities


def find_objects(probabilities: NDArray[np.float32], manifest: Manifest) -> Objects:
    """Tell objects apart by the manifest's rule.

    Without a rule, an object is a component (4-connectivity) of a class other than class 0.

    Args:
        probabilities: (K − 1, H, W) of every class but class 0.
        manifest: The model's manifest.

    Raises:
        ValueError: There is a rule, and the probabilities are no (K − 1, H, W) array of floats.
    """
    threshold, rule = manifest.decision_threshold, manifest.instances
    if rule is None:
        return Objects(*components_by_class(decide(probabilities, threshold)))
    ids = separate(foreground(probabilities), threshold or 0.5, rule)
    num_classes = manifest.architecture.num_classes
    if num_classes == 2:
        return Objects(ids, np.ones(ids.max(), np.uint8))
    return Objects(ids, classes_of(ids, decide(probabilities, threshold), num_classes))


def decide(foreground: NDArray[np.float32], threshold: float | None) -> NDArray[np.uint8]:
    """Decide from probabilities as `Manifest.decide` does from logits.

    Args:
        foreground: (K − 1, H, W) probabilities of every class but class 0.
        threshold: With two classes, the probability from which a pixel belongs to class 1; None
            lets the most probable class win, the first of equals.

    Returns:
        (H, W) class ids.
    """
    if threshold is not None:
        above: NDArray[np.bool_] = foreground[0] >= np.float32(threshold)
        return above.view(np.uint8)
    best = 1 - foreground.sum(axis=0)
    labels = np.zeros(best.shape, np.uint8)
    for index, probability in enumerate(foreground, 1):
        labels[probability > best] = index
        np.maximum(best, probability, out=best)
    return labels
