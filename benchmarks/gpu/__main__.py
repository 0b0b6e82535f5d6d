"""What a GPU does with the models, checked against the CPU and weighed against the card.

`python -m benchmarks.gpu` runs on a GPU host, in the environment of the service, for some eight
minutes, and keeps each part as soon as it is there: in benchmarks/results/gpu.json, or in
build/bench/ where what is measured is that of no commit. It measures, in one run:

- what the card's matrix units give: a large product in ONNX Runtime, in float32 and in float16;
- for each way to use the GPU, whether its labels are those of the CPU off ties, and its rate;
- one image through the engine alone, and many at a time, with one stream and with two, also with a
  network of the paper's width, which takes the packages of training;
- whether memory stays flat over 2,000 mixed requests, and their labels are those of the CPU.
"""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.gpu import engines, ways
from benchmarks.gpu.card import describe_card
from benchmarks.gpu.measured import Measured, attempt, columns
from benchmarks.gpu.product import product_rate
from benchmarks.kept import NOT_KEPT, keep
from benchmarks.machine import commit, describe
from benchmarks.subject import MODEL
from model.errors import DeviceError
from model.runtime import Runtime

RESULT = Path(__file__).parents[1] / "results" / "gpu.json"
BUDGET_S = 400
"""A part that would begin later is left out, and counts as failed."""


def main() -> int:
    """Measure, print, and write the result.

    Returns:
        0 if the GPU is right and memory flat, 1 if not, 2 where there is no GPU, 3 if what is
        measured is that of no commit.
    """
    measured = commit()
    try:
        Runtime(MODEL, "cuda")
        card = describe_card()
    except (DeviceError, OSError, subprocess.CalledProcessError) as exc:
        print(f"benchmarks.gpu needs a GPU: {exc}", file=sys.stderr)
        return 2
    rates = {name: product_rate(name, ("cuda", 0)) for name in ("fp32", "fp16")}
    parts: dict[str, Callable[[], list[Measured]]] = {
        "ways": partial(ways.measure, ways.WAYS, rates),
        "engines": partial(engines.measure_shipped, rates),
        "memory": engines.measure_memory,
        "paper": partial(engines.measure_paper, rates),
        "tensorrt": partial(ways.measure, ways.TENSORRT, rates),
    }
    rows: dict[str, list[Measured]] = {}
    is_kept = True
    for name, found in measure_in_time(parts):
        rows[name] = found
        print(f"\n{name}\n{columns(found)}", flush=True)
        is_kept = keep(RESULT, record(card, rates, rows), measured)
    return int(not is_right(rows)) if is_kept else NOT_KEPT


def measure_in_time(
    parts: Mapping[str, Callable[[], list[Measured]]], clock: Callable[[], float] = time.monotonic
) -> Iterator[tuple[str, list[Measured]]]:
    """Measure one part after the other, as long as there is time."""
    began = clock()
    for name, measure in parts.items():
        elapsed = clock() - began
        if elapsed > BUDGET_S:
            yield name, [{"failed": f"no time was left after {elapsed:.0f} s"}]
        else:
            yield name, attempt(measure)


def is_right(rows: Mapping[str, list[Measured]]) -> bool:
    """Say whether the default way and the shipped model ran, all agrees, and memory is flat."""
    ran = [row for row in (*rows["ways"], *rows["tensorrt"]) if "failed" not in row]
    return (
        any(row["way"] == "fp32" for row in ran)
        and all(row["agrees"] for row in ran)
        and not any("failed" in row for row in [*rows["engines"], *rows["memory"]])
        and all(row["growth_mib"] <= row["most_mib"] for row in rows["memory"])
        and all(row["pixels_differ"] <= row["most_differ"] for row in rows["memory"])
    )


def record(
    card: Mapping[str, str], rates: Mapping[str, float], rows: Mapping[str, list[Measured]]
) -> dict[str, Any]:
    """Say what was measured, on what."""
    return {
        "command": "python -m benchmarks.gpu",
        "date": datetime.now(UTC).date().isoformat(),
        "card": dict(card),
        "machine": describe(),
        "product_tflop_a_second": {name: rate / 1e12 for name, rate in rates.items()},
        **rows,
    }


if __name__ == "__main__":
    sys.exit(main())
