"""Each way to use a GPU: whether its labels are those of the CPU, and its rate."""

import statistics
from collections.abc import Iterator, Mapping
from functools import partial

import numpy as np
from numpy.typing import NDArray

from benchmarks.gpu.agreement import agreement
from benchmarks.gpu.measured import Measured, attempt
from benchmarks.images import sample
from benchmarks.subject import MODEL, ROOT
from benchmarks.turns import seconds_of
from model.geometry import flops
from model.runtime import Runtime
from model.segmentation import DEFAULT_TILE_EDGE, Segmentation
from model.sessions.cuda import MOST_TILES, CudaOptions
from service.models.opening import tile_shapes

WAYS = {
    "fp32": CudaOptions(),
    "fp32, exhaustive": CudaOptions(search="EXHAUSTIVE"),
    "fp16": CudaOptions(precision="fp16"),
    "fp16, exhaustive": CudaOptions(precision="fp16", search="EXHAUSTIVE"),
    "fp16, channels last": CudaOptions(precision="fp16", channels_last=True),
    "fp16, graphs": CudaOptions(precision="fp16", graphs=True),
}
TENSORRT = {
    "fp16, TensorRT": CudaOptions(
        precision="fp16",
        tensorrt_cache=ROOT / "build" / "tensorrt",
        largest_edge=DEFAULT_TILE_EDGE,
    )
}
"""Apart, since its engine takes minutes to make."""
EDGE, BATCHES, ROUNDS = 512, (1, 2, 4, 8), 20


def measure(ways: Mapping[str, CudaOptions], rates: Mapping[str, float]) -> list[Measured]:
    """Hold every way against the CPU, and time batches of one tile shape.

    Args:
        ways: By their names.
        rates: FLOP/s of a large product, by precision.
    """
    on_cpu = Runtime(MODEL, "cpu")
    shapes = tile_shapes(on_cpu.manifest, Runtime(MODEL, "cuda").provider, DEFAULT_TILE_EDGE)
    work = Segmentation.begin(sample(EDGE)[np.newaxis], on_cpu.manifest, shapes)
    tile = work.read(work.plan.tiles[0])[np.newaxis]
    exact = on_cpu.run(tile)[0]
    rows: list[Measured] = []
    for name, options in ways.items():
        way = partial(_measure_way, options, tile, exact, rates)
        rows += [{"way": name} | row for row in attempt(way)]
    return rows


def _measure_way(
    options: CudaOptions,
    tile: NDArray[np.float32],
    exact: NDArray[np.float32],
    rates: Mapping[str, float],
) -> list[Measured]:
    runtime = Runtime(MODEL, "cuda", cuda=options)
    return list(_batches(runtime, tile, exact, rates[runtime.precision]))


def _batches(
    runtime: Runtime, tile: NDArray[np.float32], exact: NDArray[np.float32], rate: float
) -> Iterator[Measured]:
    """Hold the last tile of every batch against the CPU, and time runs for labels with copies."""
    manifest = runtime.manifest
    shape = tile.shape[2], tile.shape[3]
    work = flops(manifest.architecture, shape)
    most = MOST_TILES if runtime.provider == "tensorrt" else BATCHES[-1]
    for batch in (batch for batch in BATCHES if batch <= most):  # others would cost an engine
        tiles = np.repeat(tile, batch, axis=0)
        logits, run = runtime.run(tiles)[-1], partial(runtime.labels, tiles)
        labels = run()[-1]
        seconds = statistics.median(seconds_of(run) for _ in range(ROUNDS))
        reached = batch * work / seconds
        yield {
            "tile": "×".join(map(str, shape)),
            "batch": batch,
            "ms": 1e3 * seconds,
            "tiles_a_second": batch / seconds,
            "tflop_a_second": reached / 1e12,
            "share_of_product": reached / rate,
            **agreement(manifest, exact, logits, labels, runtime.precision),
        }
