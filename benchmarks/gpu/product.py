"""What the card's matrix units give: a large product of two matrices in ONNX Runtime."""

import time
from typing import Any

import numpy as np
import onnxruntime

from benchmarks.subject import MODEL
from model.runtime import Runtime
from model.sessions import graph as words
from model.sessions.bound import Memory
from model.sessions.cuda import DEFAULT, providers
from model.sessions.onnx import CPU
from model.sessions.protobuf import message

EDGE, ROUNDS = 8192, 20
TYPES = {"fp32": (words.FLOAT, np.float32), "fp16": (words.FLOAT16, np.float16)}


def product_rate(precision: str, memory: Memory, edge: int = EDGE) -> float:
    """Measure what a large matrix product gives, in FLOP/s: what the best of code could reach."""
    kind, dtype = TYPES[precision]
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


def _providers(memory: Memory) -> list[Any]:
    kind, number = memory
    return [CPU] if kind == "cpu" else providers(Runtime(MODEL, "cpu").manifest, number, DEFAULT)
