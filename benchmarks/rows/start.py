"""From the start of the process to the first `GET /readyz` that is 200, with all shipped models."""

import statistics
from collections.abc import Iterator
from contextlib import ExitStack

from benchmarks.row import Row
from benchmarks.serving import served
from benchmarks.subject import MODEL
from benchmarks.turns import seconds_of

BAR_S, ROUNDS = 2, 3


def measure(*, quick: bool) -> Iterator[Row]:
    """Start a server several times."""
    seconds = [start() for _ in range(1 if quick else ROUNDS)]
    count = len(list(MODEL.parent.glob("*.onnx")))
    yield Row(
        "start to ready",
        statistics.median(seconds),
        at_most=BAR_S,
        unit="s",
        says=f"{count} model(s); {', '.join(f'{each:.2f}' for each in seconds)} s",
        numbers={"seconds": seconds},
    )


def start() -> float:
    """Start a server, end it, and give the time until it was ready, in s."""
    with ExitStack() as stack:
        return seconds_of(lambda: stack.enter_context(served()))
