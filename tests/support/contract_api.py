"""An API that keeps the contract, over real HTTP, whose answers a test can break one by one."""

from __future__ import annotations

import gzip
import json
import struct
from collections.abc import Callable
from dataclasses import dataclass, field

KEY = "the-key-of-twenty-characters"
LIMIT = 100_000


@dataclass
class Reply:
    """An answer: status, body, headers."""

    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=lambda: {"content-type": "application/json"})


@dataclass(frozen=True)
class Asked:
    """A request as the API received it."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


Break = Callable[[Asked, Reply], Reply]


def unbroken(_asked: Asked, reply: Reply) -> Reply:
    return reply


def problem(status: int, detail: str = "no") -> Reply:
    document = {"type": "about:blank", "title": "No", "status": status, "detail": detail, "instance": "r-1"}
    return Reply(status, json.dumps(document).encode(), {"content-type": "application/problem+json"})


@dataclass
class Contract:
    """The model answers each row with its sum. `broken` changes an answer on its way out."""

    url: str = ""
    broken: Break = unbroken

    def answer(self, asked: Asked) -> Reply:
        if asked.headers.get("x-api-key") != KEY:
            return problem(403)
        if asked.method == "GET":
            return self._get(asked.path.removeprefix("/live"))
        if asked.path.endswith("/infer"):
            return self._infer(asked)
        return self._invoke(asked)

    def _get(self, path: str) -> Reply:
        if path == "/openapi.json":
            document = {
                "servers": [{"url": self.url}],
                "paths": {"/invocations": {}},
                "components": {"securitySchemes": {"key": {"type": "apiKey"}}},
            }
            return Reply(200, json.dumps(document).encode())
        if path == "/v2/models/sums":
            return Reply(200, json.dumps({"inputs": [{"name": "input", "datatype": "FP32"}]}).encode())
        known = ("/ping", "/v2", "/v2/health/live", "/v2/health/ready", "/v2/models/sums/ready")
        if path in known:
            return Reply(200, b"{}")
        return problem(404 if path.startswith("/v2/models/") else 403)

    def _invoke(self, asked: Asked) -> Reply:
        kind = asked.headers.get("content-type")
        body = gzip.decompress(asked.body) if asked.headers.get("content-encoding") == "gzip" else asked.body
        if kind is None:
            return problem(400)
        if len(body) > LIMIT:
            return problem(413)
        if kind == "text/csv":
            rows = [[float(cell) for cell in line.split(",")] for line in body.decode().splitlines()[1:]]
            text = "".join(f"{sum(row)}\n" for row in rows)
            return Reply(200, text.encode(), {"content-type": "text/csv"})
        if kind != "application/json":
            return problem(415)
        try:
            rows = json.loads(body)["instances"]
        except ValueError:
            return problem(400)
        except KeyError:
            return problem(422)
        return Reply(200, json.dumps({"predictions": [sum(row) for row in rows]}).encode())

    def _infer(self, asked: Asked) -> Reply:
        length = int(asked.headers.get("inference-header-content-length", len(asked.body)))
        tensor = json.loads(asked.body[:length])["inputs"][0]
        count, width = tensor["shape"]
        binary = asked.body[length:]
        data = struct.unpack(f"<{count * width}f", binary) if binary else tensor["data"]
        sums = [sum(data[i * width : (i + 1) * width]) for i in range(count)]
        return Reply(200, json.dumps({"outputs": [{"name": "sums", "data": sums}]}).encode())
