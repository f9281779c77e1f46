"""The Open Inference Protocol by Triton's own client, in JSON and in binary, and by hand for its abuse."""

from __future__ import annotations

import json
import struct
from typing import Any

import httpx
import numpy as np
import pytest
from support.model_server import ARTIFACTS, ModelServer, predictions
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException

ROWS = np.load(ARTIFACTS / "digits-onnx" / "holdout.npy")
EXPECTED = np.array(predictions("digits-onnx"))


@pytest.fixture
def client(digits: ModelServer) -> Any:
    with InferenceServerClient(f"127.0.0.1:{digits.port}") as client:
        yield client


def test_the_client_finds_server_and_model(client: InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("digits")
    assert client.is_model_ready("digits", "1")
    assert not client.is_model_ready("another")
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    metadata = client.get_model_metadata("digits")
    assert metadata["platform"] == "onnxruntime_onnx"
    assert [(item["name"], item["datatype"], item["shape"]) for item in metadata["inputs"]] == [
        ("X", "FP32", [-1, 64])
    ]
    assert [item["name"] for item in metadata["outputs"]] == ["label", "probabilities"]


@pytest.mark.parametrize("sent", ["json", "binary"])
@pytest.mark.parametrize("received", ["json", "binary"])
def test_infer_gives_the_trainers_predictions(
    client: InferenceServerClient, sent: str, received: str
) -> None:
    tensor = InferInput("X", list(ROWS.shape), "FP32")
    tensor.set_data_from_numpy(ROWS.astype(np.float32), binary_data=sent == "binary")
    outputs = [
        InferRequestedOutput(name, binary_data=received == "binary") for name in ("probabilities", "label")
    ]
    result = client.infer("digits", [tensor], outputs=outputs, request_id="seven")
    np.testing.assert_allclose(result.as_numpy("probabilities"), EXPECTED, rtol=1e-5, atol=1e-8)
    np.testing.assert_array_equal(result.as_numpy("label"), EXPECTED.argmax(axis=1))
    assert result.get_response()["id"] == "seven"


def test_outputs_are_all_given_where_none_is_named(client: InferenceServerClient) -> None:
    tensor = InferInput("X", [1, 64], "FP32")
    tensor.set_data_from_numpy(ROWS[:1].astype(np.float32))
    result = client.infer("digits", [tensor])
    assert result.as_numpy("label").shape == (1,)
    assert result.as_numpy("probabilities").shape == (1, 10)


def test_another_float_type_is_taken(client: InferenceServerClient) -> None:
    tensor = InferInput("X", list(ROWS.shape), "FP64")
    tensor.set_data_from_numpy(ROWS.astype(np.float64))
    result = client.infer("digits", [tensor])
    np.testing.assert_allclose(result.as_numpy("probabilities"), EXPECTED, rtol=1e-5, atol=1e-8)


def test_a_wrong_shape_reaches_the_client_as_an_error(client: InferenceServerClient) -> None:
    tensor = InferInput("X", [1, 3], "FP32")
    tensor.set_data_from_numpy(np.zeros((1, 3), np.float32))
    with pytest.raises(InferenceServerException) as caught:
        client.infer("digits", [tensor])
    assert "[-1, 64]" in str(caught.value.debug_details()) + str(caught.value)


def infer(server: ModelServer, body: object, binary: bytes = b"", **headers: str) -> httpx.Response:
    head = json.dumps(body).encode()
    extra = {"inference-header-content-length": str(len(head))} if binary else {}
    content_type = "application/octet-stream" if binary else "application/json"
    return httpx.post(
        f"{server.url}/v2/models/digits/infer",
        content=head + binary,
        headers={"content-type": content_type} | extra | headers,
    )


def tensor(**changes: Any) -> dict[str, Any]:
    return {"name": "X", "shape": [1, 64], "datatype": "FP32", "data": ROWS[0].tolist()} | changes


def test_nested_data_is_as_good_as_flat(digits: ModelServer) -> None:
    flat = infer(digits, {"inputs": [tensor()]})
    nested = infer(digits, {"inputs": [tensor(data=[ROWS[0].tolist()])]})
    assert flat.status_code == 200
    assert flat.json()["outputs"] == nested.json()["outputs"]


FAULTS: dict[str, tuple[Any, int, str]] = {
    "no inputs": ({}, 422, "inputs"),
    "inputs that are no list": ({"inputs": {}}, 422, "inputs"),
    "an unknown input": ({"inputs": [tensor(name="Y")]}, 422, "not an input"),
    "an input twice": ({"inputs": [tensor(), tensor()]}, 422, "twice"),
    "a name that is no string": ({"inputs": [tensor(name=[1])]}, 422, "not an input"),
    "an unknown datatype": ({"inputs": [tensor(datatype="FP8")]}, 422, "FP8"),
    "a datatype that is no text": ({"inputs": [tensor(datatype={})]}, 422, "is not one of"),
    "strings for numbers": ({"inputs": [tensor(datatype="BYTES", data=["a"] * 64)]}, 422, "must be FP32"),
    "too few values": ({"inputs": [tensor(data=[1.0])]}, 422, "1 values, but shape [1, 64] has 64"),
    "a negative size": ({"inputs": [tensor(shape=[-1, 64])]}, 422, "shape"),
    "a huge shape": ({"inputs": [tensor(shape=[10**18, 64])]}, 422, "shape"),
    "a large shape": ({"inputs": [tensor(shape=[10**11, 64])]}, 422, "values"),
    "a wrong rank": ({"inputs": [tensor(shape=[64])]}, 422, "[-1, 64]"),
    "no rows": ({"inputs": [tensor(shape=[0, 64], data=[])]}, 422, "no rows"),
    "no data": ({"inputs": [tensor(data=None)]}, 422, "data must be a list"),
    "a string among the data": ({"inputs": [tensor(data=["1", *ROWS[0].tolist()[1:]])]}, 422, "pixel_0_0"),
    "an unknown output": ({"inputs": [tensor()], "outputs": [{"name": "Z"}]}, 422, "not an output"),
    "the classification extension": (
        {"inputs": [tensor()], "outputs": [{"name": "label", "parameters": {"classification": 2}}]},
        422,
        "classification",
    ),
    "a size too large": ({"inputs": [tensor(parameters={"binary_data_size": 256})]}, 400, "binary_data_size"),
    "an id that is no string": ({"inputs": [tensor()], "id": 7}, 422, "id"),
    "parameters it has not": ({"inputs": [tensor()], "parameters": {"seed": 1}}, 422, "seed"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_bad_request_says_what_is_wrong(digits: ModelServer, name: str) -> None:
    body, status, named = FAULTS[name]
    answer = infer(digits, body)
    assert answer.status_code == status, answer.text
    assert named in answer.json()["detail"]


@pytest.mark.parametrize(
    ("declared", "sent", "named"),
    [
        (256, 255, "binary_data_size"),
        (255, 255, "256 bytes"),
        (256, 260, "belong to no input"),
        (-1, 256, "binary_data_size"),
    ],
)
def test_binary_sizes_must_add_up(digits: ModelServer, declared: int, sent: int, named: str) -> None:
    item = {"name": "X", "shape": [1, 64], "datatype": "FP32", "parameters": {"binary_data_size": declared}}
    answer = infer(digits, {"inputs": [item]}, b"\0" * sent)
    assert answer.status_code == 400
    assert named in answer.json()["detail"]


@pytest.mark.parametrize("length", ["-1", "x", "99999", "9" * 30])
def test_a_wrong_header_length_is_400(digits: ModelServer, length: str) -> None:
    answer = infer(digits, {"inputs": [tensor()]}, **{"inference-header-content-length": length})
    assert answer.status_code == 400
    assert "Inference-Header-Content-Length" in answer.json()["detail"]


def test_infinity_in_binary_is_refused(digits: ModelServer) -> None:
    item = {"name": "X", "shape": [1, 64], "datatype": "FP32", "parameters": {"binary_data_size": 256}}
    answer = infer(digits, {"inputs": [item]}, struct.pack("<64f", *[0.0] * 63, float("inf")))
    assert answer.status_code == 422
    assert answer.json()["errors"] == [{"field": "pixel_7_7", "row": 0, "message": "is infinite"}]
