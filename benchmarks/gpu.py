"""What a GPU does with the shipped model, checked against the CPU and weighed against the card.

`python -m benchmarks.gpu` runs on a GPU host, in the environment of the service, for at most eight
minutes, and writes benchmarks/results/gpu.json. It measures, in one run:

- what the card's matrix units give: a large product in ONNX Runtime, in float32 and in float16;
- for each way to use the GPU, whether its labels are those of the CPU off ties, and its rate;
- one image through the engine alone, and many at a time, with one stream and with two;
- whether memory stays flat over 2,000 mixed requests.
"""

import asyncio
import json
import os
import platform
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from PIL import Image

from model.artefact import Manifest
from model.errors import DeviceError
from model.geometry import flops
from model.planner import TileShapes
from model.runtime import Runtime
from model.segmentation import DEFAULT_TILE_EDGE, Output, Segmentation
from model.sessions import graph as words
from model.sessions.bound import Memory
from model.sessions.cuda import CudaOptions, providers
from model.sessions.onnx import CPU
from model.sessions.protobuf import message
from service.engine import Engine
from service.models.loaded import Loaded
from service.models.models import tile_shapes

ROOT = Path(__file__).parents[1]
MODEL = ROOT / "model" / "pretrained" / "em-membranes.onnx"
SAMPLE = ROOT / "docs" / "samples" / "membranes" / "images" / "membranes-000.png"
RESULT = Path(__file__).parent / "results" / "gpu.json"

WAYS = {
    "fp32": CudaOptions(),
    "fp32, exhaustive": CudaOptions(search="EXHAUSTIVE"),
    "fp16": CudaOptions(precision="fp16"),
    "fp16, exhaustive": CudaOptions(precision="fp16", search="EXHAUSTIVE"),
    "fp16, channels last": CudaOptions(precision="fp16", channels_last=True),
    "fp16, graphs": CudaOptions(precision="fp16", graphs=True),
}
ENGINES = {
    "fp32": (CudaOptions(), ("cuda:0",)),
    "fp16": (CudaOptions(precision="fp16"), ("cuda:0",)),
    "fp16, two streams": (CudaOptions(precision="fp16"), ("cuda:0", "cuda:0")),
}
TOLERANCES = {"fp32": 1e-3, "fp16": 3e-2}
"""How far a logit may be off, relative to the largest of the image, or to 1 if that is smaller: a
pixel whose label hangs on less is a tie."""
BATCHES = (1, 2, 4, 8)
ROUNDS = 20
PRODUCT_EDGE = 8192
IMAGES, ALONE, AT_A_TIME = 256, 60, 32
REQUESTS, SOUNDINGS = 2000, 40
SIZES = ((64, 64), (200, 333), (512, 512), (388, 900), (1024, 1024), (1500, 700))
OUTPUTS: tuple[Output, ...] = ("labels", "labels", "foreground")
FLAT_MIB = 32
"""Growth over the second half of the requests that counts as none, in MiB."""
BUDGET_S = 400
"""A part that would begin later is left out, and counts as failed."""

Row = dict[str, Any]


def main() -> int:
    """Measure, print, and write the result.

    Returns:
        0 if the GPU is right and memory flat, 1 if not, 2 where there is no GPU.
    """
    try:
        Runtime(MODEL, "cuda")
        card = card_of(ask_driver("name,driver_version,memory.total"))
    except (DeviceError, OSError, subprocess.CalledProcessError) as exc:
        print(f"benchmarks.gpu needs a GPU: {exc}", file=sys.stderr)
        return 2
    rates = {name: product_rate(name, ("cuda", 0)) for name in ("fp32", "fp16")}
    began = time.monotonic()
    parts: list[tuple[str, Callable[[], list[Row]]]] = [
        ("ways", lambda: measure_ways(rates)),
        ("engines", measure_engines),
        ("memory", measure_memory),
    ]
    rows: dict[str, list[Row]] = {}
    for name, measure in parts:
        rows[name] = attempt(measure, time.monotonic() - began)
        print(f"\n{name}\n{table(rows[name])}", flush=True)
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(record(card, rates, rows), indent=2) + "\n")
    return int(not is_right(rows))


