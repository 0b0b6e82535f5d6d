"""A graph that computes in float16, made from one that computes in float32.

Its ports stay float32: the tile is cast at the beginning, the logits at the end. What lies between,
the weights and every activation, is float16, which the tensor cores of a GPU are made for (they add
up in float32). A graph of which anything did not become float16 is refused by what opens it, since
the types of a node's inputs have to agree.
"""

import numpy as np

from model.sessions import graph as words
from model.sessions.protobuf import Field, Value, fields, message

INNER = {b"tile": b"tile.float16", b"logits": b"logits.float16"}
"""Names within the graph of what comes in and goes out."""


def in_float16(model: bytes) -> bytes:
    """Rewrite a serialised model, whatever stands behind its graph included.

    Raises:
        ValueError: if it cannot be: a parameter is too large, or is not stored as it is exported.
    """
    return b"".join(
        message((words.GRAPH, _graph(_bytes(field.value))))
        if field.number == words.GRAPH
        else field.encoded
        for field in fields(model)
    )


def _graph(graph: bytes) -> bytes:
    first = words.node("Cast", ["tile"], "tile.float16", to=words.FLOAT16)
    last = words.node("Cast", ["logits.float16"], "logits", to=words.FLOAT)
    return message(first) + b"".join(map(_part, fields(graph))) + message(last)


def _part(field: Field) -> bytes:
    """Rewrite a field of a graph."""
    if field.number == words.NODE:
        return message((words.NODE, _node(_bytes(field.value))))
    if field.number == words.INITIALIZER:
        return message((words.INITIALIZER, _tensor(_bytes(field.value))))
    return field.encoded


def _node(node: bytes) -> bytes:
    parts = list(fields(node))
    is_cast = any(part.number == words.NODE_TYPE and part.value == b"Cast" for part in parts)
    rewritten = []
    for part in parts:
        if part.number in (words.NODE_INPUT, words.NODE_OUTPUT) and part.value in INNER:
            rewritten.append(message((part.number, INNER[_bytes(part.value)])))
        elif is_cast and part.number == words.NODE_ATTRIBUTE:
            rewritten.append(message((part.number, _target(_bytes(part.value)))))
        else:
            rewritten.append(part.encoded)
    return b"".join(rewritten)


def _target(attribute: bytes) -> bytes:
    """Let a cast to float32 be one to float16."""
    return b"".join(
        message((part.number, words.FLOAT16))
        if part.number == words.ATTRIBUTE_INT and part.value == words.FLOAT
        else part.encoded
        for part in fields(attribute)
    )


def _tensor(tensor: bytes) -> bytes:
    parts = list(fields(tensor))
    if not any(part.number == words.TENSOR_TYPE and part.value == words.FLOAT for part in parts):
        return tensor
    if any(part.number == words.TENSOR_FLOATS for part in parts):
        raise ValueError("a parameter is stored as numbers, not as bytes")
    replaced = {words.TENSOR_TYPE, words.TENSOR_BYTES}
    (data,) = (_bytes(part.value) for part in parts if part.number == words.TENSOR_BYTES)
    kept = b"".join(part.encoded for part in parts if part.number not in replaced)
    return kept + message((words.TENSOR_TYPE, words.FLOAT16), (words.TENSOR_BYTES, _round(data)))


def _round(data: bytes) -> bytes:
    numbers = np.frombuffer(data, "<f4")
    if (np.abs(numbers) > np.finfo(np.float16).max).any():
        raise ValueError("a parameter is too large")
    return numbers.astype("<f2").tobytes()


def _bytes(value: Value) -> bytes:
    if isinstance(value, int):
        raise ValueError("a number stands where a message should")  # noqa: TRY004 (of the data)
    return value
