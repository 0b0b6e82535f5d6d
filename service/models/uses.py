"""Who uses which model, and which was used last."""

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import count


class Uses:
    """Counts the uses of models by their names.

    It is written to on the event loop alone; other threads read it.
    """

    def __init__(self) -> None:
        self._users: Counter[str] = Counter()
        self._last: dict[str, int] = {}
        self._turns = count(1)

    @contextmanager
    def of(self, name: str) -> Iterator[None]:
        """Use a model, from the wish for it on: what is waited for is in use."""
        self._users[name] += 1
        self._last[name] = next(self._turns)
        try:
            yield
        finally:
            self._users[name] -= 1

    def unused(self, names: Iterable[str]) -> list[str]:
        """Of these, give those that nobody uses, the longest unused first."""
        unused = [name for name in names if not self._users[name]]
        return sorted(unused, key=lambda name: self._last.get(name, 0))