def attempt(measure: Callable[[], list[Row]], elapsed_s: float) -> list[Row]:
    """Measure a part, if there is time; what failed does not take the other parts with it."""
    if elapsed_s > BUDGET_S:
        return [{"failed": f"no time was left after {elapsed_s:.0f} s"}]
    try:
        return measure()
    except Exception as exc:  # noqa: BLE001 (it is the result)
        return [{"failed": reason(exc)}]


def reason(error: Exception) -> str:
    """Say in a line why something failed, as what raised it first does."""
    return f"{error} {error.__cause__ or ''}".strip()[:300]


def measure_ways(rates: dict[str, float]) -> list[Row]:
    """Hold every way against the CPU, and time batches of one tile shape.

    Args:
        rates: FLOP/s of a large product, by precision.
    """
    on_cpu = Runtime(MODEL, "cpu")
    manifest = on_cpu.manifest
    work = begin((512, 512), tile_shapes(Runtime(MODEL, "cuda"), DEFAULT_TILE_EDGE), manifest)
    tile = work.read(work.plan.tiles[0])[np.newaxis]
    exact = on_cpu.run(tile)[0]
    rows: list[Row] = []
    for name, options in WAYS.items():
        try:
            runtime = Runtime(MODEL, "cuda", cuda=options)
            agreed = agreement(manifest, exact, runtime.run(tile)[0], TOLERANCES[options.precision])
            agreed["labels_of_device"] = bool(
                np.array_equal(runtime.labels(tile)[0], manifest.decide(runtime.run(tile)[0]))
            )
        except Exception as exc:  # noqa: BLE001 (a way that does not work is a result)
            rows.append({"way": name, "failed": reason(exc)})
            continue
        work_of_tile = flops(manifest.architecture, work.plan.tile_shape)
        for batch in BATCHES:
            seconds = seconds_a_run(runtime, np.repeat(tile, batch, axis=0))
            rate = batch * work_of_tile / seconds
            share = rate / rates[runtime.precision]
            rows.append(
                {
                    "way": name,
                    "tile": "×".join(map(str, work.plan.tile_shape)),
                    "batch": batch,
                    "ms": 1e3 * seconds,
                    "tiles_a_second": batch / seconds,
                    "tflop_a_second": rate / 1e12,
                    "share_of_product": share,
                    **agreed,
                }
            )
    return rows


def measure_engines() -> list[Row]:
    """Time images of 512×512 px through the engine: one alone, and many at a time."""
    rows: list[Row] = []
    for name, (options, places) in ENGINES.items():
        with engine_on(options, places) as (engine, model, warm_up_s):
            images = [begin((512, 512), model.shapes, model.manifest) for _ in range(IMAGES)]
            alone = asyncio.run(latencies(engine, model, images[:ALONE], at_a_time=1))
            began = time.perf_counter()
            asyncio.run(latencies(engine, model, images, AT_A_TIME))
            seconds = time.perf_counter() - began
        rows.append(
            {
                "engine": name,
                "warm_up_s": warm_up_s,
                "alone_ms": 1e3 * statistics.median(alone[10:]),
                "at_a_time": AT_A_TIME,
                "images_a_second": IMAGES / seconds,
            }
        )
    return rows


def measure_memory() -> list[Row]:
    """Run many images of many sizes, and look at the card's memory now and then."""
    sizes = [SIZES[index] for index in np.random.default_rng(0).integers(0, len(SIZES), REQUESTS)]
    step = REQUESTS // SOUNDINGS
    used: list[float] = []
    with engine_on(CudaOptions(), ("cuda:0",)) as (engine, model, _):
        for start in range(0, REQUESTS, step):
            images = [
                begin(size, model.shapes, model.manifest, output)
                for size, output in zip(sizes[start : start + step], cycle(OUTPUTS), strict=False)
            ]
            asyncio.run(latencies(engine, model, images, at_a_time=8))
            used.append(float(ask_driver("memory.used").split()[0]))
    growth = growth_of_second_half(used)
    return [{"requests": REQUESTS, "used_mib": used, "growth_mib": growth, "most_mib": FLAT_MIB}]


