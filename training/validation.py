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
from training.dataset import AnnotatedImage
from training.evaluate import infer
from training.loop import Validation
from training.metrics import score_label_maps, sweep_thresholds
from training.tuning import tune

MOST_IMAGES = 48
"""A validation during training looks at this many images, spread over all."""


class NetworkModel:
    """A network in training, run as an artefact is."""

    def __init__(self, network: nn.Module, manifest: Manifest, device: torch.device) -> None:
        self.network = network
        self.manifest = manifest
        self.device = device

    def run(self, tiles: NDArray[np.float32], /) -> NDArray[np.float32]:
        """Give the logits of a batch of tiles, without dropout."""
        self.network.eval()
        batch = torch.from_numpy(tiles).to(self.device, memory_format=torch.channels_last)
        with torch.inference_mode(), torch.autocast(self.device.type, torch.bfloat16):
            logits: Tensor = self.network(batch)
        return np.asarray(logits.float().cpu())


def settle(model: Model, images: Sequence[AnnotatedImage]) -> Validation:
    """Choose threshold and rule for the highest main score on some images."""
    manifest = model.manifest
    maps: list[NDArray[Any]] = []
    references: list[NDArray[Any]] = []
    semantic = manifest.training.label_kind == "semantic"
    several = manifest.architecture.num_classes > 2
    for entry in images:
        logits = infer(model, entry.image)
        maps.append(
            manifest.decide(logits) if semantic and several else foreground(softmax(logits))
        )
        if entry.ignored is not None:
            maps[-1][entry.ignored] = 0
        references.append(entry.semantic if semantic and several else entry.objects)
    if not semantic:
        tuned = tune(maps, references)
        return Validation("ap50", tuned.score, tuned.threshold, tuned.rule.model_dump())
    if several:
        scores = score_label_maps(maps, references, references, manifest.architecture.num_classes)
        return Validation("iou", float(np.nanmean(scores.iou)), None)
    best = sweep_thresholds(maps, references)
    return Validation("v_rand", best.v_rand, best.threshold)


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
