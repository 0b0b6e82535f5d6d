"""The share of the processor's own matrix rate that the network reaches.

The rate is that of a product of two large float32 matrices, by whichever library is fastest:
numpy's OpenBLAS, torch, or ONNX Runtime. All are on as many threads as there are cores. What a tile
takes is counted from the architecture (`model.geometry.flops`), a multiply-add as two.
"""

import statistics
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper

from benchmarks.images import png, sample
from benchmarks.row import Row
from benchmarks.serving import segment, served
from benchmarks.subject import MODEL
from benchmarks.turns import described, in_turns
from model.geometry import flops
from model.runtime import Runtime
from model.segmentation import DEFAULT_SHAPES, Segmentation

EDGE, ROUNDS, MATRIX_EDGE = 512, 9, 3072
BARS = {"session.run": 0.75, "POST /segment": 0.70}


def measure(*, quick: bool) -> Iterator[Row]:
    """Measure both shares, the matrices in turns with them."""
    runtime = Runtime(MODEL, "cpu")
    pixels = sample(EDGE)
    plan = Segmentation.begin(pixels[np.newaxis], runtime.manifest, DEFAULT_SHAPES)
    (tile,) = plan.plan.tiles
    session = onnxruntime.InferenceSession(MODEL, providers=["CPUExecutionProvider"])
    with served() as client:
        contestants: dict[str, Callable[[], object]] = {
            **products(),
            "session.run": partial(session.run, ["logits"], {"tile": plan.read(tile)[np.newaxis]}),
            "POST /segment": partial(segment, client, png(pixels)),
        }
        seconds = in_turns(contestants, 1 if quick else ROUNDS)
    work = flops(runtime.manifest.architecture, plan.plan.tile_shape)
    product = 2 * MATRIX_EDGE**3
    rates = {
        name: [(work if name in BARS else product) / each for each in turns]
        for name, turns in seconds.items()
    }
    fastest = max(products(), key=lambda name: statistics.median(rates[name]))
    for name, bar in BARS.items():
        pairs = zip(rates[name], rates[fastest], strict=True)
        yield Row(
            f"share of the CPU's matrix rate: {name}, {EDGE}²",
            statistics.median(one / other for one, other in pairs),
            at_least=bar,
            says=f"{statistics.median(rates[name]) / 1e9:.0f} of "
            f"{statistics.median(rates[fastest]) / 1e9:.0f} GFLOP/s, the latter by {fastest}; "
            f"{described(seconds)}",
            numbers={"flop_a_second": rates},
        )


def products() -> dict[str, Callable[[], object]]:
    """Give every library's way to multiply two matrices."""
    a, b = (np.random.default_rng(seed).random((MATRIX_EDGE,) * 2, np.float32) for seed in (0, 1))
    out = np.empty_like(a)
    tensors = torch.from_numpy(a), torch.from_numpy(b)
    return {
        "numpy": partial(np.matmul, a, b, out),
        "torch": partial(torch.mm, *tensors),
        "ONNX Runtime": partial(multiply(), a, b),
    }


def multiply() -> Callable[[NDArray[np.float32], NDArray[np.float32]], object]:
    """Make a product of ONNX Runtime's."""
    ports = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [MATRIX_EDGE] * 2) for name in "abc"
    ]
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["a", "b"], ["c"])], "product", ports[:2], ports[2:]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return lambda a, b: session.run(["c"], {"a": a, "b": b})
