"""A model that sees what is bright, and images that it finds everything in."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.architecture import Architecture
from model.artefact import Manifest
from tests.conftest import manifest_of
from training.data.dataset import AnnotatedImage
from training.data.labels import objects_of

DEPTH_1 = Architecture(depth=1)


@dataclass(frozen=True)
class Oracle:
    """A model of depth 1 whose logits are the scaled pixels: bright is class 1."""

    manifest: Manifest = field(default_factory=lambda: manifest_of(DEPTH_1))

    def run(self, tiles: NDArray[np.float32], /) -> NDArray[np.float32]:
        halo = self.manifest.geometry.halo
        inner = tiles[:, :1, halo:-halo, halo:-halo]
        others = self.manifest.architecture.num_classes - 2
        return np.concatenate([-inner, inner, *[inner - 9] * others], axis=1)


def oracle(num_classes: int = 2, label_kind: str = "semantic", **changes: Any) -> Oracle:
    manifest = manifest_of(Architecture(depth=1, num_classes=num_classes), **changes)
    record = manifest.training.model_copy(update={"label_kind": label_kind})
    return Oracle(manifest.model_copy(update={"training": record}))


def squares(name: str, drawn: NDArray[np.uint8] | None = None) -> AnnotatedImage:
    """Show four objects, and draw them or others on an image larger than the smallest tiles."""
    semantic = np.zeros((90, 110), np.uint8)
    for top, left in ((5, 5), (5, 60), (50, 5), (50, 60)):
        semantic[top : top + 30, left : left + 40] = 1
    image = np.where(semantic, 200, 0).astype(np.uint8)
    drawn = semantic if drawn is None else drawn
    return AnnotatedImage(name, image[None], drawn, objects_of(drawn))


def shifted(name: str, by: int) -> AnnotatedImage:
    """Draw objects beside those that the model will find."""
    return squares(name, np.roll(squares(name).semantic, by, axis=1))


def narrow(name: str) -> AnnotatedImage:
    """Draw a quarter of each object that the model will find."""
    drawn = np.zeros((90, 110), np.uint8)
    for left in (5, 60):
        drawn[5:35, left : left + 10] = drawn[50:80, left : left + 10] = 1
    return squares(name, drawn)
