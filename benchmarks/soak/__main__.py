"""10,000 mixed requests to one server: `python -m benchmarks.soak`.

Good ones of several sizes, formats and outputs must be answered exactly as this process computes
them; bad ones must be refused as documented; some clients leave. After each round of requests, when
nothing is in flight, the memory of the server and its children is sampled. Its growth is within
noise if the slope of its second half is at most two standard errors above 0: 5,000 requests after
5,000 in which the heap comes to its size. In the end nothing may be held, threads, children and
open files must be no more than the most there were in the first half, and SIGTERM must end the
server with 0. A full run of a commit is kept in `benchmarks/results/soak.json`.
"""

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from benchmarks.kept import NOT_KEPT, keep
from benchmarks.machine import commit, describe
from benchmarks.serving import SERVICE, free_port, process, stop, variables
from benchmarks.soak.cases import Case, Kind, bad_cases, cancelled_cases, good_cases
from benchmarks.soak.client import send
from benchmarks.trend import Trend, trend
from benchmarks.untrained import write_artefact
from benchmarks.usage import Usage, descendants, held_in_the_end, usage
from model.architecture import Architecture
from model.runtime import Runtime
from service.models.opening import tile_shapes

RESULT = Path(__file__).parents[1] / "results" / "soak.json"
REQUESTS, ROUND, CLIENTS = 10_000, 50, 8
SHARES: dict[Kind, float] = {"good": 0.7, "bad": 0.2, "cancelled": 0.1}
ARCHITECTURE = Architecture(in_channels=1, num_classes=3, depth=2, base_channels=4)
TILE_EDGE = 108
"""So small that most images have several tiles."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a soak found."""

    counts: dict[str, int]
    """Requests by kind."""
    wrong: list[str]
    """What was wrong with good and bad ones, and how each was."""
    samples: list[Usage]
    """One after each round."""
    held: dict[str, float]
    """What the server still held in the end."""
    exit_code: int
    orphans: int
    """Children that outlived the server."""

    @property
    def half(self) -> int:
        """The sample at half-time."""
        return len(self.samples) // 2

    @property
    def growth(self) -> Trend:
        """Of memory over the second half, in bytes a request."""
        memory = [sample.memory_bytes for sample in self.samples[self.half :]]
        return trend([ROUND * number for number in range(len(memory))], memory)

    def counts_of(self, name: str) -> list[int]:
        """Give how many threads, children or open files there were after each round."""
        return [getattr(sample, name) for sample in self.samples]

    def faults(self) -> list[str]:
        """Say all that is not as it must be."""
        left = [name for name, count in self.held.items() if count]
        more = [
            f"{name} grew from {most} to {last}"
            for name in ("threads", "children", "files")
            if (last := self.counts_of(name)[-1]) > (most := max(self.counts_of(name)[: self.half]))
        ]
        return [
            *self.wrong,
            *(f"{name} is not 0" for name in left),
            *more,
            *["memory grew"] * self.growth.grows,
            *[f"the server ended with {self.exit_code}"] * bool(self.exit_code),
            *[f"{self.orphans} children outlived it"] * bool(self.orphans),
        ]


def main(words: Sequence[str] | None = None) -> int:
    """Soak a server, say what was found, and write it down.

    Returns:
        3 if a full run was that of no commit, else 1 if there was a fault, else 0.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--requests", type=int, default=REQUESTS)
    arguments = parser.parse_args(words)
    measured, began = commit(), time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        write_artefact(Path(folder) / "tiny.onnx", ARCHITECTURE)
        outcome = soak(Path(folder), arguments.requests)
    seconds = time.perf_counter() - began
    print(report(outcome, seconds))
    if arguments.requests == REQUESTS and not keep(RESULT, record(outcome, seconds), measured):
        return NOT_KEPT
    return int(bool(outcome.faults()))


def soak(folder: Path, requests: int) -> Outcome:
    """Serve the one artefact in a folder, and send requests to it."""
    (path,) = folder.glob("*.onnx")
    runtime = Runtime(path, "cpu")
    shapes = tile_shapes(runtime.manifest, runtime.provider, TILE_EDGE)
    cases: dict[Kind, list[Case]] = {
        "good": list(good_cases(runtime, shapes)),
        "bad": list(bad_cases()),
        "cancelled": list(cancelled_cases()),
    }
    drawn = draw(cases, requests)
    port = free_port()
    settings = {"port": port, "model_dir": folder, "tile_edge": TILE_EDGE, "device": "cpu"}
    with process(SERVICE, variables(settings), port, "/readyz") as (client, server):
        wrong, samples = send_in_rounds(client, drawn, server.pid)
        held = held_in_the_end(client)
        children = descendants(server.pid)
        exit_code = stop(server)
    orphans = sum(Path("/proc", str(child)).exists() for child in children)
    counts: dict[str, int] = Counter(case.kind for case in drawn)
    return Outcome(dict(counts), wrong, samples, held, exit_code, orphans)


def send_in_rounds(
    client: httpx.Client, drawn: Sequence[Case], pid: int
) -> tuple[list[str], list[Usage]]:
    """Send all requests, several at a time; give what was wrong, and a sample for each round."""
    wrong: list[str] = []
    samples: list[Usage] = []
    with ThreadPoolExecutor(CLIENTS) as threads:
        for start in range(0, len(drawn), ROUND):
            cases = drawn[start : start + ROUND]
            found = zip(cases, threads.map(partial(send, client), cases), strict=True)
            wrong += [f"{case.name}: {text}" for case, text in found if text]
            held_in_the_end(client)
            samples.append(usage(pid))
    return wrong, samples


def draw(cases: dict[Kind, list[Case]], requests: int) -> list[Case]:
    """Draw requests, the same each time."""
    random = np.random.default_rng(0)
    kinds: list[Kind] = random.choice(list(SHARES), requests, p=list(SHARES.values())).tolist()
    return [cases[kind][random.integers(len(cases[kind]))] for kind in kinds]


def report(outcome: Outcome, seconds: float) -> str:
    """Say what was found."""
    growth, last = outcome.growth, outcome.samples[-1]
    counts = ", ".join(f"{count} {kind}" for kind, count in sorted(outcome.counts.items()))
    noise = "more than noise" if growth.grows else "within noise"
    return "\n".join(
        [
            f"{counts} in {seconds:.0f} s",
            f"memory {last.memory_bytes / 2**20:.1f} MiB; over the second half "
            f"{growth.slope:+.1f} ± {growth.error:.1f} bytes a request: {noise}",
            f"held: {outcome.held}; {last.threads} threads, {last.children} children, "
            f"{last.files} files; exit code {outcome.exit_code}",
            *(f"WRONG: {fault}" for fault in outcome.faults()),
            "failed" if outcome.faults() else "passed",
        ]
    )


def record(outcome: Outcome, seconds: float) -> dict[str, Any]:
    """Say what was found, on what."""
    return {
        "command": "python -m benchmarks.soak",
        "date": datetime.now(UTC).date().isoformat(),
        "machine": describe(),
        "seconds": round(seconds, 1),
        "growth_bytes_a_request": asdict(outcome.growth),
        "faults": outcome.faults(),
        **asdict(outcome),
    }


if __name__ == "__main__":
    sys.exit(main())
