"""What ends a run before its last step: signals, and memory that runs out."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import torch

from model.errors import OutOfMemory
from training.run.distributed import World

STOPPING = (signal.SIGTERM, signal.SIGINT)
LESS = (
    "The run does not fit the memory; the last checkpoint is whole. "
    "Take a smaller --tile-edge, --batch or --base-channels in another run, or free memory and go "
    "on with --resume."
)


class Terminated(KeyboardInterrupt):
    """SIGTERM came: it ends a run as Ctrl-C does."""


class Interrupted(BaseException):
    """SIGTERM or Ctrl-C came in what is given up for it: no error of whatever was under way."""


class Signals:
    """Whether SIGTERM or Ctrl-C came while this is held: the step under way is finished first."""

    def __init__(self) -> None:
        self.first: int | None = None
        """Number of the first that came."""
        self._raises = False

    @property
    def came(self) -> bool:
        """Whether one came."""
        return self.first is not None

    @contextmanager
    def raised(self) -> Iterator[None]:
        """Give up what is done within this as soon as one comes, or if one came before.

        Raises:
            Interrupted: then.
        """
        self._raises = True
        try:
            self._raise()
            yield
        finally:
            self._raises = False

    def __enter__(self) -> "Signals":
        """Listen."""
        self._before = {number: signal.signal(number, self._note) for number in STOPPING}
        return self

    def __exit__(self, *_: object) -> None:
        """Leave signals to those who had them before."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 (Python passes it)
        self.first = self.first or number
        self._raise()

    def _raise(self) -> None:
        if self._raises and self.came:
            self._raises = False
            raise Interrupted


@contextmanager
def termination_raised(world: World) -> Iterator[None]:
    """Let SIGTERM raise where it comes, as Ctrl-C does, so that what a run leaves is removed.

    The processes that only wait for the first of their machine end at once, as without this: inside
    of a collective call nothing is raised.

    Raises:
        Terminated: if it came.
    """
    if not world.leads_machine:
        yield
        return
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _terminate(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 (Python passes them)
    raise Terminated


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
