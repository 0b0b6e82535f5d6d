"""As much of protobuf's wire format as it takes to add to an ONNX graph: serving has no onnx.

A message is a sequence of fields, each a key (number and wire type) and a value. Fields that may
repeat append, and a message inside another that comes twice is merged: so what is encoded here can
be written behind a serialised graph, and belongs to it.

Source: Protocol Buffers, "Encoding".
"""

from collections.abc import Iterator
from typing import NamedTuple

Value = int | bytes
"""A number, or what has a length: text, raw data, a message."""

VARINT, LENGTH = 0, 2
WIDTHS = {1: 8, 5: 4}
"""Wire types of fixed width, in bytes."""


class Field(NamedTuple):
    """A field of a message."""

    number: int
    value: Value
    """Of fixed width: its bytes."""
    encoded: bytes
    """All of it, key and value."""


def message(*fields: tuple[int, Value | str]) -> bytes:
    """Encode a message of numbered fields; numbers are not negative."""
    return b"".join(_field(number, value) for number, value in fields)


def fields(data: bytes) -> Iterator[Field]:
    """Give the fields of a message in their order.

    Raises:
        ValueError: if that is no message.
    """
    at = 0
    while at < len(data):
        start = at
        key, at = _read_varint(data, at)
        number, wire = key >> 3, key & 7
        value: Value
        if wire == VARINT:
            value, at = _read_varint(data, at)
        else:
            length, at = _read_length(data, at, wire)
            value, at = data[at : at + length], at + length
        if at > len(data):
            raise ValueError("the message ends within a field")
        yield Field(number, value, data[start:at])


def _field(number: int, value: Value | str) -> bytes:
    if isinstance(value, int):
        return _varint(number << 3 | VARINT) + _varint(value)
    data = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | LENGTH) + _varint(len(data)) + data


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _read_length(data: bytes, at: int, wire: int) -> tuple[int, int]:
    if wire == LENGTH:
        return _read_varint(data, at)
    if wire not in WIDTHS:
        raise ValueError(f"there is no wire type {wire}")
    return WIDTHS[wire], at


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while at < len(data):
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
        shift += 7
    raise ValueError("the message ends within a number")
