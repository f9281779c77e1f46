"""The control plane's server: moto's own application on a Unix socket, with our CloudFormation and fixes.

Routes of ours, which the front door does not pass on: GET /_modelstacks/health,
GET /_modelstacks/unemulated?region=R, GET /_modelstacks/access-key?id=ID, the channel to the data plane
(channel.py): GET /_modelstacks/changes and POST /_modelstacks/workloads, and what custom resources ask
(custom_resources.py). It passes on the code of Lambda
functions, to which GetFunction points with a URL that cannot be guessed. moto's own interface (/moto-api) and
its instance metadata are switched off: AWS has no such routes.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import warnings
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from modelstacks.cloud.account.channel import CHANNEL, Report
from modelstacks.cloud.cloudformation.custom_resources import ROUTE, custom_resources
from modelstacks.cloud.cloudformation.operations import settle

__all__ = ["ACCOUNT", "application", "serve"]

#: CloudFormation, whose operations take long and whose events are read meanwhile; S3, whose bodies are large
#: and objects independent. Every other service answers one request at a time.
_IN_PARALLEL = ("cloudformation", "s3")

_LONGEST_POLL = 30.0  # seconds

#: The account that moto answers for.
ACCOUNT = "123456789012"

#: What moto answers to whoever asks, without a service in front.
_NOT_AWS = ("/moto-api", "/latest/meta-data/", "/latest/api/", "/favicon.ico")


def application() -> Any:
    """The WSGI application. Installs everything of ours in this process's moto."""
    warnings.simplefilter("ignore")  # moto's and its libraries' warnings are not the user's business
    os.environ.setdefault("MOTO_IAM_LOAD_MANAGED_POLICIES", "true")
    os.environ["MOTO_DISABLE_GLOBAL_CORS"] = "true"  # no answer invites a web page to read it

    from moto.core.models import botocore_stubber
    from moto.server import DomainDispatcherApplication, create_backend_app

    from modelstacks.cloud.account import credentials, patching
    from modelstacks.cloud.account.client import CODE_PATH
    from modelstacks.cloud.cloudformation import backend
    from modelstacks.cloud.cloudformation.resource import ONE_CALL_AT_A_TIME, emulated_types
    from modelstacks.cloud.services.lambda_.patches import code_of

    backend.install()
    patching.install()
    emulated_types()
    _answer_calls_from_within(botocore_stubber)
    moto = DomainDispatcherApplication(create_backend_app)

    def ours(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if path == "/_modelstacks/health":
            return _answer(start_response, {"pid": os.getpid()})
        if path == "/_modelstacks/unemulated":
            region = parse_qs(environ.get("QUERY_STRING", "")).get("region", ["us-east-1"])[0]
            return _answer(start_response, backend.unemulated(ACCOUNT, region))
        if path == "/_modelstacks/access-key":
            id_ = parse_qs(environ.get("QUERY_STRING", "")).get("id", [""])[0]
            with ONE_CALL_AT_A_TIME:
                key = credentials.find(ACCOUNT, id_)
            return _answer(start_response, asdict(key) if key else None)
        if path == "/_modelstacks/changes":
            query = parse_qs(environ.get("QUERY_STRING", ""))
            after, seconds = int(query["after"][0]), min(float(query["seconds"][0]), _LONGEST_POLL)
            return _answer(start_response, {"version": CHANNEL.announced(after, seconds)})
        if path == "/_modelstacks/workloads":
            return _answer(start_response, _hear(environ))
        if path.startswith(ROUTE):
            return _custom_resources(environ, start_response)
        if path.startswith(CODE_PATH):
            return _code(start_response, code_of(ACCOUNT, path))
        if path.startswith(_NOT_AWS):
            return _code(start_response, None)
        if _service(environ) in _IN_PARALLEL:
            answer: Iterable[bytes] = moto(environ, start_response)
            settle()
            return answer
        with ONE_CALL_AT_A_TIME:
            return list(moto(environ, start_response))

    return ours


def _answer_calls_from_within(stubber: Any) -> None:
    """Let the boto3 calls of types/ reach moto without leaving this process, each in its turn."""
    from modelstacks.cloud.cloudformation.resource import ONE_CALL_AT_A_TIME

    process = stubber.process_request

    def in_turn(request: Any) -> Any:
        with ONE_CALL_AT_A_TIME:
            return process(request)

    stubber.process_request = in_turn
    stubber.enabled = True


def _custom_resources(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """GET: what functions are asked, after at most 20 s. POST to a question's token: its answer."""
    if environ["REQUEST_METHOD"] == "GET":
        return _answer(start_response, custom_resources.take(20.0))
    token = environ["PATH_INFO"].removeprefix(f"{ROUTE}/")
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    return _answer(start_response, {"waiting": custom_resources.answer(token, json.loads(body))})


def _service(environ: dict[str, Any]) -> str:
    """The service that a request was signed for: `Credential=KEY/DATE/REGION/SERVICE/aws4_request`."""
    scope = environ.get("HTTP_AUTHORIZATION", "").partition("Credential=")[2].partition(",")[0].split("/")
    return scope[3] if len(scope) > 3 else ""


def _hear(environ: dict[str, Any]) -> dict[str, Any]:
    """The data plane's reports: they become what the services' own Describe calls answer."""
    from modelstacks.cloud.cloudformation.resource import ONE_CALL_AT_A_TIME
    from modelstacks.cloud.services.ecs import patches as ecs
    from modelstacks.cloud.services.sagemaker import patches as sagemaker

    hear = {"ecs-service": ecs.hear, "sagemaker-endpoint": sagemaker.hear}
    length = int(environ.get("CONTENT_LENGTH") or 0)
    reports = [Report(**one) for one in json.loads(environ["wsgi.input"].read(length))]
    with ONE_CALL_AT_A_TIME:
        for report in reports:
            hear[report.kind](ACCOUNT, report)
    CHANNEL.heard()
    return {}


def _answer(start_response: Any, body: object) -> Iterable[bytes]:
    payload = json.dumps(body).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(payload)))])
    return [payload]


def _code(start_response: Any, packed: bytes | None) -> Iterable[bytes]:
    status, body = ("200 OK", packed) if packed is not None else ("404 Not Found", b"")
    start_response(status, [("Content-Type", "application/zip"), ("Content-Length", str(len(body)))])
    return [body]


def serve(listening: int, log: Path | None) -> None:
    """Serve until SIGTERM on a Unix socket that listens already; `listening` is its file descriptor."""
    logging.basicConfig(
        filename=log,
        level=logging.WARNING,
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
        force=True,
    )
    logging.getLogger("werkzeug").disabled = True  # one line a request
    from moto.moto_server.werkzeug_app import MotoRequestHandler
    from werkzeug.serving import make_server

    class Quiet(MotoRequestHandler):  # type: ignore[misc]
        # Keep-alive: the CDK CLI and the data plane ask hundreds of small questions.
        protocol_version = "HTTP/1.1"

    # Importing moto makes very many objects that stay: to look through them for garbage takes a fifth
    # of the start.
    gc.disable()
    app = application()
    gc.freeze()
    gc.enable()
    server = make_server("unix://inherited", 0, app, threaded=True, request_handler=Quiet, fd=listening)
    server.serve_forever(poll_interval=0.1)
