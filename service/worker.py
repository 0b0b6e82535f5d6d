"""Threads that work as long as the service, and their end, for which nobody waits for ever."""

import logging
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from functools import partial
from queue import SimpleQueue
from typing import TypeVar

T = TypeVar("T")

PATIENCE_S = 10.0
"""What threads are given to end, all together: nearly every turn takes less."""

log = logging.getLogger(__name__)


class Worker:
    """One thread that does one thing after the other.

    A `ThreadPoolExecutor` does so too, but its thread would keep the process from its end.
    """

    def __init__(self, name: str) -> None:
        self._tasks: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)

    def submit(self, work: Callable[..., T], *arguments: object) -> Future[T]:
        """Do something when all that was asked for before is done. One thread at a time may ask."""
        if self._thread.ident is None:
            self._thread.start()
        future = Future[T]()
        self._tasks.put(partial(_settle, future, work, *arguments))
        return future

    def stop(self) -> None:
        """Do what was asked for, and end; if that takes too long, be left behind."""
        self._tasks.put(None)
        end([self._thread])

    def _serve(self) -> None:
        while task := self._tasks.get():
            task()
            del task  # what it holds is let go before the next one comes


def end(threads: Iterable[threading.Thread]) -> None:
    """Wait for daemons that were told to end; what hangs is left behind, to end with the process.

    Args:
        threads: One that was never started has ended.
    """
    until = time.monotonic() + PATIENCE_S
    for thread in threads:
        if thread.is_alive():
            thread.join(max(until - time.monotonic(), 0))
            if thread.is_alive():
                log.error("%s did not end within %g s: left behind", thread.name, PATIENCE_S)


def _settle(future: Future[T], work: Callable[..., T], *arguments: object) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = work(*arguments)
    except Exception as exc:  # noqa: BLE001 (whatever it is, who waits is told)
        future.set_exception(exc)
        del future  # or it would hold itself, by the frames of its error
    else:
        future.set_result(result)
