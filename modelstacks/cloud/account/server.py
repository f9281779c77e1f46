"""The account's server: moto's own application on a Unix socket, and what the services add to it.

It has routes of its own beside moto's. A service declares its own in its folder (additions.py); these are for
the data plane:

    GET  /_modelstacks/health              the process id
    GET  /_modelstacks/access-key?id=ID    an access key that IAM or STS made
    GET  /_modelstacks/changes             waits until the account changes (channel.py)
    POST /_modelstacks/workloads           the data plane's reports (channel.py)

The front door passes on none of them, except those under OPEN_PATH, whose paths are secrets. moto's own
interface (/moto-api) and its instance metadata are switched off: AWS has no such routes.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from modelstacks.cloud.account import additions, credentials
from modelstacks.cloud.account.additions import ROUTES, Additions, Answer, Call, answered
from modelstacks.cloud.account.channel import CHANNEL, Report

__all__ = ["ACCOUNT", "application", "serve"]

_LONGEST_POLL = 30.0  # seconds

#: The account that moto answers for.
ACCOUNT = "123456789012"

#: Paths that moto answers without checking which service they belong to.
_NOT_AWS = ("/moto-api", "/latest/meta-data/", "/latest/api/", "/favicon.ico")

_Route = Callable[[Call], Answer]


def application() -> Any:
    """The WSGI application. Installs everything of ours in this process's moto."""
    warnings.simplefilter("ignore")  # moto's and its libraries' warnings are not the user's business
    os.environ.setdefault("MOTO_IAM_LOAD_MANAGED_POLICIES", "true")
    os.environ["MOTO_DISABLE_GLOBAL_CORS"] = "true"  # no answer invites a web page to read it

    from moto.core.models import botocore_stubber
    from moto.server import DomainDispatcherApplication, create_backend_app

    from modelstacks.cloud.cloudformation.resource import ONE_CALL_AT_A_TIME

    services = additions.install()
    _answer_calls_from_within(botocore_stubber)
    moto = DomainDispatcherApplication(create_backend_app)
    routes = _routes(services)
    parallel = {name: service.before_answer for service in services for name in service.in_parallel}

    def ours(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if path.startswith(ROUTES):
            return _send(start_response, _dispatch(routes, environ))
        if path.startswith(_NOT_AWS):
            return _send(start_response, _NOT_FOUND)
        if (before_answer := parallel.get(_service(environ))) is not None:
            answer: Iterable[bytes] = moto(environ, start_response)
            before_answer()
            return answer
        with ONE_CALL_AT_A_TIME:
            return list(moto(environ, start_response))

    return ours


def _answer_calls_from_within(stubber: Any) -> None:
    """Let the boto3 calls of the resource types reach moto without leaving this process, one at a time."""
    from modelstacks.cloud.cloudformation.resource import ONE_CALL_AT_A_TIME

    process = stubber.process_request

    def in_turn(request: Any) -> Any:
        with ONE_CALL_AT_A_TIME:
            return process(request)

    stubber.process_request = in_turn
    stubber.enabled = True


def _service(environ: dict[str, Any]) -> str:
    """The service that a request was signed for: `Credential=KEY/DATE/REGION/SERVICE/aws4_request`."""
    scope = environ.get("HTTP_AUTHORIZATION", "").partition("Credential=")[2].partition(",")[0].split("/")
    return scope[3] if len(scope) > 3 else ""


# --- routes of our own ----------------------------------------------------------------------------

_NOT_FOUND = Answer(b"", status=404)


def _routes(services: Iterable[Additions]) -> dict[str, _Route]:
    """Path -> what answers it, the longest path first."""
    hears = {kind: hear for service in services for kind, hear in service.hears.items()}
    routes: dict[str, _Route] = {
        f"{ROUTES}health": lambda _: answered({"pid": os.getpid()}),
        f"{ROUTES}access-key": _access_key,
        f"{ROUTES}changes": _changes,
        f"{ROUTES}workloads": lambda call: _workloads(call, hears),
    }
    for service in services:
        for path, route in service.routes.items():
            if path in routes or not path.startswith(ROUTES):
                raise ValueError(f"{path} must be a route under {ROUTES} that no other service declares")
            routes[path] = route
    return dict(sorted(routes.items(), reverse=True))


def _dispatch(routes: Mapping[str, _Route], environ: dict[str, Any]) -> Answer:
    path = environ["PATH_INFO"]
    for prefix, route in routes.items():
        rest = path.removeprefix(prefix)
        if path.startswith(prefix) and (rest == "" or rest.startswith("/")):
            body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            query = dict(parse_qsl(environ.get("QUERY_STRING", "")))
            return route(Call(environ["REQUEST_METHOD"], rest.removeprefix("/"), query, body, ACCOUNT))
    return _NOT_FOUND


def _access_key(call: Call) -> Answer:
    from modelstacks.cloud.cloudformation.resource import ONE_CALL_AT_A_TIME

    with ONE_CALL_AT_A_TIME:
        key = credentials.find(call.account, call.query.get("id", ""))
    return answered(asdict(key) if key else None)


def _changes(call: Call) -> Answer:
    seconds = min(float(call.query["seconds"]), _LONGEST_POLL)
    return answered({"version": CHANNEL.announced(int(call.query["after"]), seconds)})


def _workloads(call: Call, hears: Mapping[str, Callable[[str, Report], None]]) -> Answer:
    _take_over(call, hears)
    CHANNEL.heard()
    return answered({})


def _take_over(call: Call, hears: Mapping[str, Callable[[str, Report], None]]) -> None:
    """Pass each report to the service that hears its kind: it becomes what its Describe calls answer."""
    from modelstacks.cloud.cloudformation.resource import ONE_CALL_AT_A_TIME

    reports = [Report(**one) for one in json.loads(call.body)]
    with ONE_CALL_AT_A_TIME:
        for report in reports:
            if (hear := hears.get(report.kind)) is not None:
                hear(call.account, report)


def _send(start_response: Any, answer: Answer) -> Iterable[bytes]:
    status = f"{answer.status} {HTTPStatus(answer.status).phrase}"
    headers = [("Content-Type", answer.media_type), ("Content-Length", str(len(answer.body)))]
    start_response(status, headers)
    return [answer.body]


# --- the process ----------------------------------------------------------------------------------


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
