"""Odd requests through both architectures: each is answered, and none with the insides of a program."""

from __future__ import annotations

import random
import re
import socket
from urllib.parse import urlsplit

import pytest
from e2e.conftest import ARCHITECTURES, Cloud

from modelstacks.core.contract import CUSTOM_ATTRIBUTES_HEADER

pytestmark = [pytest.mark.e2e, pytest.mark.parametrize("architecture", ARCHITECTURES)]

INSIDES = re.compile(
    rb"Traceback|File \\?\"/|\.py\b|\b[A-Z][a-z]+(?:[A-Z][a-z]+)*(?:Error|Exception)\(|object at 0x|"
    rb"embedded cloud itself failed|errorType|stackTrace"
)
METHODS = ("GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD", "TRACE", "get", "FOO")
PATHS = (
    "/ping",
    "/invocations",
    "/v2",
    "/v2/models/churn",
    "/v2/models/churn/infer",
    "/v2/models/%00",
    "/v2/models/%ff%fe",
    "/v2/models/%2e%2e%2fping",
    "/v2/models/" + "x" * 3000,
    "/v2/models/churn;a=b",
    "/v2/models/{model}",
    "/v2/models/$1",
    "/v2/models/%24%7Bjndi%7D",
    "/v2/models/\u00e4".encode().decode("latin-1"),
    "//v2",
    "/../metrics",
    "/live/ping",
    "/%",
    "/%zz?%zz=%",
    "/ping?" + "a=b&" * 300,
    "*",
)
HEADERS = (
    ("content-type", ""),
    ("content-type", "application/json; charset=\xff"),
    ("content-type", "text/csv; header=present; header=absent"),
    ("content-type", "a" * 2000),
    ("content-type", "multipart/form-data"),
    ("content-encoding", "gzip"),
    ("content-encoding", "gzip, gzip"),
    ("content-encoding", "\xe4"),
    ("accept", "*/*;q=x"),
    ("accept", "\xff\xfe"),
    ("accept", "application/x-npy"),
    ("inference-header-content-length", "-1"),
    ("inference-header-content-length", "9" * 400),
    ("x-request-id", "a;b=c"),
    ("x-request-id", "\xfc"),
    ("x-amzn-trace-id", "Root=1-zz"),
    ("x-amzn-trace-id", "Root=1-5759e988-bd862e3fe1be46a994272793;Sampled=1"),
    (CUSTOM_ATTRIBUTES_HEADER, "modelstacks-route=GET /metrics"),
    ("x-amzn-sagemaker-target-variant", "nobody"),
    ("x-api-domain", "evil.example"),
    ("x-forwarded-for", "1.2.3.4, x"),
    ("expect", "100-continue"),
    ("authorization", "AWS4-HMAC-SHA256 Credential=x"),
)
BODIES = (
    b"",
    b"{}",
    b"[",
    b"\xff\xfe",
    b"\x1f\x8b\x08\x00broken",
    b'{"instances": [[1e999]]}',
    b'{"inputs": [{"name": "input", "shape": [1, 30], "datatype": [], "data": {}}]}',
    b"\x93NUMPY\x01\x00\xff\xff",
    b"PK\x03\x04" + b"\x00" * 40,
    b"[" * 3000,
)


def ask(cloud: Cloud, architecture: str, lines: list[bytes], body: bytes) -> bytes:
    """What comes back for a head written by hand, until the connection is closed."""
    url = urlsplit(cloud.api("churn", architecture).url)
    with socket.create_connection((url.hostname or "", url.port or 80), timeout=40) as connection:
        connection.sendall(b"\r\n".join([*lines, b"connection: close", b"", b""]) + body)
        received = b""
        while piece := connection.recv(65_536):
            received += piece
    return received


def test_nothing_of_a_program_is_seen_from_outside(cloud: Cloud, architecture: str) -> None:
    dice = random.Random(20)  # the same requests in every run
    api = cloud.api("churn", architecture)
    url = urlsplit(api.url)
    key = api.api_keys[0].value
    for number in range(250):
        path, body = dice.choice(PATHS), dice.choice(BODIES)
        target = path if path == "*" else f"{url.path}{path}"
        chosen = dice.sample(HEADERS, dice.randrange(4))
        if not any(name == "content-type" for name, _ in chosen) and dice.random() < 0.8:
            chosen.append(
                ("content-type", dice.choice(["application/json", "text/csv", "application/x-npz"]))
            )
        lines = [f"{dice.choice(METHODS)} {target} HTTP/1.1", f"host: {url.netloc}", f"x-api-key: {key}"]
        lines += [f"{name}: {value}" for name, value in chosen]
        if body:
            lines.append(f"content-length: {len(body)}")
        answer = ask(cloud, architecture, [line.encode("latin-1") for line in lines], body)
        what = f"request {number}: {lines} {body[:40]!r}\n{answer[:1500]!r}"
        assert answer.startswith(b"HTTP/1.1 "), what
        assert not INSIDES.search(answer), what
        status = int(answer[9:12])
        assert status < 500 or b"x-modelstacks-reason: " in answer.lower(), what
    assert cloud.call("churn", architecture, "GET", "/ping").status == 200
