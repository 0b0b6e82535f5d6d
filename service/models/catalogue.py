"""The catalogue: which models are served now, which files are not, and which models are open.

One thread writes to it. Any may read it, since what is there is replaced and never changed.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from model.errors import ModelNotFound
from service.models.served import Change, Refused, Served
from service.models.uses import Uses

log = logging.getLogger(__name__)


class Catalogue:
    """Models by the names in their manifests."""

    def __init__(self, memory_bytes: int = 0) -> None:
        """Begin empty; see `memory_bytes`."""
        self.served: Mapping[str, Served] = {}
        self.refused: Mapping[Path, Refused] = {}
        self.uses = Uses()
        self.observe: Callable[[Change], None] = lambda _: None
        """Told of every change, by the thread that made it."""
        self.memory_bytes = memory_bytes
        """What open models may take on each device; 0 is no bound."""

    def find(self, name: str) -> Served:
        """Give what is served under a name.

        Raises:
            ModelNotFound: listing the models that there are.
        """
        served = self.served.get(name)
        if served is None:
            raise ModelNotFound(
                f"There is no model {name[:64]!r}; there are {', '.join(self.served)}."
            )
        return served

    def at(self, path: Path) -> Served | None:
        """Give what is served from a file."""
        return next((each for each in self.served.values() if each.path == path), None)

    def put(self, fresh: Served) -> list[Change]:
        """Serve a model in the place of what had its name, and of what had its file."""
        old, mine = self.served.get(fresh.name), self.at(fresh.path)
        changes = self.remove(fresh.path) if mine and mine.name != fresh.name else []
        self.served = {**self.served, fresh.name: fresh}
        self.refused = {path: each for path, each in self.refused.items() if path != fresh.path}
        if old is None:
            changes.append(self._noted(Change("added", fresh.name, fresh.sha256)))
        elif old.sha256 != fresh.sha256:
            changes.append(self._noted(Change("swapped", fresh.name, fresh.sha256)))
        elif old.loaded is not fresh.loaded:
            changes.append(self._noted(Change("loaded", fresh.name, fresh.sha256)))
        return changes

    def refuse(self, path: Path, refused: Refused) -> Change:
        """Name a file that is not served; what was served still is."""
        self.refused = {**self.refused, path: refused}
        return self._noted(Change("refused", refused.file))

    def remove(self, path: Path) -> list[Change]:
        """Forget a file; what was served from it is let go once nobody uses it."""
        self.refused = {other: each for other, each in self.refused.items() if other != path}
        gone = self.at(path)
        if gone is None:
            return []
        self.served = {name: each for name, each in self.served.items() if each is not gone}
        return [self._noted(Change("removed", gone.name, gone.sha256))]

    def make_room(self, needed: int = 0, keep: str = "") -> None:
        """Let unused models go, the longest unused first, until so many bytes are free.

        What is in use is never let go, nor is the model to keep; so less can be free.
        """
        while self.lacks(needed):
            candidates = [name for name, each in self.served.items() if each.loaded]
            unused = [name for name in self.uses.unused(candidates) if name != keep]
            if not unused:
                return
            idle = self.served[unused[0]]
            self.served = {**self.served, idle.name: replace(idle, loaded=None)}
            self._noted(Change("unloaded", idle.name, idle.sha256))

    def lacks(self, needed: int = 0) -> bool:
        """Say whether open models, with so many bytes more, take more than they may."""
        taken = sum(each.loaded.memory_bytes for each in self.served.values() if each.loaded)
        return 0 < self.memory_bytes < taken + needed

    def _noted(self, change: Change) -> Change:
        log.info("%s: %s", change.kind, f"{change.name} {change.sha256[:12]}".rstrip())
        self.observe(change)
        return change
