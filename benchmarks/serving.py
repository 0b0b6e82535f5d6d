"""What the service adds to the bare runs of the model: `make bench`.

For each image size, in turn: the runs of the image's own plan through `Runtime.run`, tiles made
beforehand, and `POST /segment` of the same image to a server of its own process. Both in one run,
so that the ratio holds when the machine's speed drifts.
"""

import io
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnxruntime
from numpy.typing import NDArray
from PIL import Image

from model.runtime import Runtime
from model.segmentation import DEFAULT_SHAPES, Segmentation

ROOT = Path(__file__).parents[1]
MODEL = ROOT / "model" / "pretrained" / "em-membranes.onnx"
SAMPLE = ROOT / "docs" / "samples" / "membranes" / "images" / "membranes-000.png"
RESULT = Path(__file__).parent / "results" / "serving.json"
ROUNDS = {512: 15, 4096: 3}
"""Image edge in px, and how often both are timed."""
BARS = {512: 1.15, 4096: 1.10}
READY_TIMEOUT_S = 120


def main() -> int:
    """Measure, print a table, and write the result."""
    runtime = Runtime(MODEL)
    with server() as client:
        rows = [measure(runtime, client, edge) for edge in ROUNDS]
    print("image       tiles          bare runs     POST /segment   ratio    bar")
    for row in rows:
        print(
            f"{row['image']:>12} {row['tiles']:>14} {row['bare_s']:>10.3f} s "
            f"{row['request_s']:>12.3f} s {row['ratio']:>7.3f} {row['bar']:>6.2f}"
        )
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(record(runtime, rows), indent=2) + "\n")
    return int(any(row["ratio"] > row["bar"] for row in rows))


def measure(runtime: Runtime, client: httpx.Client, edge: int) -> dict[str, Any]:
    """Time bare runs and requests in turn, and give the median of their ratios."""
    with Image.open(SAMPLE) as picture:
        image = np.tile(np.asarray(picture), (edge // 512, edge // 512))
    body = png(image)
    work = Segmentation.begin(image[np.newaxis], runtime.manifest, DEFAULT_SHAPES)
    height, width = work.plan.tile_shape
    runtime.warm_up(work.plan.tile_shape)
    batches = [work.read(tile)[np.newaxis] for tile in work.plan.tiles]
    pairs = [(run_bare(runtime, batches), request(client, body)) for _ in range(ROUNDS[edge])]
    return {
        "image": f"{edge}×{edge}",
        "tiles": f"{len(batches)} of {height}×{width}",
        "rounds": len(pairs),
        "bare_s": statistics.median(bare for bare, _ in pairs),
        "request_s": statistics.median(full for _, full in pairs),
        "ratio": statistics.median(full / bare for bare, full in pairs),
        "bar": BARS[edge],
    }


def run_bare(runtime: Runtime, batches: list[NDArray[np.float32]]) -> float:
    """Time the runs of a plan, in s."""
    began = time.perf_counter()
    for batch in batches:
        runtime.run(batch)
    return time.perf_counter() - began


def request(client: httpx.Client, body: bytes) -> float:
    """Time one request, in s."""
    began = time.perf_counter()
    answer = client.post("/segment", content=body, headers={"Content-Type": "image/png"})
    elapsed = time.perf_counter() - began
    answer.raise_for_status()
    return elapsed


@contextmanager
def server() -> Iterator[httpx.Client]:
    """Serve the shipped models in a process of their own, until the block ends."""
    plain = {name: value for name, value in os.environ.items() if "UNET_SERVICE" not in name}
    port = free_port()
    settings = {"UNET_SERVICE_PORT": str(port), "UNET_SERVICE_DEFAULT_MODEL": MODEL.stem}
    process = subprocess.Popen([sys.executable, "-m", "service"], cwd=ROOT, env=plain | settings)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=600) as client:
            wait_until_ready(client, process)
            yield client
    finally:
        process.terminate()
        process.wait(READY_TIMEOUT_S)


def free_port() -> int:
    """Find a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        port: int = found.getsockname()[1]
    return port


def wait_until_ready(client: httpx.Client, process: "subprocess.Popen[bytes]") -> None:
    """Ask until the server is ready.

    Raises:
        TimeoutError: if it does not become so, or has ended.
    """
    deadline = time.monotonic() + READY_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if client.get("/readyz").is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(1)
    raise TimeoutError(f"the server was not ready within {READY_TIMEOUT_S} s")


def png(image: NDArray[np.uint8]) -> bytes:
    """Write an image as a client would send it."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def record(runtime: Runtime, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Say what was measured, on what."""
    return {
        "command": "make bench",
        "date": datetime.now(UTC).date().isoformat(),
        "machine": {
            "processor": platform.machine(),
            "cores": os.cpu_count(),
            "provider": runtime.provider,
            "onnxruntime": onnxruntime.__version__,
        },
        "model": {"name": runtime.manifest.name, "sha256": runtime.artefact.sha256},
        "rows": rows,
    }


if __name__ == "__main__":
    sys.exit(main())
