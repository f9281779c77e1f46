"""A user's own inference.py, as SageMaker's examples write them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from model_server.engines import choose
from model_server.engines.script import Script, load
from model_server.problems import ModelRefusedError, ProblemError
from model_server.settings import Settings
from support.model_server import ModelServer

# The shape of the scikit-learn script in SageMaker's documentation.
SKLEARN_SCRIPT = """
import json
import os
import joblib
import numpy as np
from io import StringIO

def model_fn(model_dir):
    return joblib.load(os.path.join(model_dir, "model.joblib"))

def input_fn(request_body, request_content_type):
    if request_content_type == "text/csv":
        return np.loadtxt(StringIO(request_body), delimiter=",", ndmin=2)
    if request_content_type == "application/json":
        return np.array(json.loads(request_body)["rows"])
    raise ValueError("This model only supports text/csv and application/json input")

def predict_fn(input_data, model):
    return model.predict(input_data)

def output_fn(prediction, accept):
    if accept == "text/csv":
        return ",".join(str(x) for x in prediction), accept
    return json.dumps({"prices": prediction.tolist()})
"""


def write(folder: Path, text: str, name: str = "inference.py") -> Path:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text, encoding="utf-8")
    return folder


def script(folder: Path, text: str) -> Script:
    engine = load(write(folder, text), Settings(model_name="m", trust_code=True))
    assert isinstance(engine, Script)
    return engine


# One that leans on SageMaker's own inference toolkit.
TOOLKIT_SCRIPT = """
from sagemaker_inference import decoder, encoder, errors

def model_fn(model_dir):
    return 10.0

def input_fn(input_data, content_type):
    return decoder.decode(input_data, content_type)

def predict_fn(data, model):
    if data.min() < 0:
        raise errors.GenericInferenceToolkitError(422, "ages are never negative")
    return data * model

def output_fn(prediction, accept):
    return encoder.encode(prediction, accept)
