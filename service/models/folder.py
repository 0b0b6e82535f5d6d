"""The folder of artefacts: which files are there, and what shows that one was written to."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from model.errors import ArtefactNotFound


@dataclass(frozen=True, slots=True)
class Stamp:
    """What changes when a file is written to, and is had without reading it."""

    modified_ns: int
    changed_ns: int
    """Of contents, name or rights: a copy may be given the original's time of writing."""
    size: int

    @classmethod
    def of(cls, path: Path) -> Self | None:
        """Give the stamp of a file; None if there is none."""
        try:
            found = path.stat()
        except OSError:
            return None
        return cls(found.st_mtime_ns, found.st_ctime_ns, found.st_size)


def look(folder: Path) -> dict[Path, Stamp]:
    """Give the stamp of every artefact in a folder, by name.

    Raises:
        ArtefactNotFound: if there is none, or no folder.
    """
    stamps = {path: Stamp.of(path) for path in sorted(folder.glob("*.onnx"))}
    found = {path: stamp for path, stamp in stamps.items() if stamp is not None}
    if not found:
        raise ArtefactNotFound(f"{folder} holds no .onnx artefact.")
    return found
