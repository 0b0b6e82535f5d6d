"""`POST /segment` against the bare `session.run` of the image's own plan.

Tiles are made beforehand; the session is ONNX Runtime's, with its own defaults, in this process.
"""

from collections.abc import Callable, Iterator
from functools import partial

import httpx
import numpy as np
import onnxruntime
from numpy.typing import NDArray

from benchmarks.images import png, sample
from benchmarks.row import Row
from benchmarks.serving import segment, served
from benchmarks.subject import MODEL
from benchmarks.turns import described, in_turns, in_turns_cold, ratio
from model.runtime import Runtime
from model.segmentation import DEFAULT_SHAPES, Segmentation

BARS = {512: 1.08, 2048: 1.05, 8192: 1.04}
ROUNDS = {512: 15, 2048: 2, 8192: 1}
"""Image edge in px, and how often both have their turn."""
LARGE = 8192
"""A turn takes minutes, so none is there to warm up."""


def measure(*, quick: bool) -> Iterator[Row]:
    """Measure one row for each size."""
    session = onnxruntime.InferenceSession(MODEL, providers=["CPUExecutionProvider"])
    with served() as client:
        for edge, rounds in ROUNDS.items():
            if not (quick and edge == LARGE):
                yield row(session, client, edge, 1 if quick else rounds)


def row(session: onnxruntime.InferenceSession, client: httpx.Client, edge: int, rounds: int) -> Row:
    """Measure one size."""
    pixels = sample(edge)
    work = Segmentation.begin(pixels[np.newaxis], Runtime(MODEL, "cpu").manifest, DEFAULT_SHAPES)
    batches = [work.read(tile)[np.newaxis] for tile in work.plan.tiles]
    contestants: dict[str, Callable[[], object]] = {
        "POST /segment": partial(segment, client, png(pixels)),
        "session.run": partial(run_bare, session, batches),
    }
    seconds = (in_turns_cold if edge == LARGE else in_turns)(contestants, rounds)
    height, width = work.plan.tile_shape
    return Row(
        f"POST /segment / session.run of its own plan, {edge}²",
        ratio(seconds, "POST /segment", "session.run"),
        at_most=BARS[edge],
        says=f"{len(batches)} tile(s) of {height}×{width}: {described(seconds)}",
        numbers={"seconds": seconds},
    )


def run_bare(session: onnxruntime.InferenceSession, batches: list[NDArray[np.float32]]) -> None:
    """Run the tiles of a plan."""
    for batch in batches:
        session.run(["logits"], {"tile": batch})
