"""The words of an ONNX graph that are written here: numbers of fields and of types.

Source: onnx.proto of ONNX 1.19, whose numbers never change.
"""

from collections.abc import Sequence

import numpy as np

from model.sessions.protobuf import message

GRAPH = 7
"""The graph, in a model."""
NODE, INITIALIZER, INPUT, OUTPUT = 1, 5, 11, 12
"""In a graph."""
NODE_INPUT, NODE_OUTPUT, NODE_NAME, NODE_TYPE, NODE_ATTRIBUTE = 1, 2, 3, 4, 5
ATTRIBUTE_NAME, ATTRIBUTE_INT, ATTRIBUTE_KIND = 1, 3, 20
TENSOR_TYPE, TENSOR_FLOATS, TENSOR_NAME, TENSOR_BYTES = 2, 4, 8, 9
FLOAT, UINT8, INT64, FLOAT16 = 1, 2, 7, 10
"""Types of elements."""
KIND_INT = 2
"""An attribute that is a number."""

TYPES = {"float32": FLOAT, "int64": INT64}


def node(kind: str, inputs: Sequence[str], output: str, **numbers: int) -> tuple[int, bytes]:
    """Encode a node with one output and attributes that are numbers, as a field of a graph."""
    attributes = [
        message((ATTRIBUTE_NAME, name), (ATTRIBUTE_INT, number), (ATTRIBUTE_KIND, KIND_INT))
        for name, number in numbers.items()
    ]
    return NODE, message(
        *((NODE_INPUT, name) for name in inputs),
        (NODE_OUTPUT, output),
        (NODE_NAME, f"{kind} {output}"),
        (NODE_TYPE, kind),
        *((NODE_ATTRIBUTE, attribute) for attribute in attributes),
    )


def scalar(name: str, number: np.float32 | np.int64) -> tuple[int, bytes]:
    """Encode a constant without dimensions, as a field of a graph."""
    return INITIALIZER, message(
        (TENSOR_TYPE, TYPES[number.dtype.name]),
        (TENSOR_NAME, name),
        (TENSOR_BYTES, number.tobytes()),
    )


def output(name: str, element: int, rank: int) -> tuple[int, bytes]:
    """Encode an output of so many edges of any length, as a field of a graph."""
    shape = message(*[(1, b"")] * rank)
    return OUTPUT, message((1, name), (2, message((1, message((1, element), (2, shape))))))
