"""`modelstacks invoke`: send one request to a deployment and print its answer to stdout."""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Option

from modelstacks.cli.command import Command, Section
from modelstacks.cli.options import JsonOption, NameArgument, OneArchitectureOption
from modelstacks.core.errors import InvocationFailed, UsageError

if TYPE_CHECKING:
    from modelstacks.adapters.deployed_api import Answer
    from modelstacks.cli.context import CommandContext

DEFAULT_TYPE = "application/json"
CONTENT_TYPES = {
    ".json": "application/json",
    ".jsonl": "application/jsonlines",
    ".csv": "text/csv",
    ".npy": "application/x-npy",
    ".npz": "application/x-npz",
    ".png": "application/octet-stream",
    ".jpg": "application/octet-stream",
    ".jpeg": "application/octet-stream",
    ".bin": "application/octet-stream",
}
TEXT_TYPES = ("text/", "application/json", "application/jsonlines", "application/problem+json")


def invoke(
    ctx: typer.Context,
    name: NameArgument,
    data: Annotated[
        str | None, Option("--data", metavar="FILE|-", help="the request's body: a file, or - for stdin")
    ] = None,
    architecture: OneArchitectureOption = None,
    content_type: Annotated[
        str | None,
        Option("--content-type", help="content type of the body; default: by the file's name, else JSON"),
    ] = None,
    accept: Annotated[str | None, Option("--accept", help="content type of the answer")] = None,
    route: Annotated[
        str, Option("--route", help='method and path, such as "GET /v2/models/churn"')
    ] = "POST /invocations",
    as_json: JsonOption = False,
) -> None:
    """Send one request to a deployment and print its answer.

    The API key or the SigV4 signature is added. An error exits with 6 and prints the API's own reason.
    """
    context: CommandContext = ctx.obj
    method, path = _route(route, name)
    body = _body(data)
    if method == "POST" and body is None:
        raise UsageError(
            f"{method} {path} needs a body", fix="--data FILE, or --data - to read it from stdin"
        )
    headers = _headers(body, data, content_type, accept)
    stack, answer, refused = _send(context, name, architecture, method, path, body, headers)
    if as_json:
        context.terminal.json(_report(answer))
    elif answer.ok:
        _print(context, answer)
    if not answer.ok:
        from modelstacks.cli.embedded_api import explanation

        raise InvocationFailed(
            f"{stack} answered {answer.status} to {method} {path}: "
            + "; ".join([explanation(answer), *refused]),
            fix=f"modelstacks logs {name}" if answer.status >= 500 and not refused else "",
        )


def _send(
    context: CommandContext,
    name: str,
    architecture: str | None,
    method: str,
    path: str,
    body: bytes | None,
    headers: dict[str, str],
) -> tuple[str, Answer, list[str]]:
    """Return the stack that was asked, its answer, and why the embedded cloud refused a hop on the way."""
    from modelstacks.cli.embedded_api import callable_api
    from modelstacks.cli.running import api_of, attached, stacks_of

    with attached(context) as session:
        status = session.status()
        stacks = stacks_of(status, name, architecture)
        if len(stacks) > 1:
            context.terminal.say(
                f"{name} runs as both architectures: asking {stacks[0]} (--architecture chooses)"
            )
        api = callable_api(api_of(status, stacks[0]), status)
        answer = api.send(method, path, body=body, headers=headers)
        # Callers learn as little as from AWS; the person at this machine may know which rule is missing.
        refused = [] if answer.ok else [r for r in session.status().refusals if r not in status.refusals]
    return stacks[0], answer, [f"{one.hop}: {one.reason}" for one in refused]


def _route(route: str, name: str) -> tuple[str, str]:
    method, _, path = route.strip().partition(" ")
    path = path.strip()
    if method.upper() not in ("GET", "POST") or not path.startswith("/"):
        from modelstacks.core.contract import PREDICTIVE_ROUTES

        known = ", ".join(f'"{one.method} {one.path}"' for one in PREDICTIVE_ROUTES)
        raise UsageError("a route is a method and a path", got=f'"{route}"', allowed=known)
    return method.upper(), path.replace("{model}", name)


def _headers(
    body: bytes | None, data: str | None, content_type: str | None, accept: str | None
) -> dict[str, str]:
    headers: dict[str, str] = {}
    if body is not None:
        by_name = CONTENT_TYPES.get(Path(data or "").suffix.lower(), DEFAULT_TYPE)
        headers["content-type"] = content_type or by_name
    if accept:
        headers["accept"] = accept
    return headers


def _body(data: str | None) -> bytes | None:
    if data is None:
        return None
    if data == "-":
        return sys.stdin.buffer.read()
    try:
        return Path(data).read_bytes()
    except OSError as error:
        raise UsageError(
            f"the data file cannot be read: {(error.strerror or str(error)).lower()}", got=data
        ) from None


def _print(context: CommandContext, answer: Answer) -> None:
    """Print the body unchanged: text with a line end, anything else as bytes."""
    if answer.headers.get("content-type", "").startswith(TEXT_TYPES):
        context.terminal.data(answer.text.rstrip("\n"))
    else:
        context.terminal.binary(answer.body)


def _report(answer: Answer) -> dict[str, Any]:
    report: dict[str, Any] = {"status": answer.status, "headers": dict(answer.headers)}
    content_type = answer.headers.get("content-type", "")
    if "json" in content_type and "jsonlines" not in content_type:
        try:
            report["body"] = json.loads(answer.body)
        except ValueError:
            report["body"] = answer.text
    elif content_type.startswith(TEXT_TYPES):
        report["body"] = answer.text
    else:
        report["body_base64"] = base64.b64encode(answer.body).decode()
    return report | {"seconds": round(answer.seconds, 6)}


COMMAND = Command(
    invoke,
    Section.HERE,
    order=30,
    examples=(
        "modelstacks invoke churn --data rows.csv",
        'modelstacks invoke churn --route "GET /v2/models/churn"',
    ),
)
