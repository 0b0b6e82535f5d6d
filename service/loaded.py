"""One artefact, opened on every device, and what has been found out about it there."""

import logging
import math
import threading
from collections.abc import Sequence
from dataclasses import replace
from itertools import product

from model.artefact import Artefact, Manifest
from model.planner import TileShapes
from model.runtime import Runtime
from model.sessions import Provider
from service.schemas import LoadedState

TILES_A_RUN = {"cpu": 1, "openvino": 1, "cuda": 4}
"""A CPU gains nothing from a batch; a GPU does."""
MOST_FAILURES = 3
"""Images in a row that a model fails on before it counts as broken."""
SMOOTHING = 0.2
"""Share of the last turn in what is known of a model's speed."""

log = logging.getLogger(__name__)

TileShape = tuple[int, int]


class Loaded:
    """A model that is served."""

    def __init__(self, runtimes: Sequence[Runtime], shapes: TileShapes) -> None:
        """Take an artefact that was opened once for each device."""
        self.runtimes = tuple(runtimes)
        self.shapes = shapes
        self.state: LoadedState = "warming-up"
        self.work_a_second = 0.0
        """Floating-point operations in a second of a device's turns; 0 before the first."""
        self._most: dict[TileShape, int] = {}
        self._failures = 0

    @property
    def manifest(self) -> Manifest:
        """What the artefact says about itself."""
        return self.runtimes[0].manifest

    @property
    def artefact(self) -> Artefact:
        """The file."""
        return self.runtimes[0].artefact

    @property
    def provider(self) -> Provider:
        """The device that runs the model, as its session says."""
        return self.runtimes[0].provider

    @property
    def warm_shapes(self) -> tuple[TileShape, ...]:
        """What is warmed up, height and width in px: all shapes, or the largest of very many."""
        edge = self.manifest.geometry.edge_at_most(math.isqrt(self.shapes.largest_area))
        return self.shapes.all or ((edge, edge),)

    def warm_up(self, stopping: threading.Event) -> None:
        """Run every shape that can be prepared, on every device; then the model is ready."""
        try:
            batches = range(1, TILES_A_RUN[self.provider] + 1)
            for runtime, shape, batch in product(self.runtimes, self.warm_shapes, batches):
                if stopping.is_set():
                    return
                runtime.warm_up(shape, batch)
        except Exception:  # whatever it is: what waits for the model would wait for ever
            log.exception("%s did not warm up", self.manifest.name)
            self.state = "failed"
        else:
            self.state = "ready"

    def most_tiles(self, shape: TileShape) -> int:
        """Give how many tiles of a shape are run together."""
        return self._most.get(shape, TILES_A_RUN[self.provider])

    def note_turn(self, work: int, seconds: float) -> None:
        """Learn from a turn that went well."""
        self._failures = 0
        speed = work / seconds
        known = self.work_a_second or speed
        self.work_a_second = (1 - SMOOTHING) * known + SMOOTHING * speed

    def note_failure(self) -> None:
        """Learn from an image that could not be run; after several in a row nothing is trusted."""
        self._failures += 1
        if self._failures == MOST_FAILURES:
            log.error("%s failed on %d images in a row", self.manifest.name, self._failures)
            self.state = "failed"

    def note_out_of_memory(self, shape: TileShape, tiles: int) -> None:
        """Ask for less from now on: fewer tiles at once, or smaller ones where it was one."""
        if tiles > 1:
            self._most[shape] = tiles // 2
            return
        area = shape[0] * shape[1] // 2
        fitting = tuple(edge for edge in self.shapes.edges if edge**2 <= area)
        smallest = self.manifest.geometry.smallest_tiling_edge**2
        if area >= smallest and (fitting or not self.shapes.edges):
            self.shapes = replace(self.shapes, largest_area=area)
            log.warning("%s: from now on tiles have at most %d px", self.manifest.name, area)
