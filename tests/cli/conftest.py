"""A project to run commands in, and a command line to run."""

from __future__ import annotations

import io
import shutil
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from support.command_line import ROOT, FakeCdk, FakeCloud, Result, Server, both, ports, sandbox

from modelstacks.cli.console.terminal import Terminal
from modelstacks.cli.context import CommandContext
from modelstacks.cli.main import main
from modelstacks.core.lock.locking import lock
from modelstacks.core.ports import Ports


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with one locked spec, which is also the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    monkeypatch.setenv("NO_COLOR", "1")
    (tmp_path / "cdk.json").write_text("{}")
    (tmp_path / "deployments").mkdir()
    shutil.copy(ROOT / "deployments" / "churn.yaml", tmp_path / "deployments")
    model = tmp_path / "model_artifacts" / "churn-xgboost"
    model.mkdir(parents=True)
    for name in ("model.json", "signature.json"):
        shutil.copy(ROOT / "model_artifacts" / "churn-xgboost" / name, model)
    lock(tmp_path / "deployments" / "churn.yaml", tmp_path, ports(tmp_path))
    return tmp_path


@pytest.fixture
def cloud() -> FakeCloud:
    return FakeCloud(both())


@pytest.fixture
def cdk() -> FakeCdk:
    return FakeCdk()


@pytest.fixture
def cli(project: Path, cloud: FakeCloud, cdk: FakeCdk) -> Callable[..., Result]:
    """Run a command in the project: `cli("status", "--json")`."""

    def run(*arguments: str, ports: Callable[[Path], Ports] = ports) -> Result:
        out, err = io.StringIO(), io.StringIO()
        context = CommandContext(
            project=project,
            terminal=Terminal(out, err),
            open_cloud=lambda: cloud,
            open_cdk=lambda _: cdk,
            open_ports=ports,
            open_sandbox=sandbox,
        )
        return Result(main(arguments, context), out.getvalue(), err.getvalue())

    return run


@pytest.fixture
def server() -> Iterator[Server]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            headers = {key.lower(): value for key, value in self.headers.items()}
            made.seen.append((self.command, self.path, headers, body))
            status, content_type, content = made.answer
            self.send_response(status)
            self.send_header("content-type", content_type)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST  # noqa: N815  http.server's own name

        def log_message(self, *_: object) -> None:
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made = Server(f"http://127.0.0.1:{httpd.server_port}/live")
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield made
    httpd.shutdown()
    thread.join()
    httpd.server_close()
