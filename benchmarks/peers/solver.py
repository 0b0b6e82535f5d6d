"""What a framework's service does with an image, once it has its bytes.

`BENCH_MODEL` names the ONNX file; `BENCH_PLANNER` says whether our planner is inside.
"""

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from PIL import Image

from benchmarks.peers import paper


def open_solver() -> Callable[[bytes], bytes]:
    """Open the model, and give what turns an image file into a PNG of labels."""
    path = Path(os.environ["BENCH_MODEL"])
    return with_planner(path) if os.environ.get("BENCH_PLANNER") else with_paper(path)


def with_paper(path: Path) -> Callable[[bytes], bytes]:
    """Tile as the paper does, in a plain session."""
    session: Any = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    threshold = float(os.environ["BENCH_THRESHOLD"])

    def run(tiles: NDArray[np.float32]) -> NDArray[np.float32]:
        logits: NDArray[np.float32] = session.run(["logits"], {"tile": tiles})[0]
        return logits

    return lambda data: paper.answer(data, run, threshold)


def with_planner(path: Path) -> Callable[[bytes], bytes]:
    """Take our planner and session."""
    from model.runtime import Runtime  # without the planner, nothing of ours is loaded
    from model.segmentation import DEFAULT_SHAPES, segment

    runtime = Runtime(path, "cpu")

    def answer(data: bytes) -> bytes:
        with Image.open(io.BytesIO(data)) as picture:
            pixels = np.asarray(picture.convert("L"))
        return paper.encode(segment(pixels[np.newaxis], runtime, DEFAULT_SHAPES))

    return answer
