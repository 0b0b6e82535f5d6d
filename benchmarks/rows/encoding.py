"""What it costs to write a label map as a PNG, in time and in size.

The smallest is the best of all depths that hold the labels, each with every one of PNG's simple row
filters, at the highest level of libdeflate.
"""

import re
import statistics
from collections.abc import Iterator
from itertools import product

import httpx
import imagecodecs
import numpy as np
from numpy.typing import NDArray

from benchmarks.images import png, read_png, sample
from benchmarks.row import Row
from benchmarks.serving import segment, served
from service.masks import pack

EDGES, ROUNDS = (512, 2048), 3
BITS = (1, 2, 4, 8)
HIGHEST_LEVEL = 12
MOST_TIME, MOST_SIZE = 0.10, 1.3
STAGE = re.compile(r"(\w+);dur=([\d.]+)")


def measure(*, quick: bool) -> Iterator[Row]:
    """Measure two rows for each size."""
    with served() as client:
        for edge in EDGES[:1] if quick else EDGES:
            body = png(sample(edge))
            answers = [segment(client, body) for _ in range(1 if quick else ROUNDS)]
            yield time_row(answers, edge)
            yield size_row(answers[0].content, edge)


def time_row(answers: list[httpx.Response], edge: int) -> Row:
    """Say how much of a request's time it takes, by what the service itself says."""
    stages = [dict(STAGE.findall(answer.headers["Server-Timing"])) for answer in answers]
    shares = [float(each["encode"]) / float(each["total"]) for each in stages]
    encoding = statistics.median(float(each["encode"]) for each in stages)
    return Row(
        f"PNG encoding / the whole request, {edge}²",
        statistics.median(shares),
        at_most=MOST_TIME,
        says=f"{encoding:.3g} ms, median of {len(shares)}",
        numbers={"stages_ms": stages},
    )


def size_row(answer: bytes, edge: int) -> Row:
    """Hold an answer's size against the smallest."""
    least = smallest(read_png(answer))
    return Row(
        f"PNG size / the smallest, {edge}²",
        len(answer) / least,
        at_most=MOST_SIZE,
        says=f"{len(answer):,} and {least:,} bytes",
    )


def smallest(labels: NDArray[np.uint8]) -> int:
    """Give the size in bytes of the smallest data of a label map (H, W)."""
    depths = [bits for bits in BITS if labels.max() < 1 << bits]
    rows = (filtered(pack(labels, bits), kind) for bits, kind in product(depths, range(3)))
    return min(len(imagecodecs.deflate_encode(each, level=HIGHEST_LEVEL)) for each in rows)


def filtered(rows: NDArray[np.uint8], kind: int) -> bytes:
    """Filter packed rows (H, bytes) by none, left or above. Source: PNG, section 9.2."""
    found = rows.copy()
    if kind == 1:
        found[:, 1:] -= rows[:, :-1]
    elif kind == 2:
        found[1:] -= rows[:-1]
    return np.insert(found, 0, kind, axis=1).tobytes()
