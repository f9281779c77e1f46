"""POST /invocations over HTTP: what comes in by every media type comes back as the trainer predicted."""

from __future__ import annotations

import io
import json

import httpx
import numpy as np
import pytest
from support.model_server import ARTIFACTS, ModelServer, predictions

HOLDOUT = np.load(ARTIFACTS / "churn-xgboost" / "holdout.npy")
COLUMNS = (ARTIFACTS / "churn-xgboost" / "holdout.csv").read_text(encoding="utf-8").splitlines()[0].split(",")
EXPECTED = np.array(predictions("churn-xgboost"))
JSON = {"content-type": "application/json"}


def post(server: ModelServer, body: bytes | str, content_type: str, accept: str = "") -> httpx.Response:
    headers = {"content-type": content_type} | ({"accept": accept} if accept else {"accept": "*/*"})
    return httpx.post(f"{server.url}/invocations", content=body, headers=headers)


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


ROWS = HOLDOUT.tolist()
SHUFFLED = list(reversed(range(len(COLUMNS))))


@pytest.mark.parametrize(
    "body",
    [
        {"instances": ROWS},
        {"inputs": ROWS},
        ROWS,
        {"instances": [dict(zip(COLUMNS, row, strict=True)) for row in ROWS]},
        {"instances": [{COLUMNS[i]: row[i] for i in SHUFFLED} for row in ROWS]},
        {"columns": [COLUMNS[i] for i in SHUFFLED], "data": [[row[i] for i in SHUFFLED] for row in ROWS]},
        {"columns": COLUMNS, "data": ROWS, "index": list(range(len(ROWS)))},
    ],
    ids=[
        "instances",
        "inputs",
        "bare list",
        "objects",
        "objects in another order",
        "split, shuffled",
        "pandas split",
    ],
)
def test_json_in_every_form_gives_the_trainers_predictions(churn: ModelServer, body: object) -> None:
    answer = post(churn, json.dumps(body), "application/json")
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    np.testing.assert_allclose(answer.json()["predictions"], EXPECTED, rtol=1e-6)


def test_csv_without_a_header_is_answered_with_csv(churn: ModelServer) -> None:
    text = "\n".join(",".join(map(repr, row)) for row in ROWS)
    answer = post(churn, text, "text/csv")
    assert answer.headers["content-type"] == "text/csv"
    np.testing.assert_allclose(np.loadtxt(io.StringIO(answer.text), delimiter=","), EXPECTED, rtol=1e-6)


def test_csv_with_a_header_may_have_its_columns_in_any_order(churn: ModelServer) -> None:
    lines = [",".join(COLUMNS[i] for i in SHUFFLED)]
    lines += [",".join(repr(row[i]) for i in SHUFFLED) for row in ROWS]
    answer = post(churn, "\r\n".join(lines) + "\r\n", "text/csv; charset=utf-8", accept="application/json")
    np.testing.assert_allclose(answer.json()["predictions"], EXPECTED, rtol=1e-6)


def test_an_empty_csv_cell_is_a_missing_value(churn: ModelServer) -> None:
    row = ["" if i > 1 else repr(value) for i, value in enumerate(ROWS[0])]
    by_null = [None if i > 1 else value for i, value in enumerate(ROWS[0])]
    as_csv = post(churn, ",".join(row), "text/csv", accept="application/json").json()
    as_json = post(churn, json.dumps({"instances": [by_null]}), "application/json").json()
    assert as_csv == as_json
    assert as_csv["predictions"][0] != pytest.approx(EXPECTED[0].tolist(), rel=1e-6)


