"""Contestants in turns: A, B, A, B, so that a ratio holds when the machine's speed drifts."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

REST_S = 0.25
"""Before each turn: ONNX Runtime's and OpenMP's threads spin on after a run, and whoever came next
would pay for that with a core."""

T = TypeVar("T")

Seconds = dict[str, list[float]]
"""Of every contestant, the time of each of its turns, in s."""


def in_turns(contestants: Mapping[str, Callable[[], object]], rounds: int) -> Seconds:
    """Let each have a turn that does not count, then as many turns as there are rounds."""
    for run in contestants.values():
        run()
    return in_turns_cold(contestants, rounds)


def in_turns_cold(contestants: Mapping[str, Callable[[], object]], rounds: int) -> Seconds:
    """Let each have as many turns as there are rounds; the first counts."""
    seconds: Seconds = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, run in contestants.items():
            time.sleep(REST_S)
            seconds[name].append(seconds_of(run))
    return seconds


def seconds_of(run: Callable[[], object]) -> float:
    """Time one turn, in s."""
    seconds, _ = timed(run)
    return seconds


def timed(run: Callable[[], T]) -> tuple[float, T]:
    """Time one turn, in s, and give what came of it, too."""
    began = time.perf_counter()
    found = run()
    return time.perf_counter() - began, found


def ratio(seconds: Mapping[str, Sequence[float]], first: str, second: str) -> float:
    """Give the median, over the rounds, of one contestant's time over another's."""
    pairs = zip(seconds[first], seconds[second], strict=True)
    return statistics.median(one / other for one, other in pairs)


def described(seconds: Mapping[str, Sequence[float]]) -> str:
    """Say how long each took, by the median, and over how many rounds."""
    parts = [f"{name} {statistics.median(turns):.3g} s" for name, turns in seconds.items()]
    rounds = len(next(iter(seconds.values())))
    return f"{', '.join(parts)}; {rounds} round{'s' * (rounds > 1)}"
