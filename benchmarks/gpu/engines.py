"""Images through the engine alone: one after the other, many at a time, and of mixed sizes."""

import asyncio
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import cycle
from pathlib import Path

import numpy as np

from benchmarks.gpu.measured import Measured, attempt
from benchmarks.images import sample
from benchmarks.subject import MODEL
from benchmarks.trend import trend
from benchmarks.turns import seconds_of
from model.architecture import Architecture
from model.artefact import Manifest
from model.errors import DeviceError
from model.planner import TileShapes, plan_tiles, work
from model.runtime import Runtime
from model.segmentation import (
    DEFAULT_SHAPES,
    DEFAULT_TILE_EDGE,
    Output,
    Segmentation,
    segment,
)
from model.sessions.cuda import CudaOptions
from model.sessions.gpu_memory import gpu_memory
from service.engine import Engine
from service.models.loaded import Loaded
from service.models.opening import tile_shapes

ENGINES = {
    "fp32": (CudaOptions(), ("cuda:0",)),
    "fp16": (CudaOptions(precision="fp16"), ("cuda:0",)),
    "fp16, two streams": (CudaOptions(precision="fp16"), ("cuda:0", "cuda:0")),
}
PAPER = Architecture(base_channels=64)
EDGE, IMAGES, ALONE, COLD, AT_A_TIME = 512, 256, 60, 10, 32
REQUESTS, SOUNDINGS = 2000, 40
SIZES = ((64, 64), (200, 333), (512, 512), (388, 900), (1024, 1024), (1500, 700))
OUTPUTS: tuple[Output, ...] = ("labels", "labels", "foreground")
FLAT_MIB = 32
"""Growth over the second half of the requests that counts as none, in MiB."""
MOST_DIFFER = 1e-3
"""Share of an image's labels that may hang on a tie of two classes."""
MIB = 1 << 20


def measure_shipped(rates: Mapping[str, float]) -> list[Measured]:
    """Time 512×512 images with the shipped model.

    Args:
        rates: FLOP/s of a large product, by precision.
    """
    return _measure_engines(MODEL, rates)


def measure_paper(rates: Mapping[str, float]) -> list[Measured]:
    """Time 512×512 images with a network of the paper's width that nobody trained.

    Args:
        rates: FLOP/s of a large product, by precision.
    """
    from benchmarks.untrained import write_artefact  # it needs the packages of training

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "untrained.onnx"
        write_artefact(path, PAPER)
        return _measure_engines(path, rates)


def _measure_engines(path: Path, rates: Mapping[str, float]) -> list[Measured]:
    """Measure one engine after the other; one that fails does not stop the others."""
    found: list[Measured] = []
    for name, (options, places) in ENGINES.items():
        engine = partial(_measure_rate, path, options, places, rates)
        found += [{"engine": name} | one for one in attempt(engine)]
    return found


def _measure_rate(
    path: Path, options: CudaOptions, places: Sequence[str], rates: Mapping[str, float]
) -> list[Measured]:
    with engine_on(path, options, places, one_shape=True) as (engine, model):
        images = [begin((EDGE, EDGE), model.shapes, model.manifest) for _ in range(IMAGES)]
        alone = asyncio.run(latencies(engine, model, images[:ALONE], at_a_time=1))
        many = latencies(engine, model, images, AT_A_TIME)
        seconds = seconds_of(partial(asyncio.run, many))
        flop = work(images[0].plan, model.manifest.architecture)
        precision = model.precision
    return [
        {
            "model": path.stem,
            "base_channels": model.manifest.architecture.base_channels,
            "alone_ms": 1e3 * statistics.median(alone[COLD:]),
            "at_a_time": AT_A_TIME,
            "images_a_second": IMAGES / seconds,
            "share_of_product": IMAGES * flop / seconds / rates[precision],
        }
    ]


def measure_memory() -> list[Measured]:
    """Run many images of many sizes; now and then look at the card's memory, and at a result."""
    on_cpu = Runtime(MODEL, "cpu")
    sizes = [SIZES[index] for index in np.random.default_rng(0).integers(0, len(SIZES), REQUESTS)]
    step = REQUESTS // SOUNDINGS
    used: list[float] = []
    differ: list[float] = []
    seconds = 0.0
    began = time.perf_counter()
    with engine_on(MODEL, CudaOptions(), ("cuda:0",)) as (engine, model):
        warm_up_s = time.perf_counter() - began
        for start in range(0, REQUESTS, step):
            images = [
                begin(size, model.shapes, model.manifest, output)
                for size, output in zip(sizes[start : start + step], cycle(OUTPUTS), strict=False)
            ]
            some = latencies(engine, model, images, at_a_time=8)
            seconds += seconds_of(partial(asyncio.run, some))
            used.append(gpu_memory(0).used_bytes / MIB)
            differ.append(share_that_differs(images[0], sizes[start], on_cpu))
    return [
        {
            "requests": REQUESTS,
            "requests_a_second": REQUESTS / seconds,
            "warm_up_s": warm_up_s,
            "shapes": len(model.warm_shapes),
            "used_mib": used,
            "growth_mib": growth_over_second_half(used),
            "most_mib": FLAT_MIB,
            "compared": len(differ),
            "pixels_differ": max(differ),
            "most_differ": MOST_DIFFER,
        }
    ]


def share_that_differs(found: Segmentation, size: tuple[int, int], on_cpu: Runtime) -> float:
    """Give the share of an image's labels that are not those of the CPU."""
    exact = segment(sample(*size)[np.newaxis], on_cpu, DEFAULT_SHAPES)
    return float(np.mean(found.canvas != exact))


def growth_over_second_half(soundings: Sequence[float]) -> float:
    """Give by how much a straight line through the second half of the soundings rises."""
    second = soundings[len(soundings) // 2 :]
    return trend(range(len(second)), second).slope * (len(second) - 1)


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
    path: Path, options: CudaOptions, places: Sequence[str], *, one_shape: bool = False
) -> Iterator[tuple[Engine, Loaded]]:
    """Give an engine with a model that is warm on some places.

    Args:
        path: The artefact.
        options: How the GPU is used.
        places: Each has a worker.
        one_shape: Warm up what a 512×512 image needs, in place of all shapes.

    Raises:
        DeviceError: if it does not become warm on every one of them.
    """
    runtimes = [Runtime(path, place, cuda=options) for place in places]
    shapes = tile_shapes(runtimes[0].manifest, runtimes[0].provider, DEFAULT_TILE_EDGE)
    if one_shape:
        plan = plan_tiles((EDGE, EDGE), runtimes[0].manifest.architecture, shapes)
        edge, _ = plan.tile_shape
        shapes = TileShapes(edge**2, (edge,))
    model = Loaded(runtimes, shapes)
    model.warm_up(threading.Event())
    if model.state != "ready" or len(model.runtimes) < len(places):
        warm = 0 if model.failure else len(model.runtimes)
        reason = f"{path.stem} became warm on {warm} of {len(places)} places {model.failure}"
        raise DeviceError(reason.strip())
    engine = Engine(len(runtimes))
    engine.start()
    try:
        yield engine, model
    finally:
        engine.stop()


def begin(
    size: tuple[int, int], shapes: TileShapes, manifest: Manifest, output: Output = "labels"
) -> Segmentation:
    """Prepare an image of a height and a width, in px."""
    return Segmentation.begin(sample(*size)[np.newaxis], manifest, shapes, output=output)
