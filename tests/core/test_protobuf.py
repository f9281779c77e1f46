"""What is read of protobuf files without their libraries agrees with the libraries."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelstacks.core.artifact.protobuf import (
    MOST_FIELDS,
    ONNX_MESSAGES,
    MalformedError,
    external_data,
    is_onnx,
)

DIGITS = Path(__file__).parents[2] / "model_artifacts/digits-onnx/model.onnx"


def test_every_message_that_can_hold_a_tensor_is_looked_into() -> None:
    """From onnx's own descriptors: each field whose message is, or has in it, a TensorProto."""
    from onnx import onnx_pb

    def inner(message: str) -> dict[int, str]:
        fields = getattr(onnx_pb, message).DESCRIPTOR.fields
        return {field.number: field.message_type.name for field in fields if field.message_type}

    leading, grown = {"TensorProto"}, True
    while grown:  # to the messages from which a tensor can be reached
        names = [name for name in dir(onnx_pb) if name.endswith("Proto")]
        more = {name for name in names if leading & set(inner(name).values())} | leading
        grown, leading = more != leading, more
    leading -= {"TypeProto"}
    for name in leading - {"TensorProto"}:
        expected = {number: held for number, held in inner(name).items() if held in leading}
        assert ONNX_MESSAGES[name] == expected, name


def test_a_real_graph_without_data_files_names_none() -> None:
    assert is_onnx(DIGITS)
    assert external_data(DIGITS) == frozenset()


def test_a_graph_of_more_fields_than_any_has_is_refused(tmp_path: Path) -> None:
    many = b"\x0a\x00" * (MOST_FIELDS + 1)  # empty nodes
    length = len(many)
    size = bytes(
        ((length >> shift) & 0x7F) | (0x80 if length >> shift + 7 else 0) for shift in range(0, 28, 7)
    )
    (tmp_path / "model.onnx").write_bytes(b"\x08\x07\x3a" + size + many)
    with pytest.raises(MalformedError, match="more fields than"):
        external_data(tmp_path / "model.onnx")


def test_graphs_within_graphs_end_somewhere(tmp_path: Path) -> None:
    """A node's attribute can hold a graph, with a node, with an attribute, and so on."""
    inner = b""
    for _ in range(200):
        for tag in (b"\x32", b"\x2a", b"\x0a"):  # AttributeProto.g, NodeProto.attribute, GraphProto.node
            size = len(inner)
            inner = tag + bytes([size & 0x7F | 0x80, size >> 7]) + inner
    size = len(inner)
    (tmp_path / "model.onnx").write_bytes(b"\x08\x07\x3a" + bytes([size & 0x7F | 0x80, size >> 7]) + inner)
    with pytest.raises(MalformedError, match="nested more than 64 deep"):
        external_data(tmp_path / "model.onnx")


@settings(max_examples=200, deadline=None)
@given(cut=st.integers(1, 4000), flip=st.integers(1, 255))
def test_a_damaged_graph_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, cut: int, flip: int
) -> None:
    content = bytearray(DIGITS.read_bytes())
    content[cut % len(content)] ^= flip
    path = tmp_path_factory.getbasetemp() / "damaged.onnx"
    path.write_bytes(content)
    try:
        assert isinstance(external_data(path), frozenset)
    except MalformedError as error:
        assert str(error)
