"""What is served under a name, and what is not served and why."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from model.artefact import Artefact, Manifest
from model.errors import ArtefactError, ArtefactNotFound, UNetError
from model.sessions import Provider
from service.models.folder import Stamp
from service.models.loaded import Loaded
from service.schemas import ChangeKind, ModelChange, RefusedArtefact, ServedModel, ServedState

MOST_DETAIL = 1000
"""Characters of a reason that are told: that of a bad manifest may quote all of it."""


@dataclass(frozen=True, slots=True)
class Served:
    """A model as it is served; another takes its place when anything about it changes."""

    path: Path
    stamp: Stamp
    artefact: Artefact
    provider: Provider | None = None
    """What runs it, or did before it was let go; None before it was ever opened."""
    opened_on: str | None = None
    precision: str | None = None
    """What it is computed in."""
    loaded: Loaded | None = None
    """None is let go, or not opened yet, until somebody asks for it."""

    @classmethod
    def of(cls, path: Path, stamp: Stamp, loaded: Loaded) -> Self:
        """Serve a model that was opened."""
        ran = loaded.provider, loaded.device, loaded.precision
        return cls(path, stamp, loaded.artefact, *ran, loaded)

    @property
    def manifest(self) -> Manifest:
        """What the artefact says about itself."""
        return self.artefact.manifest

    @property
    def name(self) -> str:
        """What requests call it."""
        return self.manifest.name

    @property
    def sha256(self) -> str:
        """Digest of the file that is run."""
        return self.artefact.sha256

    @property
    def device(self) -> str | None:
        """Where it runs, or did before it was let go."""
        return self.loaded.device if self.loaded else self.opened_on

    @property
    def state(self) -> ServedState:
        """How far it is."""
        return self.loaded.state if self.loaded else "unloaded"

    def described(self) -> ServedModel:
        """Describe it to clients."""
        return ServedModel(
            name=self.name,
            sha256=self.sha256,
            provider=self.provider,
            device=self.device,
            precision=self.precision,
            state=self.state,
            manifest=self.manifest,
        )


@dataclass(frozen=True, slots=True)
class Refused:
    """A file that is not served."""

    stamp: Stamp
    file: str
    """Its name alone: the folder is nobody's business."""
    code: str
    detail: str
    is_final: bool
    """Whether the reason is in the file, so that it would be refused again as it is."""
    rival: str = ""
    """The model that has its name, where that is the reason."""

    @classmethod
    def of(cls, path: Path, stamp: Stamp, error: Exception, rival: str = "") -> Self:
        """Refuse a file for a reason."""
        code, detail = UNetError.code, "It cannot be opened; the log has the reason."
        if isinstance(error, UNetError):
            code, detail = error.code, str(error).replace(str(path), path.name)
        is_final = isinstance(error, ArtefactError) and not isinstance(error, ArtefactNotFound)
        return cls(stamp, path.name, code, detail[:MOST_DETAIL], is_final, rival)

    def described(self) -> RefusedArtefact:
        """Describe it to clients."""
        return RefusedArtefact(file=self.file, code=self.code, detail=self.detail)


@dataclass(frozen=True, slots=True)
class Change:
    """What came of a file, or of a model that was let go."""

    kind: ChangeKind
    name: str
    """Of the model; of a refused file, its own."""
    sha256: str = ""
    """Of the artefact that is served now, or was until now."""

    def described(self) -> ModelChange:
        """Describe it to clients."""
        return ModelChange(change=self.kind, name=self.name, sha256=self.sha256 or None)
