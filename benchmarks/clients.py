"""Several clients at a time, each sending one image after the other."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from queue import Empty, SimpleQueue

import httpx

from benchmarks.serving import segment
from benchmarks.turns import seconds_of


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of one image."""

    index: int
    """In the list that was sent."""
    seconds: float
    """From the first try to the answer."""
    failure: str = ""
    """Why there was no mask."""


def send(
    client: httpx.Client, bodies: Sequence[bytes], clients: int, path: str = "/segment"
) -> list[Sent]:
    """Send every image once, whatever becomes of the others; clients take the next as they come.

    Returns:
        What became of each, in the order of the answers.
    """
    waiting: SimpleQueue[int] = SimpleQueue()
    for index in range(len(bodies)):
        waiting.put(index)
    with ThreadPoolExecutor(clients) as threads:
        each = threads.map(lambda _: _take(client, bodies, waiting, path), range(clients))
        return [sent for some in each for sent in some]


def send_all(
    client: httpx.Client, bodies: Sequence[bytes], clients: int, path: str = "/segment"
) -> None:
    """Send every image once.

    Raises:
        RuntimeError: if one of them has no answer.
    """
    for sent in send(client, bodies, clients, path):
        if sent.failure:
            raise RuntimeError(f"an image had no answer: {sent.failure}")


def _take(
    client: httpx.Client, bodies: Sequence[bytes], waiting: "SimpleQueue[int]", path: str
) -> list[Sent]:
    done: list[Sent] = []
    while True:
        try:
            index = waiting.get_nowait()
        except Empty:
            return done
        done.append(_send(client, bodies[index], index, path))


def _send(client: httpx.Client, body: bytes, index: int, path: str) -> Sent:
    failure = ""

    def run() -> None:
        nonlocal failure
        try:
            segment(client, body, path)
        except httpx.HTTPError as exc:
            failure = f"{type(exc).__name__}: {exc}"

    return Sent(index, seconds_of(run), failure)
