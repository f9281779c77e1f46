"""Parsers by property: what is written is read back; all else is a ProblemError and nothing worse."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from time import process_time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from model_server.codecs import (
    DECODERS,
    ENCODERS,
    choose_answer,
    dumps,
    negotiate,
    parse_media,
)
from model_server.files import npy_array
from model_server.problems import ProblemError
from model_server.signature import Signature, Tensor
from model_server.validation import InputReader

WIDTH = 4
COLUMNS = ("a", "b", "c", "d")
MATRIX = InputReader(Signature((Tensor("input", "FP32", (-1, WIDTH), COLUMNS),), ()))
WHOLE = InputReader(Signature((Tensor("input", "INT16", (-1, WIDTH)),), ()))
TEXT = InputReader(Signature((Tensor("text", "BYTES", (-1,)),), ()))
MIXED = InputReader(Signature((Tensor("age", "INT64", (-1,)), Tensor("city", "BYTES", (-1,))), ()))
READERS = [MATRIX, WHOLE, TEXT, MIXED]

floats = st.floats(width=32, allow_nan=False, allow_infinity=False)
rows = st.lists(st.lists(floats, min_size=WIDTH, max_size=WIDTH), min_size=1, max_size=6)
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda children: (
        st.lists(children, max_size=5)
        | st.dictionaries(st.sampled_from(COLUMNS) | st.text(max_size=3), children, max_size=5)
    ),
    max_leaves=20,
)


def read(reader: InputReader, body: bytes, content_type: str) -> dict[str, np.ndarray]:
    negotiated = negotiate(content_type, "")
    return negotiated.decode(reader, body, negotiated.media)[0]


@given(rows)
def test_json_rows_are_read_as_they_were_written(values: list[list[float]]) -> None:
    for body in (
        {"instances": values},
        {"inputs": values},
        values,
        {"columns": list(COLUMNS), "data": values},
    ):
        got = read(MATRIX, json.dumps(body).encode(), "application/json")["input"]
        assert got.dtype == np.float32
        np.testing.assert_array_equal(got, np.array(values, dtype=np.float32))


@given(rows, st.permutations(range(WIDTH)))
def test_columns_by_name_are_in_the_models_order(values: list[list[float]], order: list[int]) -> None:
    objects = [{COLUMNS[i]: row[i] for i in order} for row in values]
    lines = [",".join(COLUMNS[i] for i in order), *(",".join(repr(row[i]) for i in order) for row in values)]
    expected = np.array(values, dtype=np.float32)
    np.testing.assert_array_equal(
        read(MATRIX, json.dumps(objects).encode(), "application/json")["input"], expected
    )
    np.testing.assert_array_equal(read(MATRIX, "\n".join(lines).encode(), "text/csv")["input"], expected)


@given(rows, st.sampled_from(["\n", "\r\n"]), st.booleans())
def test_csv_is_read_as_it_was_written(values: list[list[float]], end: str, last: bool) -> None:
    text = end.join(",".join(map(repr, row)) for row in values) + (end if last else "")
    np.testing.assert_array_equal(
        read(MATRIX, text.encode(), "text/csv")["input"], np.array(values, dtype=np.float32)
    )


@given(rows)
def test_jsonlines_are_read_as_they_were_written(values: list[list[float]]) -> None:
    text = "\n".join(map(json.dumps, values))
    got = read(MATRIX, text.encode(), "application/jsonlines")["input"]
    np.testing.assert_array_equal(got, np.array(values, dtype=np.float32))


@given(
    hnp.arrays(
        st.sampled_from(["<f4", ">f8", "<i2", "|u1", "|b1"]), hnp.array_shapes(max_dims=3), fill=st.nothing()
    )
)
def test_npy_is_read_as_numpy_reads_it(array: np.ndarray) -> None:
    for order in ("C", "F"):
        file = io.BytesIO()
        np.save(file, np.asarray(array, order=order))
        np.testing.assert_array_equal(npy_array(file.getvalue()), np.load(io.BytesIO(file.getvalue())))


@given(st.sampled_from(READERS), st.sampled_from(sorted(DECODERS)), st.binary(max_size=300))
def test_no_bytes_are_worse_than_a_problem(reader: InputReader, content_type: str, body: bytes) -> None:
    try:
        arrays = read(reader, body, content_type)
    except ProblemError as problem:
        assert problem.status in (400, 415, 422)
    else:
        assert set(arrays) == {tensor.name for tensor in reader.signature.inputs}


@given(st.sampled_from(READERS), anything, st.sampled_from(["instances", "inputs", None]))
def test_no_json_is_worse_than_a_problem(reader: InputReader, value: object, key: str | None) -> None:
    body = json.dumps(value if key is None else {key: value}).encode()
    for content_type in ("application/json", "application/jsonlines"):
        try:
            arrays = read(reader, body, content_type)
        except ProblemError as problem:
            assert problem.status in (400, 422)
            continue
        for tensor in reader.signature.inputs:
            array = arrays[tensor.name]
            assert array.dtype == tensor.dtype
            assert len(array.shape) == len(tensor.shape)
            assert len(array) > 0


@given(st.sampled_from([MATRIX, TEXT, MIXED]), st.text(alphabet='ab1.,\n\r"; -e', max_size=40))
def test_no_csv_is_worse_than_a_problem(reader: InputReader, text: str) -> None:
    try:
        read(reader, text.encode(), "text/csv")
    except ProblemError as problem:
        assert problem.status in (400, 422)


@given(st.binary(max_size=200))
def test_no_npy_header_is_worse_than_a_problem(junk: bytes) -> None:
    for body in (b"\x93NUMPY\x01\x00" + len(junk).to_bytes(2, "little") + junk, b"\x93NUMPY" + junk):
        try:
            npy_array(body)
        except ProblemError as problem:
            assert problem.status in (400, 415)


def npy_file(header: str, data: bytes = b"") -> bytes:
    text = header.encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data


def npy_of(shape: str, data: bytes = b"", descr: str = "<f4") -> bytes:
    return npy_file(f"{{'descr': '{descr}', 'fortran_order': False, 'shape': ({shape})}}", data)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (npy_of("1," * 65, b"1234"), "more than 64 dimensions"),
        (npy_of(f"0, {10**30}"), "or one longer than"),
        (npy_of(f"{'9' * 4200}, {'9' * 4200}"), "or one longer than"),
        (npy_of(f"0, {1 << 40}, {1 << 40}"), "none that numpy takes"),
        (npy_file("-" * 9900 + "1"), "the npy header cannot be read"),
        (npy_of("1,", b"\xff\xff\xff\xff", "<U1"), "0xffffffff, which is no character"),
        (npy_of("2,", b"\0\0\0a\0\0\xd8\0", ">U1"), "0xd800, which is no character"),
    ],
    ids=["dimensions", "length", "digits", "empty but huge", "nameless", "code point", "surrogate"],
)
def test_an_npy_that_numpy_cannot_hold_is_malformed(body: bytes, message: str) -> None:
    with pytest.raises(ProblemError, match=message) as caught:
        read(TEXT, body, "application/x-npy")
    assert caught.value.status == 400


@pytest.mark.parametrize("descr", ["<U3", ">U3"])
def test_an_npy_of_texts_is_read(descr: str) -> None:
    file = io.BytesIO()
    np.save(file, np.array(["a", "\U0010ffff", "äöü"], descr))
    got = read(TEXT, file.getvalue(), "application/x-npy")["text"]
    assert got.tolist() == ["a", "\U0010ffff", "äöü"]


def test_an_npz_that_unpacks_to_more_than_it_may_is_refused() -> None:
    file = io.BytesIO()
    np.savez_compressed(file, input=np.zeros((1_000_000, WIDTH), np.float32))
    with pytest.raises(ProblemError, match="unpack"):
        read(MATRIX, file.getvalue(), "application/x-npz")


@given(hnp.arrays(np.float32, hnp.array_shapes(min_dims=1, max_dims=2, min_side=1), elements=floats))
def test_answers_say_the_same_in_every_media_type(array: np.ndarray) -> None:
    outputs = {"y": array}
    written = {media: encode(array, outputs) for media, encode in ENCODERS.items()}
    readings = [
        json.loads(written["application/json"])["predictions"],
        [json.loads(line) for line in written["application/jsonlines"].splitlines()],
        np.loadtxt(io.BytesIO(written["text/csv"]), delimiter=",", ndmin=array.ndim).reshape(array.shape),
        np.load(io.BytesIO(written["application/x-npy"])),
        np.load(io.BytesIO(written["application/x-npz"]))["y"],
    ]
    for reading in readings:
        np.testing.assert_array_equal(np.asarray(reading, dtype=np.float32), array)


def one_by_one(entries: np.ndarray) -> bytes:
    return b"".join(dumps(entry.copy()) + b"\n" for entry in entries)


@given(
    hnp.arrays(
        st.sampled_from(["<f4", "<f8", "<i2", "|b1"]),
        hnp.array_shapes(max_dims=4, min_side=0),
        fill=st.nothing(),
    ),
    st.sampled_from("CF"),
)
def test_jsonlines_written_at_once_are_as_those_written_one_by_one(array: np.ndarray, order: str) -> None:
    assert ENCODERS["application/jsonlines"](np.asarray(array, order=order), {}) == one_by_one(array)


def test_jsonlines_of_very_many_rows_take_far_less_than_a_call_a_row() -> None:
    entries = np.zeros((300_000, 2), np.float32)

    def seconds(write: Callable[[], bytes]) -> float:
        started = process_time()
        write()
        return process_time() - started

    at_once = min(seconds(lambda: ENCODERS["application/jsonlines"](entries, {})) for _ in range(3))
    assert at_once < min(seconds(lambda: one_by_one(entries)) for _ in range(3)) / 2


def test_answers_that_are_objects_have_a_line_each() -> None:
    entries = [{"label": "good", "score": 0.5}, {"label": "a, b", "score": 0.25}]
    assert ENCODERS["text/csv"](entries, {}) == b'good,0.5\n"a, b",0.25\n'
    assert ENCODERS["application/jsonlines"](entries, {}).count(b"\n") == 2
    with pytest.raises(ProblemError) as caught:
        ENCODERS["application/x-npy"](entries, {})
    assert caught.value.status == 406


def test_mixed_inputs_are_named_tensors() -> None:
    expected = {"age": [41, 7], "city": ["Bonn", "Rome"]}
    for body in (
        {"instances": [{"age": 41, "city": "Bonn"}, {"city": "Rome", "age": 7}]},
        {"instances": [[41, "Bonn"], [7, "Rome"]]},
        {"inputs": {"age": [41, 7], "city": ["Bonn", "Rome"]}},
        {"columns": ["city", "age"], "data": [["Bonn", 41], ["Rome", 7]]},
    ):
        got = read(MIXED, json.dumps(body).encode(), "application/json")
        assert {name: array.tolist() for name, array in got.items()} == expected
    got = read(MIXED, b"city,age\nBonn,41\nRome,7\n", "text/csv")
    assert {name: array.tolist() for name, array in got.items()} == expected


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"inputs": ["a", "b"]}, ["a", "b"]),
        ({"inputs": "a"}, ["a"]),
        ({"instances": [{"text": "a"}]}, ["a"]),
        (["a"], ["a"]),
    ],
)
def test_texts_may_be_sent_in_several_ways(body: object, expected: list[str]) -> None:
    assert read(TEXT, json.dumps(body).encode(), "application/json")["text"].tolist() == expected


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("[[1, 2, 3, 32768]]", "32768 is out of range for INT16"),
        ("[[1, 2, 3, 1.5]]", "must be a whole number, not 1.5"),
        ("[[1, 2, 3, null]]", "must be a number, not null"),
        ('[[1, 2, 3, "4"]]', "must be a number, not a string"),
    ],
)
def test_whole_numbers_are_checked_for_range_and_fraction(value: str, message: str) -> None:
    with pytest.raises(ProblemError) as caught:
        read(WHOLE, value.encode(), "application/json")
    assert message in caught.value.detail
    assert "input[3]" in caught.value.detail


def test_a_float_that_is_whole_is_a_whole_number() -> None:
    assert read(WHOLE, b"[[1.0, 2, 3, -4.0]]", "application/json")["input"].tolist() == [[1, 2, 3, -4]]


def test_nan_is_refused_where_the_policy_says_so() -> None:
    strict = InputReader(MATRIX.signature, nan=False)
    for body, content_type in ((b"[[1, 2, null, 4]]", "application/json"), (b"1,2,,4", "text/csv")):
        assert np.isnan(read(MATRIX, body, content_type)["input"][0, 2])
        with pytest.raises(ProblemError) as caught:
            read(strict, body, content_type)
        assert caught.value.errors[0].field == "c"


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", "application/json"),
        ("*/*", "application/json"),
        ("text/csv", "text/csv"),
        ("text/*", "text/csv"),
        ("application/x-ndjson", "application/jsonlines"),
        ("text/html, application/x-npy;q=0.2", "application/x-npy"),
        ("text/csv;q=0.1, application/json;q=0.9", "application/json"),
        ("text/csv;q=nonsense, application/json;q=0.1", "application/json"),
    ],
)
def test_accept_is_honoured(accept: str, expected: str) -> None:
    assert choose_answer(accept, "application/json") == expected


@given(st.text(max_size=50))
def test_no_header_is_worse_than_a_problem(text: str) -> None:
    parse_media(text)
    for content_type, accept in ((text, ""), ("application/json", text)):
        try:
            negotiate(content_type, accept)
        except ProblemError as problem:
            assert problem.status in (406, 415)


N = 200_000
HEAVY = {
    "very many columns": lambda: json.dumps({"columns": [str(i) for i in range(N)], "data": [[1]]}),
    "one column very many times": lambda: json.dumps({"columns": ["a"] * N, "data": [[1]]}),
    "very many keys in a row": lambda: json.dumps([{str(i): 1 for i in range(N)}]),
    "very many unknown inputs": lambda: json.dumps({"inputs": {str(i): 1 for i in range(N)}}),
    "very many empty rows": lambda: json.dumps([[]] * N),
    "very many rows that are none": lambda: json.dumps([1] * N),
    "very many split rows that are none": lambda: json.dumps({"columns": list(COLUMNS), "data": [1] * N}),
    "a row of very many": lambda: json.dumps([[1] * N]),
    "very many words": lambda: json.dumps([["a"] * WIDTH] * (N // WIDTH)),
    "a key of very many letters": lambda: json.dumps([{"a" * N: 1}]),
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", HEAVY)
@pytest.mark.parametrize("reader", [MATRIX, MIXED], ids=["matrix", "mixed"])
def test_a_heavy_body_is_refused_without_much_ado(reader: InputReader, name: str) -> None:
    with pytest.raises(ProblemError) as caught:
        read(reader, HEAVY[name]().encode(), "application/json")
    assert caught.value.status == 422
    assert len(caught.value.errors) <= 20
    assert len(json.dumps(caught.value.to_json("id"))) < 50_000


@pytest.mark.timeout(60)
@pytest.mark.parametrize("text", ["," * N, "\n" * N, "a," * N, '"' * N, "1\n" * N])
def test_a_heavy_csv_is_refused_without_much_ado(text: str) -> None:
    with pytest.raises(ProblemError):
        read(MATRIX, text.encode(), "text/csv")


@pytest.mark.parametrize(
    ("reader", "content_type", "body", "field", "row"),
    [
        (MATRIX, "application/json", b'{"instances": [[1, 2, 3, 4], [1, 2, true, 4]]}', "c", 1),
        (MATRIX, "application/json", b"[[false, 2, 3, 4]]", "a", 0),
        (MATRIX, "application/jsonlines", b"[1, 2, 3, true]\n", "d", 0),
        (WHOLE, "application/json", b'{"instances": [[1, 2, 3, true]]}', "input[3]", 0),
        (MIXED, "application/json", b'{"instances": [[true, "Oslo"]]}', "age", 0),
    ],
)
def test_true_is_not_a_number(
    reader: InputReader, content_type: str, body: bytes, field: str, row: int
) -> None:
    with pytest.raises(ProblemError) as refused:
        read(reader, body, content_type)
    [fault] = refused.value.errors
    assert (fault.field, fault.row) == (field, row)
    assert fault.message == "must be a number, not true or false"


def test_a_text_that_says_true_is_a_text() -> None:
    assert read(TEXT, b'["it is true"]', "application/json")["text"].tolist() == ["it is true"]
    assert read(MIXED, b'[[1, "false"]]', "application/json")["city"].tolist() == ["false"]


def test_a_model_of_booleans_takes_them() -> None:
    reader = InputReader(Signature((Tensor("switch", "BOOL", (-1,)),), ()))
    assert read(reader, b"[true, false, 1]", "application/json")["switch"].tolist() == [True, False, True]


@pytest.mark.parametrize("text", ["{'descr': 1+x}", "{'descr': __import__('os')}", "\x00", "{"])
def test_a_made_up_npy_header_is_refused_without_numpys_own_words(text: str) -> None:
    header = text.encode("latin-1").ljust(54) + b"\n"
    body = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
    with pytest.raises(ProblemError) as caught:
        npy_array(body)
    assert (caught.value.status, caught.value.detail) == (400, "the npy header cannot be read")
