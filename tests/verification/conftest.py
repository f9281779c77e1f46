"""A deployment to verify: an API that keeps the contract, over real HTTP."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from support.command_line import ROOT
from support.contract_api import KEY, LIMIT, Asked, Contract

from modelstacks.adapters.deployed_api import DeployedApi
from modelstacks.core.plan import Plan
from modelstacks.core.plan.deployments import load_plans
from modelstacks.verification.rows import read_rows
from modelstacks.verification.subject import Subject


@pytest.fixture
def contract() -> Iterator[Contract]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            length = int(self.headers.get("content-length", 0))
            headers = {key.lower(): value for key, value in self.headers.items()}
            asked = Asked(self.command, self.path, headers, self.rfile.read(length))
            reply = made.broken(asked, made.answer(asked))
            reply.headers.setdefault("x-request-id", headers.get("x-request-id", "r-1"))
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(reply.body)))
            self.end_headers()
            self.wfile.write(reply.body)

        do_GET = do_POST  # noqa: N815  http.server's own name

        def log_message(self, *_: object) -> None:
            pass

    class Many(ThreadingHTTPServer):
        request_queue_size = 512  # connections that wait: the overload check opens them at once

    httpd = Many(("127.0.0.1", 0), Handler)
    made = Contract(f"http://127.0.0.1:{httpd.server_port}/live")
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield made
    httpd.shutdown()
    thread.join()
    httpd.server_close()


@pytest.fixture(scope="session")
def plan() -> Plan:
    (made,) = load_plans([ROOT / "deployments" / "churn.yaml"], "self-hosted", ROOT)
    return made.model_copy(update={"name": "sums", "max_body_bytes": LIMIT})


@pytest.fixture
def subject(contract: Contract, plan: Plan, tmp_path: Path) -> Subject:
    (tmp_path / "holdout.csv").write_text("a,b\n1,2\n3,4.5\n")
    (tmp_path / "predictions.json").write_text('{"predictions": [3, 7.5]}')
    rows = read_rows(tmp_path, None)
    assert rows is not None
    return Subject(plan, DeployedApi(contract.url, api_key=KEY), rows)