@pytest.mark.parametrize("dtype", ["<f4", "<f8", ">f4", ">f8", "<f2"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_npy_of_any_float_type_and_order_is_read(churn: ModelServer, dtype: str, order: str) -> None:
    array = np.asarray(HOLDOUT, dtype=dtype, order=order)
    answer = post(churn, npy(array), "application/x-npy")
    assert answer.headers["content-type"] == "application/json"
    same = post(churn, json.dumps({"instances": array.astype(np.float32).tolist()}), "application/json")
    assert answer.json() == same.json()


def test_npy_and_npz_come_back_where_accept_asks_for_them(churn: ModelServer) -> None:
    answer = post(churn, npy(HOLDOUT), "application/x-npy", accept="application/x-npy")
    np.testing.assert_allclose(np.load(io.BytesIO(answer.content)), EXPECTED, rtol=1e-6)
    file = io.BytesIO()
    np.savez_compressed(file, input=HOLDOUT)
    answer = post(churn, file.getvalue(), "application/x-npz", accept="application/x-npz")
    with np.load(io.BytesIO(answer.content)) as arrays:
        np.testing.assert_allclose(arrays["probabilities"], EXPECTED, rtol=1e-6)


def test_jsonlines_are_answered_with_jsonlines(churn: ModelServer) -> None:
    answer = post(churn, "\n".join(json.dumps({"features": row}) for row in ROWS), "application/jsonlines")
    assert answer.headers["content-type"] == "application/jsonlines"
    np.testing.assert_allclose([json.loads(line) for line in answer.text.splitlines()], EXPECTED, rtol=1e-6)


def test_accept_chooses_by_quality(churn: ModelServer) -> None:
    body = json.dumps({"instances": ROWS[:1]})
    answer = post(
        churn, body, "application/json", accept="text/html, text/csv;q=0.5, application/jsonlines;q=0.9"
    )
    assert answer.headers["content-type"] == "application/jsonlines"


def test_an_image_is_read_as_its_pixels(digits: ModelServer) -> None:
    picture = (ARTIFACTS / "digits-onnx" / "holdout.png").read_bytes()
    expected = predictions("digits-onnx")[0]
    for content_type in ("application/octet-stream", "image/png"):
        answer = post(digits, picture, content_type)
        assert answer.status_code == 200, answer.text
        [entry] = answer.json()["predictions"]
        assert int(np.argmax(entry)) == int(np.argmax(expected))
        np.testing.assert_allclose(entry, expected, atol=0.02)


def test_regression_entries_are_scalars(diabetes: ModelServer) -> None:
    rows = np.load(ARTIFACTS / "diabetes-sklearn" / "holdout.npy")
    answer = post(diabetes, json.dumps({"instances": rows.tolist()}), "application/json")
    np.testing.assert_allclose(answer.json()["predictions"], predictions("diabetes-sklearn"), rtol=1e-9)


def test_the_request_id_is_the_callers_or_a_new_one(churn: ModelServer) -> None:
    def ask(**headers: str) -> str:
        return httpx.get(f"{churn.url}/ping", headers=headers).headers["x-request-id"]

    assert ask(**{"x-request-id": "abc-123"}) == "abc-123"
    root = "1-67891233-abcdef012345678912345678"
    assert ask(**{"x-amzn-trace-id": f"Self=1-2-3;Root={root}"}) == root
    assert ask(**{"x-request-id": "x" * 200}) != "x" * 200
    assert ask() != ask()


# What cannot be answered: (body, content type, status, and what the answer must name)

ROW = ROWS[0]
J, CSV, NPY = "application/json", "text/csv", "application/x-npy"
FAULTS: dict[str, tuple[bytes | str, str, int, list[str]]] = {
    "too narrow": (json.dumps({"instances": [ROW[:-1]]}), J, 422, ["row 0", "30 values, not 29"]),
    "too wide": (json.dumps({"instances": [[*ROW, 1.0]]}), J, 422, ["row 0", "not 31"]),
    "ragged": (json.dumps({"instances": [ROW, ROW[:3], ROW]}), J, 422, ["row 1", "not 3"]),
    "ragged but of the right total": (
        json.dumps({"instances": [ROW[:-1], [*ROW, 1.0]]}),
        J,
        422,
        ["row 0", "not 29"],
    ),
    "a string": (
        json.dumps({"instances": [ROW, ["7", *ROW[1:]]]}),
        J,
        422,
        ["row 1", "mean_radius", "must be a number, not a string"],
    ),
    "an object for a number": (json.dumps({"instances": [[{}, *ROW[1:]]]}), J, 422, ["mean_radius"]),
    "a list for a number": (json.dumps({"instances": [[[1.0], *ROW[1:]]]}), J, 422, ["mean_radius"]),
    "an unknown column": (
        json.dumps({"instances": [dict(zip(COLUMNS, ROW, strict=True)) | {"shoe_size": 43}]}),
        J,
        422,
        ["row 0", "shoe_size", "is not a column"],
    ),
    "a missing column": (
        json.dumps({"instances": [dict(zip(COLUMNS[1:], ROW[1:], strict=True))]}),
        J,
        422,
        ["row 0", "mean_radius", "is missing"],
    ),
    "objects and lists mixed": (
        json.dumps({"instances": [dict(zip(COLUMNS, ROW, strict=True)), ROW]}),
        J,
        422,
        ["row 1"],
    ),
    "lists and objects mixed": (
        json.dumps({"instances": [ROW, dict(zip(COLUMNS, ROW, strict=True))]}),
        J,
        422,
        ["row 1"],
    ),
    "too large for FP32": (
        json.dumps({"instances": [ROW, [1e300, *ROW[1:]]]}),
        J,
        422,
        ["row 1", "mean_radius", "out of range for FP32"],
    ),
    "a huge integer": ('{"instances": [[' + "9" * 400 + "," + ",".join(["1"] * 29) + "]]}", J, 400, ["JSON"]),
    "a huge exponent": ('{"instances": [[1e999' + ",1" * 29 + "]]}", J, 400, ["JSON"]),
    "NaN in JSON": ('{"instances": [[NaN' + ",1" * 29 + "]]}", J, 400, ["JSON"]),
    "deep nesting": ("[" * 100_000, J, 400, ["JSON"]),
    "deep and closed": ("[" * 5_000 + "]" * 5_000, J, 400, ["JSON"]),
    "truncated": (json.dumps({"instances": [ROW]})[:-5], J, 400, ["JSON"]),
    "empty": ("", J, 400, ["empty"]),
    "not UTF-8": (b'{"instances": [["\xff\xfe"]]}', J, 400, ["JSON"]),
    "a bare number": ("7", J, 422, ["list of rows"]),
    "null": ("null", J, 422, ["list of rows"]),
    "no rows": ('{"instances": []}', J, 422, ["no rows"]),
    "rows that are no list": ('{"instances": "abc"}', J, 422, ["rows must be a list, not a string"]),
    "an unknown key": (json.dumps({"instances": [ROW], "instance": 1}), J, 422, ["instance"]),
    "neither instances nor inputs": ('{"rows": [[1]]}', J, 422, ["instances", "inputs"]),
    "parameters the engine has not": (
        json.dumps({"instances": [ROW], "parameters": {"top_k": 1}}),
        J,
        422,
        ["parameters.top_k", "xgboost"],
    ),
    "split with an unknown column": (
        json.dumps({"columns": [*COLUMNS[1:], "x"], "data": [ROW]}),
        J,
        422,
        ["'x'", "is not a column"],
    ),
    "split with a ragged row": (
        json.dumps({"columns": COLUMNS, "data": [ROW, ROW[1:]]}),
        J,
        422,
        ["row 1", "not 29"],
    ),
    "csv too narrow": ("1,2,3", CSV, 422, ["row 0", "30 values, not 3"]),
    "csv ragged": (",".join(["1"] * 30) + "\n1,2", CSV, 422, ["row 1", "not 2"]),
    "csv with a word": (",".join(["1"] * 29) + ",word", CSV, 422, ["row 0", "worst_fractal_dimension"]),
    "csv with brackets": ("[1]" + ",1" * 29, CSV, 422, ["row 0", "mean_radius"]),
    "csv with an unknown column": (
        ",".join([*COLUMNS[:-1], "x"]) + "\n" + ",".join(["1"] * 30),
        CSV,
        422,
        ["'x'", "is not a column"],
    ),
    "csv that is empty": ("\n\n", CSV, 400, ["empty"]),
    "csv that is not UTF-8": (b"\xff\xfe\x00", CSV, 400, ["UTF-8"]),
    "csv with an open quote": ('"1,2\n3', CSV, 400, ["CSV"]),
    "csv with infinity": ("inf" + ",1" * 29, CSV, 422, ["mean_radius", "must be a number"]),
    "jsonlines with a bad line": (json.dumps(ROW) + "\n[1,2", "application/jsonlines", 400, ["row 1"]),
    "npy cut short": (npy(HOLDOUT)[:-4], NPY, 400, ["bytes of data"]),
    "npy with more than it says": (npy(HOLDOUT) + b"0000", NPY, 400, ["bytes of data"]),
    "npy of the wrong width": (npy(HOLDOUT[:, :5]), NPY, 422, ["[-1, 30]", "[40, 5]"]),
    "npy of one dimension": (npy(HOLDOUT[0]), NPY, 422, ["[-1, 30]", "[30]"]),
    "npy of strings": (npy(np.full((1, 30), "a")), NPY, 422, ["FP32"]),
    "npy of complex numbers": (npy(np.zeros((1, 30), np.complex64)), NPY, 415, ["complex64"]),
    "npy of objects": (npy(np.full((1, 30), None)), NPY, 415, ["object"]),
    "npy with infinity": (npy(np.full((1, 30), np.inf)), NPY, 422, ["row 0", "infinite"]),
    "npy out of range": (npy(np.full((1, 30), 1e300)), NPY, 422, ["row 0", "out of range"]),
    "npy that is none": ("hello, world", NPY, 400, ["npy"]),
    "npy of a huge shape": (
        b"\x93NUMPY\x01\x00\x76\x00"
        + b"{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999, 30)}".ljust(118),
        NPY,
        400,
        ["bytes of data"],
    ),
    "npz that is none": ("hello, world", "application/x-npz", 400, ["npz"]),
    "an image where none is taken": (b"\x89PNG", "application/octet-stream", 415, ["takes no image"]),
    "an unknown media type": ("x", "text/html", 415, ["text/html", J]),
    "another charset": (
        json.dumps({"instances": [ROW]}),
        "application/json; charset=utf-16",
        415,
        ["utf-16"],
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_bad_body_is_refused_with_what_is_wrong_and_where(churn: ModelServer, name: str) -> None:
    body, content_type, status, named = FAULTS[name]
    answer = post(churn, body, content_type)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == status
    assert problem["instance"] == answer.headers["x-request-id"]
    for text in named:
        assert text in problem["detail"], problem


def test_every_fault_of_a_body_is_listed_up_to_a_bound(churn: ModelServer) -> None:
    rows = [["x"] * 30] * 2 + [[None] * 29 + ["y"]]
    errors = post(churn, json.dumps({"instances": rows}), "application/json").json()["errors"]
    assert errors[0] == {"field": "mean_radius", "row": 0, "message": "must be a number, not a string"}
    assert len(errors) == 20


def test_a_model_that_takes_no_missing_values_says_so(diabetes: ModelServer) -> None:
    row = np.load(ARTIFACTS / "diabetes-sklearn" / "holdout.npy")[0].tolist()
    for body, content_type in (
        (json.dumps({"instances": [row, [*row[:2], None, *row[3:]]]}), "application/json"),
        (npy(np.array([row, [*row[:2], np.nan, *row[3:]]])), "application/x-npy"),
    ):
        answer = post(diabetes, body, content_type)
        assert answer.status_code == 422, answer.text
        assert answer.json()["errors"][0]["field"] == "bmi"
        assert answer.json()["errors"][0]["row"] == 1


def test_accept_that_nothing_satisfies_is_406(churn: ModelServer) -> None:
    answer = post(churn, json.dumps({"instances": [ROW]}), "application/json", accept="text/html")
    assert answer.status_code == 406
    assert "text/csv" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/invocations", 405),
        ("POST", "/ping", 405),
        ("GET", "/nothing", 404),
        ("GET", "/v2/models/other", 404),
    ],
)
def test_an_unknown_route_is_a_problem(churn: ModelServer, method: str, path: str, status: int) -> None:
    answer = httpx.request(method, f"{churn.url}{path}")
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert ("allow" in answer.headers) is (status == 405)


def test_metrics_count_requests_by_route_and_status(churn: ModelServer) -> None:
    def count(status: int) -> float:
        text = httpx.get(f"{churn.url}/metrics").text
        wanted = f'model_server_requests_total{{route="/invocations",status="{status}"}}'
        return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(wanted))

    fine, wrong, rows = count(200), count(422), churn.metric("model_server_batch_rows_sum")
    post(churn, json.dumps({"instances": ROWS[:3]}), "application/json")
    post(churn, json.dumps({"instances": [[1]]}), "application/json")
    assert (count(200), count(422)) == (fine + 1, wrong + 1)
    assert churn.metric("model_server_batch_rows_sum") == rows + 3


def test_metrics_are_prometheus_text(churn: ModelServer) -> None:
    from prometheus_client.parser import text_string_to_metric_families

    families = {
        family.name: family
        for family in text_string_to_metric_families(httpx.get(f"{churn.url}/metrics").text)
    }
    for name in ("requests", "request_seconds", "batch_rows", "queue_depth", "model_load_seconds"):
        assert f"model_server_{name}" in families
    assert families["model_server_model_load_seconds"].samples[0].value > 0