"""


def test_a_sagemaker_script_works_unchanged_over_http(
    start: Callable[..., ModelServer], tmp_path: Path
) -> None:
    import joblib
    import numpy as np
    from sklearn.linear_model import LinearRegression

    rows = np.arange(6.0).reshape(3, 2)
    model = LinearRegression().fit(rows, [1.0, 2.0, 3.0])
    joblib.dump(model, tmp_path / "model.joblib")
    write(tmp_path, SKLEARN_SCRIPT, "code/inference.py")
    expected = model.predict(rows).tolist()
    server = start(tmp_path)

    def post(body: str, content_type: str, accept: str = "application/json") -> httpx.Response:
        headers = {"content-type": content_type, "accept": accept}
        return httpx.post(f"{server.url}/invocations", content=body, headers=headers)

    answer = post(json.dumps({"rows": rows.tolist()}), "application/json")
    assert answer.json()["prices"] == pytest.approx(expected)
    assert answer.headers["content-type"] == "application/json"
    answer = post("0,1\n2,3\n4,5\n", "text/csv", "text/csv")
    assert [float(value) for value in answer.text.split(",")] == pytest.approx(expected)
    assert answer.headers["content-type"] == "text/csv"
    answer = post("<rows/>", "application/xml")
    assert answer.status_code == 400
    assert "only supports text/csv" in answer.json()["detail"]
    assert post("{", "application/json").status_code == 400
    answer = post(
        json.dumps({"rows": [[1.0]]}), "application/json"
    )  # predict_fn fails: the script's own fault
    assert answer.status_code == 500
    assert "Traceback" not in answer.text
    failure = next(line for line in server.log() if line["message"] == "the model failed on a request")
    assert failure["request_id"] == answer.headers["x-request-id"]
    assert "predict_fn" in failure["traceback"]
    assert httpx.get(f"{server.url}/v2/models/model").status_code == 404
    assert "/invocations" in httpx.get(f"{server.url}/openapi.json").json()["paths"]


def test_functions_that_are_left_out_do_as_the_toolkits_defaults(tmp_path: Path) -> None:
    engine = script(tmp_path, "def model_fn(d): return lambda rows: rows.sum(axis=-1)")
    assert engine.invoke(b"[[1, 2], [3, 4]]", "application/json", "*/*") == (b"[3,7]", "application/json")
    assert engine.invoke(b"1,2\n3,4\n", "text/csv", "text/csv") == (b"3.0\n7.0\n", "text/csv")
    with pytest.raises(ProblemError) as caught:
        engine.invoke(b"x", "text/html", "*/*")
    assert caught.value.status == 415


@pytest.mark.parametrize("body", [b"[[1, 2], [3]]", b"[" * 100 + b"]" * 100], ids=["ragged", "too deep"])
def test_json_that_is_not_one_array_is_the_callers_fault(tmp_path: Path, body: bytes) -> None:
    engine = script(tmp_path, "def model_fn(d): return lambda rows: rows")
    with pytest.raises(ProblemError, match="the body is not one array") as caught:
        engine.invoke(body, "application/json", "*/*")
    assert caught.value.status == 400


# Whatever input_fn and transform_fn are given, as text: the body's type and the two media types.
ECHO = {
    "input_fn": "def model_fn(d): return None\n"
    "def input_fn(body, kind): return f'{type(body).__name__} {kind}'\n"
    "def predict_fn(data, model): return data\n"
    "def output_fn(data, accept): return f'{data} {accept}'\n",
    "transform_fn": "def model_fn(d): return None\n"
    "def transform_fn(m, body, kind, accept): return f'{type(body).__name__} {kind} {accept}'\n",
}


@pytest.mark.parametrize("function", ECHO)
def test_a_script_is_given_what_sagemakers_toolkit_would_give_it(
    tmp_path: Path, function: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sagemaker_inference.transformer import Transformer

    monkeypatch.syspath_prepend(write(tmp_path, ECHO[function], f"echo_{function}.py"))
    monkeypatch.setenv("SAGEMAKER_PROGRAM", f"echo_{function}.py")
    engine, toolkit = script(tmp_path, ECHO[function]), Transformer()

    class Context:
        """What the toolkit sees of a request."""

        def __init__(self, **properties: str) -> None:
            self.system_properties = {"model_dir": str(tmp_path)}
            self.request_processor = [self]
            self.get_request_properties = lambda: properties

        def set_response_content_type(self, *_: object) -> None: ...

    for kind in ("application/json", "text/csv", "text/plain", "application/jsonlines", "text/csv; header=x"):
        for accept in ("", "*/*", "text/csv", "text/html, */*"):
            context = Context(**{"Content-Type": kind, "Accept": accept})
            (expected,) = toolkit.transform([{"body": b"[1]"}], context)
            assert engine.invoke(b"[1]", kind, accept)[0].decode() == expected


def test_the_default_accept_is_sagemakers_own_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT", "text/csv")
    engine = script(tmp_path, "def model_fn(d): return lambda rows: rows")
    assert engine.invoke(b"[1, 2]", "application/json", "*/*") == (b"1\n2\n", "text/csv")
    assert engine.invoke(b"[1, 2]", "application/json", "application/json")[0] == b"[1,2]"


@pytest.mark.parametrize("function", ECHO)
def test_a_text_that_is_not_utf8_is_refused_before_the_script(tmp_path: Path, function: str) -> None:
    engine = script(tmp_path, ECHO[function])
    with pytest.raises(ProblemError, match="not UTF-8: byte 1") as caught:
        engine.invoke(b"1\xff", "text/csv", "*/*")
    assert caught.value.status == 400


def test_transform_fn_does_it_all(tmp_path: Path) -> None:
    engine = script(
        tmp_path,
        "def model_fn(d): return 'm'\ndef transform_fn(m, body, kind, a): return m + body.decode(), kind",
    )
    assert engine.invoke(b"-x", "text/plain", "*/*") == (b"m-x", "text/plain")


def test_a_context_argument_is_given(tmp_path: Path) -> None:
    engine = script(
        tmp_path,
        "def model_fn(model_dir, context): return context\n"
        "def input_fn(body, kind, context=7): return context\n"
        "def predict_fn(data, model, context): return [data, model, context]\n",
    )
    assert engine.invoke(b"x", "text/plain", "*/*")[0] == b"[7,null,null]"


def test_a_script_beside_weights_is_what_is_meant(tmp_path: Path) -> None:
    write(tmp_path, "def model_fn(d): return None", "code/inference.py")
    (tmp_path / "model.onnx").write_bytes(b"")
    assert choose(tmp_path).ENGINE == "script"


def test_a_script_runs_only_where_it_is_trusted(tmp_path: Path) -> None:
    canary = tmp_path / "ran"
    folder = write(tmp_path, f"open({str(canary)!r}, 'w')")
    with pytest.raises(ModelRefusedError, match="MODEL_SERVER_TRUST_CODE=true"):
        load(folder, Settings(model_name="m"))
    assert not canary.exists()


def test_neighbours_of_the_script_can_be_imported(tmp_path: Path) -> None:
    write(tmp_path, "ANSWER = 42", "code/neighbour_of_the_script.py")
    folder = write(
        tmp_path, "import neighbour_of_the_script as n\ndef model_fn(d): return n.ANSWER", "code/inference.py"
    )
    engine = load(folder, Settings(model_name="m", trust_code=True))
    assert isinstance(engine, Script)
    assert engine.model == 42


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def predict_fn(data, model): return data", "has no model_fn"),
        ("import nothing_of_that_name", "ModuleNotFoundError"),
        ("def model_fn(d): raise OSError('no weights')", "model_fn failed: OSError: no weights"),
        ("def model_fn(d) return", "SyntaxError"),
    ],
)
def test_a_script_that_cannot_start_is_one_clear_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ModelRefusedError, match=message):
        script(tmp_path, text)


def test_a_script_may_use_sagemakers_inference_toolkit(tmp_path: Path) -> None:
    engine = script(tmp_path, TOOLKIT_SCRIPT)
    assert engine.invoke(b"[[1, 2]]", "application/json", "*/*")[0] == b"[[10.0, 20.0]]"
    assert engine.invoke(b"1,2", "text/csv", "text/csv") == (b"10.0\n20.0\n", "text/csv")
    for body, content_type, accept, status, detail in [
        (b"<rows/>", "application/xml", "*/*", 415, "input_fn does not read application/xml"),
        (b"[[1, 2]]", "application/json", "application/xml", 406, "output_fn does not write application/xml"),
        (b"[[1, -2]]", "application/json", "*/*", 422, "ages are never negative"),
    ]:
        with pytest.raises(ProblemError) as raised:
            engine.invoke(body, content_type, accept)
        assert (raised.value.status, raised.value.detail) == (status, detail)
