"""A folder whose files are opened by fakes, and what became of each."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path

from model.artefact import Artefact, Manifest
from model.errors import ArtefactDamaged
from service.engine import Engine
from service.models.catalogue import Catalogue
from service.models.loaded import Loaded, session_bytes
from service.models.models import Models
from service.models.opening import Opening
from service.models.reload import Reload
from service.models.served import Change
from tests.conftest import square
from tests.service.recording import EDGE, MANIFEST, RecordingRuntime


class ShelfRuntime(RecordingRuntime):
    """Records, and is of one file."""

    def __init__(self, artefact: Artefact) -> None:
        super().__init__()
        self.artefact = artefact


class ShelfOpening(Opening):
    """Opens the files of a shelf."""

    def __init__(self, shelf: "Shelf") -> None:
        self._shelf = shelf

    def verify(self, path: Path) -> Artefact:
        return self._shelf.verify(path)

    def expected_bytes(self, manifest: Manifest) -> int:
        return session_bytes(manifest, EDGE**2)

    def open(self, artefact: Artefact) -> Loaded:
        return self._shelf.open(artefact.path)


class Shelf:
    """Files, a catalogue of them, and every runtime that was opened."""

    def __init__(self, folder: Path, memory_bytes: int = 0) -> None:
        self.folder = folder
        self.catalogue = Catalogue(memory_bytes)
        self.now = 0.0
        self.opening = ShelfOpening(self)
        self.reload = Reload(folder, self.catalogue, self.opening, lambda: self.now)
        self.opened: list[ShelfRuntime] = []
        self.changes: list[Change] = []
        self.before_open: Callable[[], None] = lambda: None
        self.before_warm_up: Callable[[], None] = lambda: None
        self.catalogue.observe = self.changes.append
        self._times = count(1)

    def write(self, file: str, name: str, version: int = 1, length: int | None = None) -> str:
        """Write a file, or so much of it; give its digest. It has a time that no other had."""
        data = json.dumps({"name": name, "version": version}).encode()[:length]
        self.path(file).write_bytes(data)
        self.touch(file)
        return hashlib.sha256(data).hexdigest()

    def touch(self, file: str) -> None:
        time_ns = next(self._times)
        os.utime(self.path(file), ns=(time_ns, time_ns))

    def path(self, file: str) -> Path:
        return self.folder / f"{file}.onnx"

    def remove(self, file: str) -> None:
        self.path(file).unlink()

    def verify(self, path: Path) -> Artefact:
        self.before_open()
        data = path.read_bytes()
        try:
            name = json.loads(data)["name"]
        except ValueError as exc:
            raise ArtefactDamaged(f"{path} is damaged.") from exc
        manifest = MANIFEST.model_copy(update={"name": name})
        return Artefact(path, hashlib.sha256(data).hexdigest(), manifest)

    def open(self, path: Path) -> Loaded:
        runtime = ShelfRuntime(self.verify(path))
        runtime.before_warm_up = self.before_warm_up
        self.opened.append(runtime)
        return Loaded([runtime], square(EDGE))

    def start(self) -> None:
        """Open what the bound allows, as a service does when it starts."""
        self.reload.verify_all()
        self.reload.open_others()

    def serve(self) -> None:
        """Open and warm up whatever there is, however little it may take from then on."""
        bound, self.catalogue.memory_bytes = self.catalogue.memory_bytes, 0
        self.start()
        self.catalogue.memory_bytes = bound
        for served in self.catalogue.served.values():
            assert served.loaded
            served.loaded.warm_up(self.reload.stopping)
        self.changes.clear()

    def look(self, settled: bool = False) -> list[str]:
        """Look at the folder; say what changed."""
        return [f"{change.kind} {change.name}" for change in self.reload.look(settled)]

    def let_go(self, name: str) -> None:
        """Let a model go, whatever memory there is."""
        served = replace(self.catalogue.find(name), loaded=None)
        self.catalogue.served = {**self.catalogue.served, name: served}

    def digests(self) -> dict[str, str]:
        """Say what is served."""
        return {name: served.sha256 for name, served in self.catalogue.served.items()}

    def states(self) -> dict[str, str]:
        return {name: served.state for name, served in self.catalogue.served.items()}

    def reasons(self) -> dict[str, str]:
        """Say which files are refused, and why."""
        return {each.file: each.detail for each in self.catalogue.refused.values()}

    @contextmanager
    def models(self, started: bool = True) -> Iterator[Models]:
        """Serve what is on the shelf, or let an application do so."""
        models = Models(self.catalogue, self.reload, Engine())
        if started:
            models.engine.start()
        try:
            yield models
        finally:
            models.stop()
