"""What an image takes of memory, and of time, by its size: a row of `make bench`.

A server of its own process serves a small network of random weights, so that most of what is
measured is the service's own. Memory is the proportional set size of the server and of its
children, which counts once what they share, read every few milliseconds.
"""

import io
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image

from benchmarks.serving import free_port
from model.architecture import Architecture
from model.segmentation import DEFAULT_TILE_EDGE
from tests.service.conftest import write_artefact

ROOT = Path(__file__).parents[1]
NETWORK = Architecture(in_channels=3, base_channels=4)
"""It reads colour, as the default model does; the images are grey."""
BATCH_BYTES = 4 * DEFAULT_TILE_EDGE**2 * (NETWORK.in_channels + NETWORK.num_classes)
"""Pixels and logits of the largest tile, float32."""
EDGES = {1: 1000, 10: 3162, 100: 10_000}
"""Megapixels, and the edge of a square of so many, in px."""
MOST_BYTES_A_PIXEL = 6
MOST_GROWTH = 1.1
"""Of the time a megapixel takes, from 10 megapixels to 100; it is to be flat."""
INTERVAL_S = 0.005
READY_TIMEOUT_S = 120


class Watch(threading.Thread):
    """The most memory that processes took together, until the block ends."""

    def __init__(self, pids: Sequence[int]) -> None:
        super().__init__(daemon=True)
        self._pids = pids
        self._over = threading.Event()
        self.peak_bytes = 0

    def __enter__(self) -> "Watch":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join()

    def run(self) -> None:
        """Read time and again."""
        while not self._over.wait(INTERVAL_S):
            self.peak_bytes = max(self.peak_bytes, taken_bytes(self._pids))


def main() -> int:
    """Measure, and print a line for each row."""
    rows = measure()
    for row in rows:
        verdict = "met" if row["found"] <= row["at_most"] else "missed"
        print(
            f"{row['name']:<48} {row['found']:>7.2f} {row['unit']:<4} ≤ {row['at_most']} {verdict}"
        )
    print(json.dumps(rows, indent=2))
    return int(any(row["found"] > row["at_most"] for row in rows))


def measure() -> list[dict[str, Any]]:
    """Segment a grey image of each size, smallest first, in one server."""
    with tempfile.TemporaryDirectory() as folder:
        write_artefact(Path(folder), NETWORK)
        with served(folder) as (client, pid):
            segment(client, grey(3 * DEFAULT_TILE_EDGE))  # what ONNX Runtime takes, it keeps
            rows = [measure_one(client, pid, megapixels) for megapixels in EDGES]
    ten, hundred = (row["seconds_a_megapixel"] for row in rows[-2:])
    time_row = {
        "name": "time a megapixel, of 100 against of 10",
        "found": hundred / ten,
        "at_most": MOST_GROWTH,
        "unit": "",
        "says": f"{hundred:.3f} s and {ten:.3f} s",
    }
    return [*rows, time_row]


def measure_one(client: httpx.Client, pid: int, megapixels: int) -> dict[str, Any]:
    """Segment one image, and watch the server meanwhile."""
    body, pixels = grey(EDGES[megapixels]), EDGES[megapixels] ** 2
    pids = [pid, *children_of(pid)]
    idle_bytes = taken_bytes(pids)
    with Watch(pids) as watch:
        elapsed_s = segment(client, body)
    above = watch.peak_bytes - idle_bytes
    return {
        "name": f"peak memory of a {megapixels}-megapixel grey image",
        "found": max(above - BATCH_BYTES, 0) / pixels,
        "at_most": MOST_BYTES_A_PIXEL,
        "unit": "B/px",
        "says": f"above {idle_bytes / 1e6:.0f} MB idle and {BATCH_BYTES / 1e6:.0f} MB of a tile",
        "idle_bytes": idle_bytes,
        "peak_bytes": watch.peak_bytes,
        "tile_bytes": BATCH_BYTES,
        "seconds_a_megapixel": 1e6 * elapsed_s / pixels,
    }


@contextmanager
def served(model_dir: str) -> Iterator[tuple[httpx.Client, int]]:
    """Serve a folder of models on the CPU, in a process whose id is given."""
    port = free_port()
    settings = {"MODEL_DIR": model_dir, "PORT": str(port), "DEVICE": "cpu"}
    plain = {name: value for name, value in os.environ.items() if "UNET_SERVICE" not in name}
    named = {f"UNET_SERVICE_{name}": value for name, value in settings.items()}
    process = subprocess.Popen([sys.executable, "-m", "service"], cwd=ROOT, env=plain | named)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=900) as client:
            wait_until_ready(client)
            yield client, process.pid
    finally:
        process.terminate()
        process.wait()


def wait_until_ready(client: httpx.Client) -> None:
    """Ask until the server is ready.

    Raises:
        TimeoutError: if it does not become so.
    """
    deadline = time.monotonic() + READY_TIMEOUT_S
    while time.monotonic() < deadline:
        try:
            if client.get("/readyz").is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise TimeoutError(f"the server was not ready within {READY_TIMEOUT_S} s")


def segment(client: httpx.Client, body: bytes) -> float:
    """Time one request, in s."""
    began = time.perf_counter()
    answer = client.post("/segment", content=body, headers={"Content-Type": "image/png"})
    elapsed_s = time.perf_counter() - began
    answer.raise_for_status()
    return elapsed_s


def grey(edge: int) -> bytes:
    """Write a square image that compresses well, as large ones must to be uploaded."""
    block = np.random.default_rng(0).integers(0, 256, (250, 250), np.uint8)
    times = edge // len(block) + 1
    file = io.BytesIO()
    Image.fromarray(np.tile(block, (times, times))[:edge, :edge]).save(file, "PNG")
    return file.getvalue()


def children_of(pid: int) -> list[int]:
    """Give the ids of a process' children."""
    found = {int(entry.name): parent_of(entry) for entry in Path("/proc").glob("[0-9]*")}
    return [child for child, parent in found.items() if parent == pid]


def parent_of(entry: Path) -> int:
    """Give the id of a process' parent; 0 once the process has ended."""
    try:
        return int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0


def taken_bytes(pids: Sequence[int]) -> int:
    """Give what processes take together; those that have ended take nothing."""
    return sum(map(proportional_bytes, pids))


def proportional_bytes(pid: int) -> int:
    """Give the proportional set size of a process."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


if __name__ == "__main__":
    sys.exit(main())
