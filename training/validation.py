"""A network on its validation images: its main score, and what settles it.

The decision threshold and the rule that tells objects apart are chosen here, on images that were
not trained on, and travel in the artefact.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from model.artefact import Manifest
from model.instances import foreground
from model.segmentation import Model, softmax
from training.data.dataset import AnnotatedImage
from training.evaluate import infer, main_score
from training.metrics import mean_iou, sweep_overlap, sweep_thresholds
from training.run.arithmetic import arithmetic, layout
from training.run.progress import Validation
from training.settings import Compute
from training.tuning import tune

MOST_IMAGES, MOST_SETTLING = 48, 200
"""A validation during training looks at this many images, that at the end at this many, spread
over all: their probabilities are kept in memory."""


class NetworkModel:
    """A network in training, run as an artefact is."""

    def __init__(
        self, network: nn.Module, manifest: Manifest, device: torch.device, compute: Compute
    ) -> None:
        self.network = network
        self.manifest = manifest
        self.device = device
        self.compute = compute

    def run(self, tiles: NDArray[np.float32], /) -> NDArray[np.float32]:
        """Give the logits of a batch of tiles, without dropout."""
        self.network.eval()
        order = layout(self.device, self.compute)
        batch = torch.from_numpy(tiles).to(self.device, memory_format=order)
        with torch.inference_mode(), arithmetic(self.device, self.compute):
            logits: Tensor = self.network(batch)
        return np.asarray(logits.float().cpu())


def settle(model: Model, images: Sequence[AnnotatedImage]) -> Validation:
    """Choose threshold and rule for the highest main score on some images."""
    name = main_score(model.manifest)
    if name == "ap50":
        found = [_foreground(model, entry) for entry in images]
        tuned = tune(*zip(*found, strict=True))
        return Validation(name, tuned.average_precision, tuned.threshold, tuned.rule.model_dump())
    if name == "v_rand":
        best = sweep_thresholds(*zip(*(_foreground(model, entry) for entry in images), strict=True))
        return Validation(name, best.v_rand, best.threshold)
    classes = model.manifest.architecture.num_classes
    if classes == 2:
        overlap = sweep_overlap(*zip(*(_overlap(model, entry) for entry in images), strict=True))
        return Validation(name, overlap.iou, overlap.threshold)
    labels, references = zip(*(_classes(model, entry) for entry in images), strict=True)
    return Validation(name, mean_iou(labels, references, classes), None)


def _foreground(
    model: Model, entry: AnnotatedImage
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Give the probability of foreground, and the objects annotated."""
    probabilities = foreground(softmax(infer(model, entry.image))[1:])
    if entry.ignored is not None:
        probabilities[entry.ignored] = 0
    return probabilities, entry.objects


def _overlap(model: Model, entry: AnnotatedImage) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Give the probability of class 1 and the classes annotated, where they count, (1, n)."""
    probabilities = foreground(softmax(infer(model, entry.image))[1:])
    return _counted(probabilities, entry), _counted(entry.semantic, entry)


def _classes(model: Model, entry: AnnotatedImage) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Give the classes found and annotated, where they count, (1, n)."""
    labels = model.manifest.decide(infer(model, entry.image))
    return _counted(labels, entry), _counted(entry.semantic, entry)


def _counted(values: NDArray[Any], entry: AnnotatedImage) -> NDArray[Any]:
    """Give what lies where the annotation is not to be ignored, (1, n)."""
    return values[slice(None) if entry.ignored is None else ~entry.ignored].reshape(1, -1)


def spread_over(images: Sequence[AnnotatedImage], most: int) -> Sequence[AnnotatedImage]:
    """Take no more images than that, at equal distances in their order."""
    if len(images) <= most:
        return images
    chosen = np.linspace(0, len(images) - 1, most).round().astype(int)
    return _Chosen(images, chosen.tolist())


class _Chosen(Sequence[AnnotatedImage]):
    """Some images of a sequence, read when they are asked for."""

    def __init__(self, images: Sequence[AnnotatedImage], chosen: Sequence[int]) -> None:
        self._images = images
        self._chosen = chosen

    def __len__(self) -> int:
        return len(self._chosen)

    def __getitem__(self, index: Any) -> Any:
        return self._images[self._chosen[index]]
