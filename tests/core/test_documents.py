"""Documents: YAML becomes the data that was meant, values keep their lines, no text breaks the reader."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelstacks.core.errors import SpecInvalid
from modelstacks.core.spec.documents import load_document

KEYS = st.text(st.characters(codec="ascii", categories=("Ll", "Lu", "Nd")), min_size=1, max_size=8)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), max_size=20)
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("documents")


@settings(max_examples=150, deadline=None)
@given(data=st.dictionaries(KEYS, VALUES, min_size=1, max_size=5))
def test_json_is_read_as_the_same_data(folder: Path, data: dict[str, Any]) -> None:
    path = folder / "document.yaml"
    path.write_text(json.dumps(data, ensure_ascii=False, indent=1), encoding="utf-8")
    assert load_document(path).data == data


@settings(max_examples=200, deadline=None)
@given(content=st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes_are_a_document_or_a_fault_with_a_line(folder: Path, content: bytes) -> None:
    path = folder / "document.yaml"
    path.write_bytes(content)
    try:
        document = load_document(path)
    except SpecInvalid as error:
        assert all(fault.line >= 1 and fault.what for fault in error.faults)
    else:
        assert all(
            1 <= line <= content.count(b"\n") + content.count(b"\r") + 3 for line in document.lines.values()
        )


@settings(max_examples=60, deadline=None)
@given(keys=st.lists(KEYS, min_size=1, max_size=12, unique=True), gaps=st.data())
def test_every_key_knows_its_line(folder: Path, keys: list[str], gaps: st.DataObject) -> None:
    lines, text = {}, ""
    for key in keys:
        text += "# note\n" * gaps.draw(st.integers(0, 3))
        lines[key] = text.count("\n") + 1
        text += f'"{key}":\n  - 1\n  - {{inner: 2}}\n'
    path = folder / "document.yaml"
    path.write_text(text)
    document = load_document(path)
    for key, line in lines.items():
        assert document.line((key,)) == line
        assert document.line((key, 1, "inner")) == line + 2
        assert document.line((key, 1, "absent", "deeper")) == line + 2  # the nearest that is written down


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("~", None),
        ("", None),
        ("True", True),
        ("yes", "yes"),  # YAML 1.2: a word like any other
        ("0x1F", 31),
        ("0o17", 15),
        ("-0x1F", "-0x1F"),
        ("007", 7),
        ("1_000", "1_000"),
        ("2026-01-31", "2026-01-31"),
        ("1e3", 1000.0),
        (".inf", float("inf")),
        ("-.inf", float("-inf")),
        ("'5'", "5"),
        ("9" * 5000, "9" * 5000),  # no number that anything here could mean
    ],
)
def test_a_plain_word_is_what_yaml_1_2_says(text: str, value: object, tmp_path: Path) -> None:
    path = tmp_path / "document.yaml"
    path.write_text(f"key: {text}\n")
    assert load_document(path).data == {"key": value}


@pytest.mark.parametrize("value", ["!!int 5", "!secret x", "!!set {a: 1}", "!!python/object:os.system [x]"])
def test_a_tag_is_refused(value: str, tmp_path: Path) -> None:
    path = tmp_path / "document.yaml"
    path.write_text(f"key: {value}\n")
    with pytest.raises(SpecInvalid, match=r"key: the tag !.* is not allowed; fix: remove the tag"):
        load_document(path)


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path: Path) -> None:
    path = tmp_path / "document.yaml"
    path.write_bytes(b"\xef\xbb\xbfname: churn\n")
    assert load_document(path).data == {"name": "churn"}
