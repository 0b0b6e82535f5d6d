"""The models that are served: opened, verified and given an engine each."""

import logging
from dataclasses import dataclass
from typing import Self

from model.errors import ArtefactNotFound, ManifestInvalid, ModelNotFound, ServiceNotReady
from model.geometry import Geometry
from model.planner import TileShapes
from model.runtime import Runtime
from service.engine import Engine
from service.schemas import ModelState, ModelUsed, ServedModel
from service.settings import Settings

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Models:
    """Engines by the name of their model."""

    engines: dict[str, Engine]
    default: str

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
        engines: dict[str, Engine] = {}
        for path in paths:
            runtime = Runtime(path, settings.device, settings.threads)
            name = runtime.manifest.name
            if name in engines:
                raise ManifestInvalid(f"Two artefacts in {settings.model_dir} are named {name}.")
            engines[name] = Engine(runtime, tile_shapes(runtime, settings.tile_edge))
            log.info("%s: %s on %s", path.name, name, runtime.provider)
        models = cls(engines, settings.default_model or min(engines))
        models.find(None)
        return models

    def find(self, name: str | None) -> Engine:
        """Give the engine of a model; None is the default.

        Raises:
            ModelNotFound: listing the models that there are.
        """
        wanted = self.default if name is None else name
        if wanted not in self.engines:
            raise ModelNotFound(
                f"There is no model {wanted[:64]!r}; there are {', '.join(self.engines)}."
            )
        return self.engines[wanted]

    def start(self) -> None:
        """Start every engine."""
        for engine in self.engines.values():
            engine.start()

    def stop(self) -> None:
        """Stop every engine."""
        for engine in self.engines.values():
            engine.stop()

    def served(self) -> list[ServedModel]:
        """Describe every model."""
        return [
            ServedModel(
                name=name,
                sha256=engine.runtime.artefact.sha256,
                provider=engine.runtime.provider,
                state=engine.state,
                manifest=engine.runtime.manifest,
            )
            for name, engine in self.engines.items()
        ]

    def ready_states(self) -> list[ModelState]:
        """Say of every model where it runs and which tile shapes are warm.

        Raises:
            ServiceNotReady: as long as one of them is not ready.
        """
        for name, engine in self.engines.items():
            if engine.state != "ready":
                raise ServiceNotReady(f"The model {name} is not ready: {engine.state}.")
        return [
            ModelState(
                name=name,
                provider=engine.runtime.provider,
                state=engine.state,
                tile_shapes=engine.warm_shapes,
            )
            for name, engine in self.engines.items()
        ]


def model_used(runtime: Runtime) -> ModelUsed:
    """Name what made an answer."""
    return ModelUsed(
        name=runtime.manifest.name,
        sha256=runtime.artefact.sha256,
        provider=runtime.provider,
        precision=runtime.manifest.precision,
    )


def tile_shapes(runtime: Runtime, largest_edge: int) -> TileShapes:
    """Say what tiles may be: a GPU prepares few shapes, a CPU takes each as it comes."""
    geometry = runtime.manifest.geometry
    edge = _usable(largest_edge, geometry)
    if runtime.provider == "cuda":
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
