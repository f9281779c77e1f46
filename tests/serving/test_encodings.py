"""gzip bodies are read like plain ones, within the same limit; other encodings are refused."""

from __future__ import annotations

import gzip
import json
import zlib

import httpx
import numpy as np
import pytest
from model_server.encodings import MAX_MEMBERS, decoded
from model_server.problems import ProblemError
from support.model_server import ARTIFACTS, ModelServer

ROWS = np.load(ARTIFACTS / "churn-xgboost" / "holdout.npy").tolist()
BODY = json.dumps({"instances": ROWS}).encode()
JSON = {"content-type": "application/json"}


def post(server: ModelServer, body: bytes, encoding: str, path: str = "/invocations") -> httpx.Response:
    return httpx.post(f"{server.url}{path}", content=body, headers=JSON | {"content-encoding": encoding})


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "x-gzip"])
def test_a_gzip_body_is_answered_as_the_plain_one_is(churn: ModelServer, encoding: str) -> None:
    plain = httpx.post(f"{churn.url}/invocations", content=BODY, headers=JSON)
    for _ in range(2):  # the second one's head is known
        packed = post(churn, gzip.compress(BODY), encoding)
        assert (packed.status_code, packed.content) == (200, plain.content)


def test_tensors_of_the_open_inference_protocol_may_be_compressed(churn: ModelServer) -> None:
    data = [value for row in ROWS for value in row]
    tensor = {"name": "input", "datatype": "FP32", "shape": [len(ROWS), len(ROWS[0])], "data": data}
    body = gzip.compress(json.dumps({"inputs": [tensor]}).encode())
    assert post(churn, body, "gzip", "/v2/models/churn/infer").status_code == 200


@pytest.mark.parametrize("encoding", ["br", "deflate", "gzip, gzip", "zstd"])
def test_other_encodings_are_refused_with_the_one_that_is_read(churn: ModelServer, encoding: str) -> None:
    answer = post(churn, BODY, encoding)
    assert answer.status_code == 415
    assert answer.headers["accept-encoding"] == "gzip"
    assert "allowed: gzip, identity" in answer.json()["detail"]


@pytest.mark.parametrize(
    "body",
    [gzip.compress(BODY)[:-20], gzip.compress(BODY) + b"more", b"\x1f\x8b" + zlib.compress(BODY)],
    ids=["cut short", "with something behind it", "zlib"],
)
def test_what_is_not_gzip_is_malformed(churn: ModelServer, body: bytes) -> None:
    answer = post(churn, body, "gzip")
    assert answer.status_code == 400
    assert "not gzip" in answer.json()["detail"]


def test_a_body_that_api_gateway_has_decompressed_is_read_though_the_header_stayed(
    churn: ModelServer,
) -> None:
    assert post(churn, BODY, "gzip").status_code == 200
    assert post(churn, zlib.compress(BODY), "gzip").status_code == 400


def test_members_and_pieces_end_anywhere() -> None:
    parts = [bytes([number % 256]) * (number * 997) for number in range(1, 60)]
    packed = b"".join(gzip.compress(part, 0, mtime=0) for part in parts)
    assert decoded(packed, 1 << 22) == b"".join(parts)


def test_several_members_are_one_body() -> None:
    assert decoded(gzip.compress(b"one ") + gzip.compress(b"two"), 100) == b"one two"


def test_the_limit_is_that_of_the_content() -> None:
    assert len(decoded(gzip.compress(b"x" * 1000), 1000)) == 1000
    with pytest.raises(ProblemError) as refused:
        decoded(gzip.compress(b"x" * 1001), 1000)
    assert refused.value.status == 413
    with pytest.raises(ProblemError) as bomb:
        decoded(gzip.compress(bytes(64 << 20)), 1000)
    assert bomb.value.status == 413


def test_a_row_of_empty_members_is_refused() -> None:
    with pytest.raises(ProblemError, match=f"more than {MAX_MEMBERS} gzip members"):
        decoded(gzip.compress(b"") * (MAX_MEMBERS + 1), 1000)
