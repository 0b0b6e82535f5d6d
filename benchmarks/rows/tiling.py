"""Our plan against the paper's tiling, both run whole by the same session.

The paper's tiles are 572 px wide and give 388; laid on the pooling grid, where alone they are
exact, they share 384 px. Source: Ronneberger et al. 2015, figures 1 and 2.
"""

from collections.abc import Iterator
from functools import partial

import numpy as np

from benchmarks.images import sample
from benchmarks.row import Row
from benchmarks.serving import MODEL
from benchmarks.turns import described, in_turns, ratio
from model.planner import TileShapes
from model.runtime import Runtime
from model.segmentation import DEFAULT_SHAPES, segment

EDGE, ROUNDS = 512, 5
PAPER = TileShapes(572**2, (572,))


def measure(*, quick: bool) -> Iterator[Row]:
    """Measure the row."""
    runtime = Runtime(MODEL, "cpu")
    image = sample(EDGE)[np.newaxis]
    contestants = {
        "paper": partial(segment, image, runtime, PAPER),
        "ours": partial(segment, image, runtime, DEFAULT_SHAPES),
    }
    seconds = in_turns(contestants, 1 if quick else ROUNDS)
    yield Row(
        f"the paper's tiling / ours, same session, {EDGE}²",
        ratio(seconds, "paper", "ours"),
        at_least=2.2,
        says=f"4 tiles of 572×572 against 1 of 700×700: {described(seconds)}",
        numbers={"seconds": seconds},
    )
