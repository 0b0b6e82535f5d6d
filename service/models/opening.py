"""Opening an artefact: what is found in the file first, what it will take, then the sessions."""

import logging
import math
from collections.abc import Sequence, Set
from contextlib import AbstractContextManager
from pathlib import Path

from model.artefact import Artefact, Manifest
from model.errors import ArtefactDamaged
from model.geometry import Geometry
from model.planner import TileShapes
from model.runtime import Runtime, verified
from model.segmentation import DEFAULT_TILE_EDGE
from model.sessions import ON_GPU, Provider
from service.budget import tile_pixels
from service.models.loaded import TILES_AT_FIRST, Loaded, session_bytes
from service.settings import Settings

log = logging.getLogger(__name__)


class Opening:
    """Opens artefacts on the devices that the settings name."""

    def __init__(
        self,
        settings: Settings,
        retired: Set[int] = frozenset(),
        running: Sequence[AbstractContextManager[object]] = (),
    ) -> None:
        """Know how; nothing is opened yet.

        Args:
            settings: They name the devices, and say how these are used.
            retired: The numbers of those that take no more turns, now or later.
            running: What is held while each of them runs tiles.
        """
        self._settings = settings
        self._retired = retired
        self._running = running
        self.provider: Provider = "cpu"
        """What runs the model that was opened last, and so probably the next one."""

    def verify(self, path: Path) -> Artefact:
        """Find a file whole, and read its manifest, without what opening it takes.

        Raises:
            ArtefactError: if it cannot be served.
        """
        return verified(path)

    def expected_bytes(self, manifest: Manifest) -> int:
        """Estimate what a model will take on each device, before it is opened."""
        shapes = tile_shapes(manifest, self.provider, self._settings.tile_edge)
        return session_bytes(manifest, shapes.largest_area * TILES_AT_FIRST[self.provider])

    def open(self, artefact: Artefact) -> Loaded:
        """Open what was verified on every device that takes turns.

        Raises:
            ArtefactError: if it cannot be served, or changes meanwhile.
            DeviceError: if a device cannot be had.
        """
        settings, retired = self._settings, self._retired
        runtimes = [
            None
            if number in retired
            else Runtime(artefact.path, place, settings.threads, settings.cuda, artefact)
            for number, place in enumerate(settings.places)
        ]
        first, *others = [runtime for runtime in runtimes if runtime]
        if any(other.artefact.sha256 != first.artefact.sha256 for other in others):
            raise ArtefactDamaged(f"{artefact.path} changed while it was opened.")
        self.provider = first.provider
        shapes = tile_shapes(first.manifest, self.provider, settings.tile_edge)
        _warn_of_small(settings.tile_edge, first.manifest.geometry)
        return Loaded(runtimes, shapes, retired, self._running)


def tile_shapes(manifest: Manifest, provider: Provider, largest_edge: int) -> TileShapes:
    """Say what tiles may be: a GPU prepares few shapes, a CPU takes each as it comes.

    Args:
        manifest: What the artefact says about itself.
        provider: What runs it.
        largest_edge: In px; 0 is the default, or on a CPU what its memory allows. One that cannot
            cover an image is raised to the smallest that can.
    """
    geometry, on_gpu = manifest.geometry, provider in ON_GPU
    if not largest_edge:
        fitting = math.isqrt(tile_pixels(manifest.architecture))
        largest_edge = DEFAULT_TILE_EDGE if on_gpu else fitting
    edge = max(largest_edge, geometry.smallest_tiling_edge)
    if on_gpu:
        return TileShapes.fixed(geometry, edge)
    return TileShapes(geometry.edge_at_most(edge) ** 2)


def _warn_of_small(edge: int, geometry: Geometry) -> None:
    smallest = geometry.smallest_tiling_edge
    if 0 < edge < smallest:
        log.warning(
            "tiles of %d px cannot cover an image without seams; taking %d px", edge, smallest
        )
