"""What ends a run before its last step: signals, and memory that runs out."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import torch

from model.errors import OutOfMemory

STOPPING = (signal.SIGTERM, signal.SIGINT)
LESS = (
    "A step or a validation does not fit the memory; the last checkpoint is whole. "
    "Take a smaller --tile-edge, --batch or --base-channels."
)


class Signals:
    """Whether SIGTERM or Ctrl-C came while this is held: the step under way is finished first."""

    def __init__(self) -> None:
        self.came = False

    def __enter__(self) -> "Signals":
        """Listen."""
        self._before = {number: signal.signal(number, self._note) for number in STOPPING}
        return self

    def __exit__(self, *_: object) -> None:
        """Leave signals to those who had them before."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 (Python passes them)
        self.came = True


@contextmanager
def memory_errors_explained() -> Iterator[None]:
    """Translate what torch and Python raise when memory runs out.

    Raises:
        OutOfMemory: saying what to lower.
    """
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError) as exc:
        raise OutOfMemory(LESS) from exc
    except RuntimeError as exc:
        if "can't allocate memory" not in str(exc):
            raise
        raise OutOfMemory(LESS) from exc
