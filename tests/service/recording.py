"""A runtime that runs nothing, and images for it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.architecture import Architecture
from model.artefact import Artefact
from model.intensity import IntensityScale
from model.planner import TileShapes
from model.runtime import Runtime
from model.segmentation import Segmentation
from model.sessions import Provider
from tests.conftest import manifest_of, square

MANIFEST = manifest_of(Architecture(depth=1, base_channels=1))
EDGE = MANIFEST.geometry.edge_at_most(48)
OTHER_EDGE = EDGE + MANIFEST.geometry.stride
FEW = TileShapes(EDGE * OTHER_EDGE, (EDGE, OTHER_EDGE))

Batch = tuple[int, ...]
"""Which image each tile of a run belongs to."""


class RecordingRuntime(Runtime):
    """Gives class 1 everywhere, and records what it was asked to run."""

    def __init__(self, provider: Provider = "cpu", device: str = "") -> None:
        self.runs: list[Batch] = []
        self.decided: list[Batch] = []
        """Those runs that were asked for labels."""
        self.shapes: list[tuple[int, ...]] = []
        self.warmed_up: list[tuple[tuple[int, int], int]] = []
        self.before_run: Callable[[Batch], None] = lambda _: None
        self.before_warm_up: Callable[[], None] = lambda: None
        self.artefact = Artefact(Path("recording.onnx"), "0" * 64, MANIFEST)
        self._provider = provider
        self._device = device

    @property
    def provider(self) -> Provider:
        return self._provider

    @property
    def device(self) -> str:
        return self._device or ("cpu" if self._provider == "cpu" else "cuda:0")

    @property
    def precision(self) -> str:
        return "fp32"

    def run(self, tiles: NDArray[np.float32]) -> NDArray[np.float32]:
        batch = tuple(round(100 * float(tile[0, 0, 0])) for tile in tiles)
        self.before_run(batch)
        self.runs.append(batch)
        self.shapes.append(tiles.shape[2:])
        count, _, height, width = tiles.shape
        halo = MANIFEST.geometry.halo
        logits = np.zeros((count, 2, height - 2 * halo, width - 2 * halo), np.float32)
        logits[:, 1] = 1
        return logits

    def labels(self, tiles: NDArray[np.float32]) -> NDArray[np.uint8]:
        logits = self.run(tiles)
        self.decided.append(self.runs[-1])
        return np.array([MANIFEST.decide(each) for each in logits], np.uint8)

    def warm_up(self, tile_shape: tuple[int, int], batch: int = 1) -> None:
        self.before_warm_up()
        self.warmed_up.append((tile_shape, batch))


def work(image: int, tiles: int, edge: int = EDGE) -> Segmentation:
    """Give an image of so many tiles, whose pixels are its number."""
    width = tiles * MANIFEST.geometry.share(edge)
    begun = Segmentation.begin(np.full((1, 1, width), image), MANIFEST, square(edge))
    assert len(begun.plan.tiles) == tiles
    return replace(begun, scale=IntensityScale(-100, 100))  # its number reaches the runtime
