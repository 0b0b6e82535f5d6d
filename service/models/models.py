"""The models that are served: opened, verified and warmed up."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Future
from contextlib import asynccontextmanager
from typing import Self, TypeVar

from model.errors import ModelNotFound, ServiceNotReady, ServiceStopping, UNetError
from model.sessions import ON_GPU
from service.budget import models_bytes
from service.engine import Engine
from service.models.catalogue import Catalogue
from service.models.loaded import Loaded
from service.models.opening import Opening
from service.models.reload import Reload
from service.models.served import Change, Served
from service.schemas import ModelState, ModelUsed, RefusedArtefact, ServedModel
from service.settings import Settings
from service.worker import Worker

T = TypeVar("T")

GENERAL = "nuclei"
"""The shipped model of most use; it answers those who name none."""

log = logging.getLogger(__name__)


class Models:
    """What is served: models by their names, and the engine that runs them all.

    What takes long over models runs in one thread, one after the other: warming up, looking at the
    folder, opening what was let go. The event loop is free, and nothing is done twice at once.
    """

    def __init__(
        self, catalogue: Catalogue, reload: Reload, engine: Engine, default: str = ""
    ) -> None:
        """Serve a catalogue that was filled.

        Args:
            catalogue: What is served.
            reload: What changes the catalogue.
            engine: What runs the models.
            default: Answers those who name none; empty is `GENERAL`, or else the first by name.
        """
        self.catalogue = catalogue
        self.engine = engine
        self._reload = reload
        self._default = default
        self._looks: dict[bool, Future[list[Change]]] = {}
        self._worker = Worker("models")

    @classmethod
    def open(cls, settings: Settings) -> Self:
        """Serve what is sound in the folder: the default open, the others as the bound allows.

        Raises:
            ArtefactError: if the folder holds nothing that is sound, or two of one name.
            DeviceError: if the device that was asked for cannot be had.
            ModelNotFound: if the default is not there, or refused, with the reasons.
        """
        catalogue = Catalogue()
        engine = Engine(len(settings.places))
        opening = Opening(settings, engine.retired, engine.running)
        reload = Reload(settings.model_dir, catalogue, opening)
        reload.verify_all()
        models = cls(catalogue, reload, engine, settings.default_model)
        default = models._find_default()
        reload.open_first(default)
        on_gpu = opening.provider in ON_GPU
        catalogue.memory_bytes = settings.model_memory_bytes or (0 if on_gpu else models_bytes())
        reload.open_others()
        for each in catalogue.served.values():
            ran = f"on {each.device} in {each.precision}" if each.loaded else "not opened yet"
            log.info("%s: %s %s", each.path.name, each.name, ran)
        return models

    @property
    def loaded(self) -> dict[str, Loaded]:
        """The models that are open, by name."""
        served = self.catalogue.served.values()
        return {each.name: each.loaded for each in served if each.loaded}

    def gpus(self) -> list[str]:
        """Name the GPUs that models are open on, as in `cuda:0`."""
        runtimes = [each for loaded in self.loaded.values() for each in loaded.runtimes]
        return sorted({each.device for each in runtimes if each.device.startswith("cuda:")})

    def find(self, name: str | None) -> Served:
        """Give what is served under a name; None is the default, by the rule at any time.

        Raises:
            ModelNotFound: listing the models that there are.
        """
        if name is None:
            names = self.catalogue.served
            name = self._default or (GENERAL if GENERAL in names else min(names))
        return self.catalogue.find(name)

    def _find_default(self) -> Served:
        """Give the default when the service starts: no other answers for one that is refused.

        Raises:
            ModelNotFound: naming what is refused, and why.
        """
        refused = self.catalogue.refused
        wanted = self._default or GENERAL
        is_refused = any(path.stem == wanted for path in refused)
        if wanted not in self.catalogue.served and (self._default or is_refused):
            reasons = " ".join(
                f"{each.file} is refused: {each.detail}" for each in refused.values()
            )
            names = ", ".join(self.catalogue.served)
            raise ModelNotFound(
                f"There is no model {wanted!r}, the default; there are {names}. {reasons}".rstrip()
            )
        return self.find(None)

    @asynccontextmanager
    async def use(self, name: str) -> AsyncIterator[Loaded]:
        """Hold an open model, whatever comes in its place meanwhile.

        Raises:
            ModelNotFound: if it is served no more.
            ServiceNotReady: if it was let go and cannot be opened again, with the reason.
            ServiceStopping: if the service stops meanwhile.
        """
        try:
            with self.catalogue.uses.of(name):
                yield self.catalogue.find(name).loaded or await self._load(name)
        finally:
            if self.catalogue.lacks() and not self._reload.stopping.is_set():
                self._begin(self.catalogue.make_room, 0, name)

    async def reload(self, settled: bool = False) -> list[Change]:
        """Look at the folder; who asks while another waits for its look has the same.

        Args:
            settled: Leave what is not as it was at the last look.

        Raises:
            ArtefactNotFound: if it holds no artefact.
            ServiceStopping: if the service stops meanwhile.
        """
        look = self._looks.get(settled)
        if look is None or look.running() or look.done():  # it may have passed what is new by now
            look = self._looks[settled] = self._begin(self._reload.look, settled)
        return await asyncio.shield(asyncio.wrap_future(look))

    async def watch(self, pause: Callable[[], Awaitable[object]]) -> None:
        """Look at the folder after every pause, for ever."""
        told = ""
        while True:
            await pause()
            try:
                await self.reload(settled=True)
            except Exception as exc:  # whatever it is, the next look may go well
                if str(exc) != told:
                    log.warning("%s", exc, exc_info=not isinstance(exc, UNetError))
                told = str(exc)
            else:
                told = ""

    def start(self) -> None:
        """Start the engine, and warm up one model after the other."""
        self.engine.start()
        self._begin(self._warm_up)

    def stop(self) -> None:
        """Give up what has begun with models, and stop the engine."""
        self._reload.stopping.set()
        self._worker.stop()
        self.engine.stop()

    def served(self) -> list[ServedModel]:
        """Describe every model."""
        return [each.described() for each in self.catalogue.served.values()]

    def refused(self) -> list[RefusedArtefact]:
        """Describe every file that is not served."""
        return [each.described() for each in self.catalogue.refused.values()]

    def ready_states(self) -> list[ModelState]:
        """Say of every model where it runs and which tile shapes are warm.

        Raises:
            ServiceNotReady: as long as one of them is neither ready nor let go, or a device hangs.
        """
        for device, seconds in self.engine.hanging().items():
            raise ServiceNotReady(f"Device {device} hangs: its turn has taken {seconds:.0f} s.")
        states = [
            ModelState(
                name=each.name,
                provider=each.provider,
                device=each.device,
                precision=each.precision,
                state=each.state,
                tile_shapes=each.loaded.warm_shapes if each.loaded else (),
            )
            for each in self.catalogue.served.values()
        ]
        for each in states:
            if each.state not in ("ready", "unloaded"):
                raise ServiceNotReady(f"The model {each.name} is not ready: {each.state}.")
        return states

    async def _load(self, name: str) -> Loaded:
        """Open a model again. Whoever leaves takes only the own wish back."""
        return await asyncio.wrap_future(self._begin(self._reload.load, name))

    def _begin(self, work: Callable[..., T], *arguments: object) -> Future[T]:
        if self._reload.stopping.is_set():
            raise ServiceStopping("The service is stopping.")
        return self._worker.submit(work, *arguments)

    def _warm_up(self) -> None:
        for model in self.loaded.values():
            model.warm_up(self._reload.stopping)
            self.engine.wake()


def model_used(model: Loaded, device: str) -> ModelUsed:
    """Name what made an answer, and the device that did."""
    return ModelUsed(
        name=model.manifest.name,
        sha256=model.artefact.sha256,
        provider=model.provider,
        device=device,
        precision=model.precision,
    )
