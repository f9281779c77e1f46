"""`modelstacks invoke`: one request to a deployment, its answer on stdout."""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelstacks.adapters.deployed_api import Answer
from modelstacks.cli.http import callable_api
from modelstacks.cli.running import api_of, attached, stacks_of
from modelstacks.core.contract import PREDICTIVE_ROUTES
from modelstacks.core.errors import InvocationFailed, UsageError

if TYPE_CHECKING:
    from modelstacks.cli.bench import Bench

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


def run(
    bench: Bench,
    name: str,
    *,
    data: str | None,
    architecture: str | None,
    content_type: str | None,
    accept: str | None,
    route: str,
    as_json: bool,
) -> None:
    """Send it. Raises InvocationFailed with the API's own reason where the answer is an error."""
    method, path = _route(route, name)
    body = _body(data)
    if method == "POST" and body is None:
        raise UsageError(
            f"{method} {path} needs a body", fix="--data FILE, or --data - to read it from stdin"
        )
    headers: dict[str, str] = {}
    if body is not None:
        headers["content-type"] = content_type or CONTENT_TYPES.get(
            Path(data or "").suffix.lower(), DEFAULT_TYPE
        )
    if accept:
        headers["accept"] = accept
    with attached(bench) as session:
        status = session.status()
        stacks = stacks_of(status, name, architecture)
        if len(stacks) > 1:
            bench.terminal.say(
                f"{name} runs as both architectures: asking {stacks[0]} (--architecture chooses)"
            )
        api = callable_api(api_of(status, stacks[0]), status)
        answer = api.send(method, path, body=body, headers=headers)
        # Callers hear as little as from AWS; the person at this machine may know which rule is missing.
        refused = [] if answer.ok else [r for r in session.status().refusals if r not in status.refusals]
    if as_json:
        bench.terminal.json(_report(answer))
    elif answer.ok:
        _print(bench, answer)
    if not answer.ok:
        why = "; ".join([explanation(answer), *(f"{one.hop}: {one.reason}" for one in refused)])
        raise InvocationFailed(
            f"{stacks[0]} answered {answer.status} to {method} {path}: {why}",
            fix=f"modelstacks logs {name}" if answer.status >= 500 and not refused else "",
        )


def explanation(answer: Answer) -> str:
    """Why the API refused, in its own words: a problem document's detail, or API Gateway's message."""
    try:
        problem = json.loads(answer.body)
    except ValueError:
        return answer.text.strip()[:500] or "an empty body"
    if not isinstance(problem, dict):
        return answer.text[:500]
    text = str(problem.get("detail") or problem.get("message") or problem.get("Message") or answer.text[:500])
    errors = problem.get("errors")
    for error in errors[:5] if isinstance(errors, list) else []:
        text += "; " + ", ".join(f"{key} {value}" for key, value in error.items() if value is not None)
    return text


def _route(route: str, name: str) -> tuple[str, str]:
    method, _, path = route.strip().partition(" ")
    path = path.strip()
    if method.upper() not in ("GET", "POST") or not path.startswith("/"):
        known = ", ".join(f'"{one.method} {one.path}"' for one in PREDICTIVE_ROUTES)
        raise UsageError("a route is a method and a path", got=f'"{route}"', allowed=known)
    return method.upper(), path.replace("{model}", name)


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


def _print(bench: Bench, answer: Answer) -> None:
    """The body as it came: text with a line end, bytes as they are."""
    if answer.headers.get("content-type", "").startswith(TEXT_TYPES):
        bench.terminal.data(answer.text.rstrip("\n"))
    else:
        bench.terminal.binary(answer.body)


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
