"""What tests of the report share: a model that needs no training, and images that it half knows."""

import base64
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model.architecture import Architecture
from model.artefact import Artefact, Manifest
from model.runtime import Runtime
from tests.conftest import manifest_of
from tests.training.drawn import discs
from tests.training.small import make_plan
from training.data.dataset import AnnotatedImage
from training.data.labels import objects_of
from training.evaluate import evaluate
from training.metrics.evaluation import Evaluation
from training.report import write_report
from training.run.folder import RunFolder

LOG: Sequence[dict[str, Any]] = (
    {"kind": "training", "step": 50, "loss": 0.7, "learning_rate": 1e-3, "steps_per_second": 2.0},
    {"kind": "validation", "step": 50, "score": "ap50", "value": 0.4, "threshold": 0.5},
    {"kind": "training", "step": 100, "loss": 0.3, "learning_rate": 5e-4, "steps_per_second": 3.0},
    {"kind": "validation", "step": 100, "score": "ap50", "value": 0.6, "threshold": 0.5},
)


def describe(label_kind: str = "instance", num_classes: int = 2, **changes: Any) -> Manifest:
    """Describe a model that was trained on labels of a kind."""
    manifest = manifest_of(Architecture(depth=1, num_classes=num_classes))
    if label_kind == "instance":
        manifest = manifest.model_copy(update={"decision_threshold": 0.5})
    fields = {"label_kind": label_kind, "steps": 100} | changes
    record = manifest.training.model_copy(update=fields)
    return manifest.model_copy(update={"training": record})


@dataclass(frozen=True)
class Oracle:
    """A model of depth 1 whose logits are the scaled pixels: the brighter, the higher the class."""

    manifest: Manifest = field(default_factory=describe)
    runs: list[tuple[int, ...]] = field(default_factory=list)
    """Shapes of the tiles that it was given."""

    @property
    def artefact(self) -> Artefact:
        return Artefact(Path("oracle.onnx"), "ab" * 32, self.manifest)

    def run(self, tiles: NDArray[np.float32], /) -> NDArray[np.float32]:
        self.runs.append(tiles.shape)
        halo = self.manifest.geometry.halo
        inner = tiles[:, :1, halo:-halo, halo:-halo]
        if self.manifest.architecture.num_classes == 2:
            return np.concatenate([-3 * inner, 3 * inner], axis=1)
        return np.concatenate([-6 * inner - 3, 0 * inner, 6 * inner - 3], axis=1)


def image(seed: int, unseen: float = 0.2) -> AnnotatedImage:
    """Draw discs, a share of which is as dark as the ground: the oracle does not find those."""
    objects = discs(seed, jitter=1.0)
    random = np.random.default_rng(seed)
    dark = random.choice(np.unique(objects), round(unseen * objects.max()), replace=False)
    bright = (objects > 0) & ~np.isin(objects, dark)
    pixels = np.clip(60 + 130 * bright + random.normal(0, 8, (1, 96, 96)), 0, 255)
    semantic = (objects > 0).astype(np.uint8)
    return AnnotatedImage(f"discs-{seed}", pixels.astype(np.uint8), semantic, objects)


def images(count: int) -> list[AnnotatedImage]:
    """Draw images, of which a later one is the harder."""
    return [image(seed, unseen=0.6 * seed / count) for seed in range(count)]


def tissue(seed: int) -> AnnotatedImage:
    """Draw an image of three classes, one inside the other."""
    rows, columns = np.mgrid[:64, :80]
    distance = np.hypot(rows - 30 - seed, columns - 40)
    semantic = ((distance < 25).astype(np.uint8) + (distance < 12)).astype(np.uint8)
    noise = np.random.default_rng(seed).normal(0, 20, semantic.shape)
    pixels = np.clip(40 + 85 * semantic + noise, 0, 255).astype(np.uint8)[np.newaxis]
    return AnnotatedImage(f"tissue-{seed}", pixels, semantic, objects_of(semantic))


def page_of(
    folder: Path,
    model: Oracle,
    validation: Sequence[AnnotatedImage],
    evaluation: Evaluation | None = None,
    log: Sequence[dict[str, Any]] = LOG,
) -> str:
    """Write a report and give its text."""
    written = RunFolder(folder)
    evaluation = evaluation or evaluate(model, validation)
    write_report(written, cast("Runtime", model), validation, evaluation, make_plan(), log)
    return written.report.read_text(encoding="utf-8")


def pictures(page: str, kind: str) -> list[NDArray[np.uint8]]:
    """Decode the pictures of a kind, `jpeg` or `png`, in the order of the page."""
    return [
        np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
        for data in re.findall(rf'href="data:image/{kind};base64,([^"]+)"', page)
    ]