async def latencies(
    engine: Engine, model: Loaded, images: Sequence[Segmentation], at_a_time: int
) -> list[float]:
    """Segment images, so many at a time; give the time that each took, in s."""
    places = asyncio.Semaphore(at_a_time)

    async def segment(image: Segmentation) -> float:
        async with places:
            began = time.perf_counter()
            await engine.segment(model, image)
            return time.perf_counter() - began

    return list(await asyncio.gather(*map(segment, images)))


@contextmanager
def engine_on(
    options: CudaOptions, places: Sequence[str]
) -> Iterator[tuple[Engine, Loaded, float]]:
    """Give an engine with a model that is warm on some places, and how long that took, in s."""
    runtimes = [Runtime(MODEL, place, cuda=options) for place in places]
    model = Loaded(runtimes, tile_shapes(runtimes[0], DEFAULT_TILE_EDGE))
    began = time.perf_counter()
    model.warm_up(threading.Event())
    warm_up_s = time.perf_counter() - began
    engine = Engine(len(runtimes))
    engine.start()
    try:
        yield engine, model, warm_up_s
    finally:
        engine.stop()


def begin(
    size: tuple[int, int], shapes: TileShapes, manifest: Manifest, output: Output = "labels"
) -> Segmentation:
    """Prepare an image of a size, out of the sample."""
    with Image.open(SAMPLE) as picture:
        sample = np.asarray(picture)
    height, width = size
    repeats = -(-height // sample.shape[0]), -(-width // sample.shape[1])
    image = np.tile(sample, repeats)[np.newaxis, :height, :width]
    return Segmentation.begin(image, manifest, shapes, output=output)


def seconds_a_run(runtime: Runtime, tiles: NDArray[np.float32]) -> float:
    """Give the median time of a run for labels, copies included, in s."""
    runtime.labels(tiles)
    seconds: list[float] = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        runtime.labels(tiles)
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def product_rate(precision: str, memory: Memory, edge: int = PRODUCT_EDGE) -> float:
    """Measure what a large matrix product gives, in FLOP/s: what the best of code could reach."""
    kind, dtype = {"fp32": (words.FLOAT, np.float32), "fp16": (words.FLOAT16, np.float16)}[
        precision
    ]
    session = onnxruntime.InferenceSession(
        product(kind), providers=_providers(memory), enable_fallback=0
    )
    binding = session.io_binding()
    shape = (edge, edge)
    numbers = np.random.default_rng(0).uniform(-1, 1, shape).astype(dtype)
    for name in ("a", "b"):
        value = onnxruntime.OrtValue.ortvalue_from_numpy(numbers, *memory)
        binding.bind_ortvalue_input(name, value)
    empty = onnxruntime.OrtValue.ortvalue_from_shape_and_type(shape, dtype, *memory)
    binding.bind_ortvalue_output("c", empty)
    seconds: list[float] = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        session.run_with_iobinding(binding)
        seconds.append(time.perf_counter() - began)
    return float(2 * edge**3 / min(seconds[1:]))


def product(kind: int) -> bytes:
    """Write a model that multiplies two matrices."""
    _, matrix = words.output("", kind, rank=2)
    inputs = [(words.INPUT, matrix + message((1, name))) for name in ("a", "b")]
    graph = message(
        words.node("MatMul", ["a", "b"], "c"),
        (2, "product"),
        *inputs,
        words.output("c", kind, rank=2),
    )
    return message((1, 10), (words.GRAPH, graph), (8, message((1, ""), (2, 20))))


def agreement(
    manifest: Manifest,
    exact: NDArray[np.float32],
    found: NDArray[np.float32],
    tolerance: float,
) -> Row:
    """Hold logits (K, h, w) against exact ones, and the labels that they decide for.

    Args:
        manifest: How labels are decided.
        exact: What the CPU gives.
        found: What is held against it.
        tolerance: Relative; see TOLERANCES.
    """
    bar = tolerance * max(1.0, float(np.abs(exact).max()))
    differ = manifest.decide(exact) != manifest.decide(found)
    ties = distance_to_another_label(manifest, exact) <= 2 * bar
    error = float(np.abs(exact - found).max())
    return {
        "logits_differ": error,
        "tolerance": bar,
        "labels_differ": int(differ.sum()),
        "off_ties": int((differ & ~ties).sum()),
        "agrees": bool(error <= bar and not (differ & ~ties).any()),
    }


def distance_to_another_label(
    manifest: Manifest, logits: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Say of every pixel (h, w) by how much its decisive difference of logits clears the bar."""
    if manifest.margin is not None:
        return np.asarray(np.abs(logits[1] - logits[0] - manifest.margin))
    ordered = np.sort(logits, axis=0)
    nearest: NDArray[np.float32] = ordered[-1] - ordered[-2]
    return nearest


def growth_of_second_half(soundings: Sequence[float]) -> float:
    """Give by how much the last quarter's median is above that of the quarter before it."""
    quarter = len(soundings) // 4
    last, before = soundings[-quarter:], soundings[-2 * quarter : -quarter]
    return statistics.median(last) - statistics.median(before)


def is_right(rows: dict[str, list[Row]]) -> bool:
    """Say whether the default way and the engines ran, all that ran agrees, and memory is flat."""
    ways = [row for row in rows["ways"] if "failed" not in row]
    return (
        any(row["way"] == "fp32" for row in ways)
        and all(row["agrees"] and row["labels_of_device"] for row in ways)
        and not any("failed" in row for row in [*rows["engines"], *rows["memory"]])
        and all(row["growth_mib"] <= row["most_mib"] for row in rows["memory"])
    )


def ask_driver(fields: str) -> str:
    """Ask the driver about the first GPU that CUDA shows.

    Raises:
        OSError: if there is no driver's tool.
        CalledProcessError: if it finds no GPU.
    """
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0] or "0"
    command = ["nvidia-smi", "-i", first, f"--query-gpu={fields}", "--format=csv,noheader"]
    return subprocess.run(  # noqa: S603 (our own command)
        command, capture_output=True, text=True, check=True
    ).stdout


def card_of(line: str) -> dict[str, str]:
    """Read the driver's answer about the card."""
    name, driver, memory = (part.strip() for part in line.splitlines()[0].split(","))
    return {"name": name, "driver": driver, "memory": memory}


def record(card: dict[str, str], rates: dict[str, float], rows: dict[str, list[Row]]) -> Row:
    """Say what was measured, on what."""
    return {
        "command": "python -m benchmarks.gpu",
        "date": datetime.now(UTC).date().isoformat(),
        "card": card,
        "machine": {"processor": platform.machine(), "python": platform.python_version()},
        "onnxruntime": onnxruntime.__version__,
        "model": MODEL.stem,
        "product_tflop_a_second": {name: rate / 1e12 for name, rate in rates.items()},
        **rows,
    }


def table(rows: Sequence[Row]) -> str:
    """Lay rows out under the names of their values."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    cells = [names, *([_cell(row.get(name, "")) for name in names] for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(names))]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True))
        for line in cells
    )


def _cell(value: object) -> str:
    if isinstance(value, list):
        return f"{min(value):g} to {max(value):g}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _providers(memory: Memory) -> list[Any]:
    kind, number = memory
    return (
        [CPU] if kind == "cpu" else providers(Runtime(MODEL, "cpu").manifest, number, WAYS["fp32"])
    )


if __name__ == "__main__":
    sys.exit(main())
