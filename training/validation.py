"""A network on its validation images: its main score, and what settles it.

The decision threshold and the rule that tells objects apart are chosen here, on images that were
not trained on, and travel in the artefact.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from model.artefact import Manifest
from model.instances import foreground
from model.segmentation import DEFAULT_SHAPES, Model, segment
from training.data.dataset import AnnotatedImage, Dataset
from training.data.split import Regions
from training.evaluate import infer, main_score
from training.metrics import mean_iou, sweep_overlap, sweep_thresholds
from training.run.arithmetic import arithmetic, layout
from training.run.progress import Validation
from training.settings import Compute
from training.tuning import tune

MOST_IMAGES, MOST_SETTLING = 48, 200
"""A validation during training looks at this many images, that at the end at this many, spread
over all."""
MOST_PIXELS = 64 * 1024**2
"""They have no more pixels than this together, unless one alone has. Settling a rule keeps 8 bytes
of each, the probability (float32) and the object (int32): 0.5 GiB in all."""


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
        best = sweep_thresholds(*_in_step(_foreground(model, entry) for entry in images))
        return Validation(name, best.v_rand, best.threshold)
    classes = model.manifest.architecture.num_classes
    if classes == 2:
        overlap = sweep_overlap(*_in_step(_overlap(model, entry) for entry in images))
        return Validation(name, overlap.iou, overlap.threshold)
    pairs = _in_step(_classes(model, entry) for entry in images)
    return Validation(name, mean_iou(*pairs, classes), None)


def _foreground(
    model: Model, entry: AnnotatedImage
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Give the probability of foreground, and the objects annotated."""
    probabilities = _probability(model, entry)
    if entry.ignored is not None:
        probabilities[entry.ignored] = 0
    return probabilities, entry.objects


def _overlap(model: Model, entry: AnnotatedImage) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Give the probability of class 1 and the classes annotated, where they count, (1, n)."""
    return _counted(_probability(model, entry), entry), _counted(entry.semantic, entry)


def _probability(model: Model, entry: AnnotatedImage) -> NDArray[np.float32]:
    """Give the probability of foreground (H, W), which keeps no other map in memory."""
    return foreground(segment(entry.image, model, DEFAULT_SHAPES, output="foreground"))


def _classes(model: Model, entry: AnnotatedImage) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Give the classes found and annotated, where they count, (1, n)."""
    labels = model.manifest.decide(infer(model, entry.image))
    return _counted(labels, entry), _counted(entry.semantic, entry)


def _counted(values: NDArray[Any], entry: AnnotatedImage) -> NDArray[Any]:
    """Give what lies where the annotation is not to be ignored, (1, n)."""
    return values[slice(None) if entry.ignored is None else ~entry.ignored].reshape(1, -1)


def _in_step(
    pairs: Iterable[tuple[NDArray[Any], NDArray[Any]]],
) -> tuple[Iterator[NDArray[Any]], Iterator[NDArray[Any]]]:
    """Part pairs into what is found and what is drawn, asked in turn as `zip` does; none is kept.

    `itertools.tee` would keep 57 of them.
    """
    waiting: list[NDArray[Any]] = []

    def found() -> Iterator[NDArray[Any]]:
        for one, other in pairs:
            waiting.append(other)
            yield one

    def drawn() -> Iterator[NDArray[Any]]:
        while waiting:
            yield waiting.pop()

    return found(), drawn()


def spread_over(images: Sequence[AnnotatedImage], most: int) -> Sequence[AnnotatedImage]:
    """Take no more images than that, nor pixels than `MOST_PIXELS`, but one image at least.

    They lie at equal distances in their order.
    """
    pixels = _pixels(images)
    for count in range(min(most, len(images)), 1, -1):
        chosen = np.linspace(0, len(images) - 1, count).round().astype(int)
        if pixels[chosen].sum() <= MOST_PIXELS:
            return images if count == len(images) else _Chosen(images, chosen.tolist())
    return images[:1]


def _pixels(images: Sequence[AnnotatedImage]) -> NDArray[np.intp]:
    """Count the pixels of every image, (n,), without reading them where their sizes are known."""
    if isinstance(images, Dataset | Regions):
        sizes = [height * width for _, height, width in images.shapes]
    else:
        sizes = [entry.semantic.size for entry in images]
    return np.array(sizes, np.intp)


class _Chosen(Sequence[AnnotatedImage]):
    """Some images of a sequence, read when they are asked for."""

    def __init__(self, images: Sequence[AnnotatedImage], chosen: Sequence[int]) -> None:
        self._images = images
        self._chosen = chosen

    def __len__(self) -> int:
        return len(self._chosen)

    def __getitem__(self, index: Any) -> Any:
        return self._images[self._chosen[index]]
