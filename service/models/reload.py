"""Keeping the catalogue in step with the folder of artefacts.

A file is taken as a whole or not at all: verified, opened and warmed up first, then put in the
place of what was served under its name. Whoever began with the old model ends with it.
"""

import hashlib
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from model.artefact import Artefact, read_bytes
from model.errors import (
    ArtefactDamaged,
    ArtefactError,
    ArtefactNotFound,
    InferenceFailed,
    ManifestInvalid,
    ServiceNotReady,
    ServiceStopping,
)
from service.models.catalogue import Catalogue
from service.models.folder import Stamp, look
from service.models.loaded import Loaded
from service.models.opening import Opening
from service.models.retries import Retries
from service.models.served import Change, Refused, Served

log = logging.getLogger(__name__)


class _NameTaken(ManifestInvalid):
    """Another file has the name already."""

    def __init__(self, text: str, name: str = "") -> None:
        super().__init__(text)
        self.name = name


class Reload:
    """Takes files into the catalogue and out of it. One thread at a time may call it."""

    def __init__(
        self,
        folder: Path,
        catalogue: Catalogue,
        opening: Opening,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Know where to look; nothing is opened yet.

        Args:
            folder: Where the artefacts are.
            catalogue: What is served of them.
            opening: Opens one.
            clock: Tells when to try again what went wrong, in s.
        """
        self.stopping = threading.Event()
        """When it is set, what has begun is given up."""
        self._folder = folder
        self._catalogue = catalogue
        self._opening = opening
        self._seen: dict[Path, Stamp] = {}
        self._retries = Retries(clock)

    def verify_all(self) -> None:
        """Serve every sound artefact, though none is open yet, and refuse the others.

        Raises:
            ArtefactError: if the folder holds none that is sound; the reasons are told. And if two
                have one name: which of them was meant is not known.
        """
        self._seen = look(self._folder)
        for path, stamp in self._seen.items():
            try:
                fresh = Served(path, stamp, self._opening.verify(path))
            except Exception as exc:  # whatever it is, the others are served
                log.exception("%s cannot be served", path.name)
                self._catalogue.refuse(path, Refused.of(path, stamp, exc))
                continue
            if fresh.name in self._catalogue.served:
                raise ManifestInvalid(f"Two artefacts in {self._folder} are named {fresh.name}.")
            self._catalogue.served = {**self._catalogue.served, fresh.name: fresh}
        if not self._catalogue.served:
            reasons = " ".join(each.detail for each in self._catalogue.refused.values())
            raise ArtefactError(f"No artefact in {self._folder} can be served. {reasons}")

    def open_first(self, default: Served) -> None:
        """Open the one model that the service does not start without.

        Raises:
            ArtefactError: if it cannot be served.
            DeviceError: if the device that was asked for cannot be had.
        """
        self._catalogue.put(self._open(default.path, default.stamp, default.artefact))

    def open_others(self) -> None:
        """Open as many as the bound allows; the rest is opened by the first request for it."""
        for each in self._catalogue.served.values():
            needed = self._opening.expected_bytes(each.manifest)
            if each.loaded or self._catalogue.lacks(needed):
                continue
            try:
                self._catalogue.put(self._open(each.path, each.stamp, each.artefact))
            except Exception as exc:  # whatever it is, the others are served
                log.exception("%s cannot be served", each.path.name)
                self._catalogue.remove(each.path)
                self._catalogue.refuse(each.path, Refused.of(each.path, each.stamp, exc))

    def look(self, settled: bool = False) -> list[Change]:
        """Look at the folder, and serve what it holds now.

        Args:
            settled: Leave what is not as it was at the last look: it may be half written. And
                what went wrong is tried again only now and then, since nobody asks for it.

        Raises:
            ArtefactNotFound: if it holds none. Then, as when all that it holds is refused, nothing
                is taken out of service: a folder is lost more often than it is emptied.
            ServiceStopping: if the service stops meanwhile.
        """
        self._refuse_when_stopping()
        try:
            files = look(self._folder)
        except ArtefactNotFound as exc:
            text = "The folder of models holds no .onnx artefact. What was served still is."
            raise ArtefactNotFound(text) from exc
        before, self._seen = self._seen, files
        troubled = self._troubled()
        known = self._known(files, self._retries.due(troubled) if settled else troubled)
        changed = [path for path in {**files, **known} if files.get(path) != known.get(path)]
        if settled:
            changed = [path for path in changed if files.get(path) == before.get(path)]
        changes = [
            change for path in changed if path in files for change in self._take(path, files[path])
        ]
        is_last = not any(each.path in files for each in self._catalogue.served.values())
        for path in changed:
            if path not in files and not (is_last and self._catalogue.at(path)):
                changes += self._catalogue.remove(path)
        return changes

    def load(self, name: str) -> Loaded:
        """Give an open model; open it again if it was let go.

        Raises:
            ModelNotFound: if it is served no more.
            ServiceNotReady: if it cannot be opened now, with the reason.
            ServiceStopping: if the service stops meanwhile.
        """
        self._refuse_when_stopping()
        served = self._catalogue.find(name)
        if served.loaded is None and (stamp := self._worth_a_try(served.path)):
            self._take(served.path, stamp, reopen=True)
            served = self._catalogue.find(name)
        if served.loaded is None:
            refused = self._catalogue.refused.get(served.path)
            reason = refused.detail if refused else "Its file is gone."
            raise ServiceNotReady(f"The model {name} was let go and cannot be opened. {reason}")
        return served.loaded

    def _troubled(self) -> set[Path]:
        """Give the files that could go well as they are.

        That is one whose model has failed, and one that was refused for no fault of its own.
        """
        refused, served = self._catalogue.refused, self._catalogue.served.values()
        failed = {each.path for each in served if each.state == "failed"} - refused.keys()
        return failed | {path for path, each in refused.items() if not each.is_final}

    def _known(self, files: dict[Path, Stamp], again: set[Path]) -> dict[Path, Stamp]:
        """Give the stamps of what was taken or refused, but for what is to be tried again.

        A file whose name is free by now is tried, too.
        """
        served = self._catalogue.served
        known = {each.path: each.stamp for each in served.values()}
        for path, refused in self._catalogue.refused.items():
            rival = served.get(refused.rival)
            if not refused.rival or (rival and rival.path in files):
                known[path] = refused.stamp
        return {path: stamp for path, stamp in known.items() if path not in (again & files.keys())}

    def _worth_a_try(self, path: Path) -> Stamp | None:
        """Give a file's stamp, unless the file is gone or was found to be bad as it is."""
        stamp, refused = Stamp.of(path), self._catalogue.refused.get(path)
        return None if refused and refused.is_final and refused.stamp == stamp else stamp

    def _take(self, path: Path, stamp: Stamp, reopen: bool = False) -> list[Change]:
        """Serve a file as it is now, or refuse it."""
        mine = self._catalogue.at(path)
        try:
            if mine and not reopen and mine.state != "failed" and _digest(path) == mine.sha256:
                return self._catalogue.put(replace(mine, stamp=stamp))
            artefact = self._opening.verify(path)
            self._refuse_rival(path, artefact.manifest.name)
            fresh = self._open(path, stamp, artefact)
            self._warm_up(fresh)
        except ServiceStopping:
            raise
        except Exception as exc:  # whatever it is, what was served still is
            log.warning("%s cannot be served", path.name, exc_info=True)
            rival = exc.name if isinstance(exc, _NameTaken) else ""
            return [self._catalogue.refuse(path, Refused.of(path, stamp, exc, rival))]
        return self._catalogue.put(fresh)

    def _open(self, path: Path, stamp: Stamp, artefact: Artefact) -> Served:
        """Open what was verified, once there is room for it."""
        needed = self._opening.expected_bytes(artefact.manifest)
        self._catalogue.make_room(needed, keep=artefact.manifest.name)
        loaded = self._opening.open(artefact)
        if loaded.artefact.sha256 != artefact.sha256:
            raise ArtefactDamaged(f"{path} changed while it was opened.")
        return Served.of(path, stamp, loaded)

    def _refuse_rival(self, path: Path, name: str) -> None:
        holder = self._catalogue.served.get(name)
        if holder and holder.path != path and Stamp.of(holder.path):
            text = f"{path.name} is named {name}, as is {holder.path.name}, which stays."
            raise _NameTaken(text, name)

    def _warm_up(self, fresh: Served) -> None:
        if fresh.loaded is None:
            return
        fresh.loaded.warm_up(self.stopping)
        self._refuse_when_stopping()
        if fresh.state != "ready":
            raise InferenceFailed(f"{fresh.name} did not warm up. {fresh.loaded.failure}")

    def _refuse_when_stopping(self) -> None:
        if self.stopping.is_set():
            raise ServiceStopping("The service is stopping.")


def _digest(path: Path) -> str:
    return hashlib.sha256(read_bytes(path)).hexdigest()
