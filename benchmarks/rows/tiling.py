"""Our plan against the paper's tiling, both run whole by the same session.

The paper's tiles are 572 px wide and give 388; laid on the pooling grid, where alone they are
exact, they share 384 px. Source: Ronneberger et al. 2015, figures 1 and 2.
"""

from collections.abc import Iterator
from functools import partial

import numpy as np

from benchmarks.images import sample
from benchmarks.row import Row
from benchmarks.subject import MODEL
from benchmarks.turns import described, in_turns, ratio
from model.architecture import Architecture
from model.planner import TileShapes, plan_tiles
from model.runtime import Runtime
from model.segmentation import DEFAULT_SHAPES, segment

EDGE, ROUNDS = 512, 5
PAPER = TileShapes(572**2, (572,))


def measure(*, quick: bool) -> Iterator[Row]:
    """Measure the row."""
    runtime = Runtime(MODEL, "cpu")
    network = runtime.manifest.architecture
    image = sample(EDGE)[np.newaxis]
    contestants = {
        "paper": partial(segment, image, runtime, PAPER),
        "ours": partial(segment, image, runtime, DEFAULT_SHAPES),
    }
    seconds = in_turns(contestants, 1 if quick else ROUNDS)
    theirs, ours = (tiles(shapes, network) for shapes in (PAPER, DEFAULT_SHAPES))
    yield Row(
        f"the paper's tiling / ours, same session, {EDGE}²",
        ratio(seconds, "paper", "ours"),
        at_least=2.2,
        says=f"{theirs} against {ours}: {described(seconds)}",
        numbers={"seconds": seconds},
    )


def tiles(shapes: TileShapes, architecture: Architecture) -> str:
    """Say what the image is tiled into."""
    plan = plan_tiles((EDGE, EDGE), architecture, shapes)
    height, width = plan.tile_shape
    return f"{len(plan.tiles)} of {height}×{width}"
