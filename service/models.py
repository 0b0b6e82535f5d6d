"""The models that are served: opened, verified and warmed up."""

import logging
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from model.errors import ArtefactNotFound, ManifestInvalid, ModelNotFound, ServiceNotReady
from model.geometry import Geometry
from model.planner import TileShapes
from model.runtime import Runtime
from model.sessions import ON_GPU
from service.engine import Engine
from service.loaded import Loaded
from service.schemas import ModelState, ModelUsed, ServedModel
from service.settings import Settings

GENERAL = "nuclei"
"""The shipped model of most use; it answers those who name none."""

log = logging.getLogger(__name__)


class Models:
    """What is served: models by their names, and the engine that runs them all."""

    def __init__(self, loaded: Mapping[str, Loaded], default: str, engine: Engine) -> None:
        self.loaded = dict(loaded)
        self.default = default
        self.engine = engine
        self._stopping = threading.Event()
        self._warming = threading.Thread(target=self._warm_up, name="warm-up", daemon=True)

    @classmethod
    def open(cls, settings: Settings) -> Self:
        """Open every artefact in the folder.

        Raises:
            ArtefactError: if the folder holds none, or one cannot be served.
            DeviceError: if the device that was asked for cannot be had.
            ModelNotFound: if there is no model of the default's name.
        """
        paths = sorted(settings.model_dir.glob("*.onnx"))
        if not paths:
            raise ArtefactNotFound(f"{settings.model_dir} holds no .onnx artefact.")
        loaded: dict[str, Loaded] = {}
        for path in paths:
            runtimes = open_on_devices(path, settings)
            name = runtimes[0].manifest.name
            if name in loaded:
                raise ManifestInvalid(f"Two artefacts in {settings.model_dir} are named {name}.")
            loaded[name] = model = Loaded(runtimes, tile_shapes(runtimes[0], settings.tile_edge))
            log.info("%s: %s on %s in %s", path.name, name, model.device, model.precision)
        first = GENERAL if GENERAL in loaded else min(loaded)
        models = cls(loaded, settings.default_model or first, Engine(len(settings.places)))
        models.find(None)
        return models

    def find(self, name: str | None) -> Loaded:
        """Give a model by its name; None is the default.

        Raises:
            ModelNotFound: listing the models that there are.
        """
        wanted = self.default if name is None else name
        if wanted not in self.loaded:
            raise ModelNotFound(
                f"There is no model {wanted[:64]!r}; there are {', '.join(self.loaded)}."
            )
        return self.loaded[wanted]

    def start(self) -> None:
        """Start the engine, and warm up one model after the other."""
        self.engine.start()
        self._warming.start()

    def stop(self) -> None:
        """Stop warming up, and the engine."""
        self._stopping.set()
        if self._warming.is_alive():
            self._warming.join()
        self.engine.stop()

    def _warm_up(self) -> None:
        for model in self.loaded.values():
            model.warm_up(self._stopping)
            self.engine.wake()

    def served(self) -> list[ServedModel]:
        """Describe every model."""
        return [
            ServedModel(
                name=name,
                sha256=model.artefact.sha256,
                provider=model.provider,
                device=model.device,
                precision=model.precision,
                state=model.state,
                manifest=model.manifest,
            )
            for name, model in self.loaded.items()
        ]

    def ready_states(self) -> list[ModelState]:
        """Say of every model where it runs and which tile shapes are warm.

        Raises:
            ServiceNotReady: as long as one of them is not ready.
        """
        for name, model in self.loaded.items():
            if model.state != "ready":
                raise ServiceNotReady(f"The model {name} is not ready: {model.state}.")
        return [
            ModelState(
                name=name,
                provider=model.provider,
                device=model.device,
                precision=model.precision,
                state=model.state,
                tile_shapes=model.warm_shapes,
            )
            for name, model in self.loaded.items()
        ]


def model_used(model: Loaded) -> ModelUsed:
    """Name what made an answer."""
    return ModelUsed(
        name=model.manifest.name,
        sha256=model.artefact.sha256,
        provider=model.provider,
        device=model.device,
        precision=model.precision,
    )


def open_on_devices(path: Path, settings: Settings) -> tuple[Runtime, ...]:
    """Open an artefact on every device that the settings name.

    Raises:
        ArtefactError: if it cannot be served.
        DeviceError: if a device cannot be had.
    """
    return tuple(Runtime(path, place, settings.threads, settings.cuda) for place in settings.places)


def tile_shapes(runtime: Runtime, largest_edge: int) -> TileShapes:
    """Say what tiles may be: a GPU prepares few shapes, a CPU takes each as it comes."""
    geometry = runtime.manifest.geometry
    edge = _usable(largest_edge, geometry)
    if runtime.provider in ON_GPU:
        return TileShapes.fixed(geometry, edge)
    return TileShapes(geometry.edge_at_most(edge) ** 2)


def _usable(edge: int, geometry: Geometry) -> int:
    """Raise a tile edge that cannot cover an image to the smallest that can."""
    smallest = geometry.smallest_tiling_edge
    if edge < smallest:
        log.warning(
            "tiles of %d px cannot cover an image without seams; taking %d px", edge, smallest
        )
    return max(edge, smallest)
