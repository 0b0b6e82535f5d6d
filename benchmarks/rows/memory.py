"""Peak memory and time of 1, 10 and 100 megapixels.

The model is a small network of random weights, so that most of what is measured is the service's
own. Memory is what the server and its children take together, shared pages counted once, read every
few milliseconds; what ONNX Runtime keeps of the largest tile belongs to the idle server.
"""

import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx
import numpy as np
from numpy.typing import NDArray

from benchmarks.images import png
from benchmarks.row import Row
from benchmarks.serving import SERVICE, UNHURRIED, free_port, process, segment, variables
from benchmarks.turns import seconds_of
from benchmarks.untrained import write_artefact
from benchmarks.usage import descendants, proportional_bytes
from model.architecture import Architecture
from model.segmentation import DEFAULT_TILE_EDGE

NETWORK = Architecture(in_channels=3, base_channels=4)
"""It reads colour, as the default model does; the images are grey."""
TILE_BYTES = 4 * DEFAULT_TILE_EDGE**2 * (NETWORK.in_channels + NETWORK.num_classes)
"""Pixels and logits of the largest tile, float32."""
EDGES = {1: 1000, 10: 3162, 100: 10_000}
"""Megapixels, and the edge of a square of so many, in px."""
BAR_BYTES_A_PIXEL, BAR_GROWTH = 6, 1.1
INTERVAL_S = 0.005


class Peak(threading.Thread):
    """The most memory that processes take together while a block runs."""

    def __init__(self, pids: list[int]) -> None:
        super().__init__(daemon=True)
        self._pids = pids
        self._over = threading.Event()
        self.bytes = 0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._over.set()
        self.join()

    def run(self) -> None:
        """Read time and again."""
        while not self._over.wait(INTERVAL_S):
            self.bytes = max(self.bytes, proportional_bytes(self._pids))


def measure(*, quick: bool) -> Iterator[Row]:
    """Segment a grey image of each size, smallest first, in one server."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        write_artefact(Path(folder) / "untrained.onnx", NETWORK)
        settings = variables(UNHURRIED | {"port": port, "model_dir": folder})
        with process(SERVICE, settings, port, "/readyz") as (client, server):
            segment(client, png(grey(3 * DEFAULT_TILE_EDGE)))
            sizes = [size for size in EDGES if not quick or size < 100]
            rows = [measure_one(client, server.pid, size) for size in sizes]
    yield from rows
    small, large = (row.numbers["seconds_a_megapixel"] for row in rows[-2:])
    yield Row(
        f"time a megapixel, {sizes[-1]} MP / {sizes[-2]} MP",
        large / small,
        at_most=BAR_GROWTH,
        says=f"{large:.3f} s and {small:.3f} s",
    )


def measure_one(client: httpx.Client, pid: int, megapixels: int) -> Row:
    """Segment one image, and watch the server meanwhile."""
    body, pixels = png(grey(EDGES[megapixels])), EDGES[megapixels] ** 2
    pids = [pid, *descendants(pid)]
    idle_bytes = proportional_bytes(pids)
    with Peak(pids) as peak:
        seconds = seconds_of(lambda: segment(client, body))
    is_large = megapixels > 1  # what any image takes, however small, outweighs one megapixel
    return Row(
        f"peak memory of {megapixels} MP, grey",
        max(peak.bytes - idle_bytes - TILE_BYTES, 0) / pixels,
        at_most=BAR_BYTES_A_PIXEL if is_large else None,
        unit="B/px",
        says=f"above {idle_bytes / 1e6:.0f} MB idle and {TILE_BYTES / 1e6:.0f} MB of a tile",
        numbers={
            "idle_bytes": idle_bytes,
            "peak_bytes": peak.bytes,
            "seconds_a_megapixel": 1e6 * seconds / pixels,
        },
    )


def grey(edge: int) -> NDArray[np.uint8]:
    """Give a square that compresses well, as large ones must to be uploaded."""
    block = np.random.default_rng(0).integers(0, 256, (250, 250), np.uint8)
    times = -(-edge // len(block))
    return np.ascontiguousarray(np.tile(block, (times, times))[:edge, :edge])
