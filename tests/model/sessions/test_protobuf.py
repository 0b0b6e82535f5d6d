"""As much of protobuf as is written by hand, against the real one."""

import pytest
from onnx import AttributeProto, NodeProto, TensorProto

from model.sessions.protobuf import fields, message


@pytest.mark.parametrize("number", [0, 1, 127, 128, 300, 2**31, 2**63 - 1])
def test_a_number_is_read_by_protobuf(number: int) -> None:
    assert AttributeProto.FromString(message((3, number))).i == number


@pytest.mark.parametrize("length", [0, 1, 127, 128, 70_000])
def test_text_and_bytes_are_read_by_protobuf(length: int) -> None:
    tensor = TensorProto.FromString(message((8, "ä" * length), (9, b"\0" * length)))
    assert (tensor.name, tensor.raw_data) == ("ä" * length, b"\0" * length)


def test_what_protobuf_writes_is_read_and_put_together_again() -> None:
    node = NodeProto(op_type="Elu", input=["a", ""], output=["b"])
    node.attribute.append(AttributeProto(name="alpha", f=0.5, i=-1, type=AttributeProto.FLOAT))
    written = node.SerializeToString()
    parts = list(fields(written))
    assert [part.value for part in parts if part.number in (1, 2)] == [b"a", b"", b"b"]
    assert b"".join(part.encoded for part in parts) == written
    (attribute,) = (part.value for part in parts if part.number == 5)
    assert isinstance(attribute, bytes)
    inner = list(fields(attribute))
    assert b"".join(part.encoded for part in inner) == attribute
    assert [part.value for part in inner if part.number == 3] == [2**64 - 1]


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param(message((9, b"data"))[:-1], id="ends within a field"),
        pytest.param(b"\x08\xff", id="ends within a number"),
        pytest.param(b"\x0b", id="wire type 3"),
    ],
)
def test_what_is_no_message_is_refused(broken: bytes) -> None:
    with pytest.raises(ValueError, match=r"ends within|wire type"):
        list(fields(broken))
