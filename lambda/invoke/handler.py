"""Carries requests of the managed architecture's REST API to a SageMaker endpoint, and the answers back.

SageMaker sends a container only POST /invocations, so every other route of the contract is carried inside an
invocation and named in its custom attributes (docs/contract.md). The model server's answers, errors included,
are returned unchanged; a failure on the way becomes a problem+json with the reason.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote

from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionClosedError,
    ConnectTimeoutError,
    EndpointConnectionError,
    ReadTimeoutError,
)
from botocore.loaders import Loader
from botocore.session import get_session

logger = logging.getLogger(__name__)

Event = Mapping[str, Any]
Answer = dict[str, Any]

# What Lambda may return, with room for the JSON around the body: 6 MB.
# https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
MAX_RESPONSE_BYTES = 6 * 1024 * 1024 - 16 * 1024


# A caller's own request id goes into attributes and logs: it must not be able to end an attribute or a line.
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:=+/@~-]{1,128}")
# Longer names and headers are wrong in any case; SageMaker accepts 1,024 bytes of attributes.
_MAX_NAME, _MAX_HEADER = 256, 64
# SageMaker's API requires a body; the attribute modelstacks-body=none tells the server that there was none.
_NO_BODY = b"{}"


@dataclass(frozen=True)
class Environment:
    """The function's environment variables, checked at cold start."""

    endpoint_name: str
    max_body_bytes: int
    read_timeout_seconds: int

    @classmethod
    def read(cls, variables: Mapping[str, str]) -> Environment:
        """Raises RuntimeError naming every variable that is missing or not a positive number."""
        numbers = ("MAX_BODY_BYTES", "READ_TIMEOUT_SECONDS")
        faults = [f"{name} is not set" for name in ("ENDPOINT_NAME", *numbers) if not variables.get(name)]
        faults += [
            f"{name} is {variables[name]!r}, not a positive whole number"
            for name in numbers
            if variables.get(name) and not (variables[name].isdecimal() and int(variables[name]) > 0)
        ]
        if faults:
            raise RuntimeError("; ".join(faults))
        return cls(variables["ENDPOINT_NAME"], *(int(variables[name]) for name in numbers))


class Problem(Exception):
    """An answer that the function gives itself, as application/problem+json."""

    def __init__(self, status: int, title: str, detail: str) -> None:
        super().__init__(detail)
        self.status, self.title, self.detail = status, title, detail


SERVICE = "sagemaker-runtime"


class OneService(Loader):  # type: ignore[misc]  # botocore is untyped
    """Loads the description of one service, without searching botocore's folders for the others."""

    def list_available_services(self, type_name: str) -> list[str]:  # noqa: ARG002  botocore's signature
        """The one service."""
        return [SERVICE]


def make_client(environment: Environment) -> Any:
    """The sagemaker-runtime client. One attempt a call: a second would outlast the function's own timeout."""
    # botocore without boto3: the same client, and a cold start shorter by what the boto3 package imports.
    session = get_session()
    session.register_component("data_loader", OneService())
    return session.create_client(
        SERVICE,
        config=Config(
            connect_timeout=1,
            read_timeout=environment.read_timeout_seconds,
            retries={"total_max_attempts": 1},
            tcp_keepalive=True,
            max_pool_connections=1,  # an execution environment serves one request at a time
        ),
    )


class Invoker:
    """Serves API Gateway proxy events from one endpoint."""

    def __init__(self, environment: Environment, client: Any) -> None:
        self._environment = environment
        self._client = client

    def __call__(self, event: Event, context: Any = None) -> Answer:  # noqa: ARG002  Lambda's signature
        """Answer one proxy event; never raises."""
        headers = {name.lower(): value for name, value in (event.get("headers") or {}).items()}
        own = headers.get("x-request-id", "")
        request_id = own if _REQUEST_ID.fullmatch(own) else event["requestContext"]["requestId"]
        try:
            return self._invoke(event, headers, request_id)
        except Problem as problem:
            logger.warning("%s: %s", problem.title, problem.detail, extra={"request_id": request_id})
            return _problem(problem, request_id)

    def _invoke(self, event: Event, headers: Mapping[str, str], request_id: str) -> Answer:
        body = _body(event, self._environment.max_body_bytes)
        attributes = [f"modelstacks-route={event['httpMethod']} {_path(event)}", f"request-id={request_id}"]
        attributes += [
            f"{name}={quote(headers[name][:_MAX_HEADER], safe='')}"
            for name in ("inference-header-content-length", "content-encoding")
            if headers.get(name)
        ]
        if event["resource"] == "/openapi.json":  # which names the address that its reader used
            context = event["requestContext"]
            attributes.append(f"x-api-domain={quote(context.get('domainName', ''), safe=':')}")
            attributes.append(f"x-api-path={quote(context.get('path', ''))}")
        if not body:
            attributes.append("modelstacks-body=none")
        request = {
            "EndpointName": self._environment.endpoint_name,
            "Body": body or _NO_BODY,
            "ContentType": _ascii(headers.get("content-type") or "application/json"),
            "CustomAttributes": ";".join(attributes),
        }
        if headers.get("accept"):
            request["Accept"] = _ascii(headers["accept"])
        try:
            response = self._send(request)
        except ClientError as error:
            return _refused(error, request_id)
        attributes_back = _attributes(response.get("CustomAttributes", ""))
        back = {
            "Content-Type": response.get("ContentType") or "application/octet-stream",
            "X-Request-Id": attributes_back.get("request-id") or request_id,
        }
        if "inference-header-content-length" in attributes_back:
            back["Inference-Header-Content-Length"] = attributes_back["inference-header-content-length"]
        return _answer(200, response["Body"], back)

    def _send(self, request: dict[str, Any]) -> dict[str, Any]:
        """One invocation, its body read. Raises ClientError as SageMaker's refusal, Problem else."""
        try:
            try:
                response = self._client.invoke_endpoint(**request)
            except ConnectionClosedError:
                # A connection that died while the function slept. The request never arrived: send it again.
                response = self._client.invoke_endpoint(**request)
            return {**response, "Body": response["Body"].read()}
        except (ReadTimeoutError, ConnectTimeoutError):
            seconds = self._environment.read_timeout_seconds
            raise Problem(
                504, "Gateway Timeout", f"the model did not answer within {seconds} seconds"
            ) from None
        except EndpointConnectionError:
            raise Problem(503, "Service Unavailable", "the SageMaker runtime cannot be reached") from None
        except ClientError:
            raise
        except BotoCoreError as error:
            logger.exception("the call of the endpoint failed")
            raise Problem(
                502, "Bad Gateway", f"the call of the endpoint failed: {type(error).__name__}"
            ) from None


def _path(event: Event) -> str:
    """The contract's path that was asked for, percent-encoded: it can end no attribute and begin no other.

    It is built from the resource, since a custom domain puts its base path before the event's own path.
    """
    path = str(event["resource"])
    for name, value in (event.get("pathParameters") or {}).items():
        # Whether API Gateway decodes parameters is not documented: both forms give the same result.
        text = quote(unquote(value), safe="")
        if len(text) > _MAX_NAME:
            raise Problem(404, "Not Found", f"there is no {name} {text[:_MAX_NAME]}...")
        path = path.replace(f"{{{name}}}", text)
    return quote(path, safe="/%")


def _ascii(value: str) -> str:
    """A media type in the characters that SageMaker accepts; the model server knows none with others."""
    return value.encode("ascii", "replace").decode()[:_MAX_NAME]


def _body(event: Event, limit: int) -> bytes:
    text = event.get("body") or ""
    if event.get("isBase64Encoded"):
        body = base64.b64decode(text)
    else:
        body = text.encode()
    if len(body) > limit:
        raise Problem(
            413,
            "Content Too Large",
            f"the body is larger than {limit} bytes; send fewer rows at once",
        )
    return body


# SageMaker's own refusals: code, or status -> (status, title, detail). Any other is a fault of the service.
_THROTTLED = (429, "Too Many Requests", "the endpoint is throttled; try again")
_NO_CAPACITY = (503, "Service Unavailable", "the endpoint has no free capacity; try again")
_REFUSALS: dict[str | int, tuple[int, str, str]] = {
    "ModelNotReadyException": (503, "Service Unavailable", "the model is still loading; try again"),
    "ServiceUnavailable": _NO_CAPACITY,
    "ServiceUnavailableException": _NO_CAPACITY,
    "Throttling": _THROTTLED,
    "ThrottlingException": _THROTTLED,
    "TooManyRequestsException": _THROTTLED,
    429: _THROTTLED,
    503: _NO_CAPACITY,
}


def _refused(error: ClientError, request_id: str) -> Answer:
    """The model server's own error, passed through, or SageMaker's as a problem."""
    fields = error.response
    code = fields.get("Error", {}).get("Code", "")
    if code == "ModelError" and fields.get("OriginalStatusCode"):
        return _passed_on(
            int(fields["OriginalStatusCode"]), str(fields.get("OriginalMessage") or ""), request_id
        )
    reason = fields.get("Error", {}).get("Message", "")
    logger.error("%s: %s", code, reason, extra={"request_id": request_id})
    status = fields.get("ResponseMetadata", {}).get("HTTPStatusCode")
    if refusal := _REFUSALS.get(code) or _REFUSALS.get(status):
        return _problem(Problem(*refusal), request_id)
    return _problem(Problem(502, "Bad Gateway", f"the endpoint refused the call: {code}"), request_id)


def _passed_on(status: int, message: str, request_id: str) -> Answer:
    """The model server's own error: SageMaker keeps its body and drops its headers."""
    headers = {"Content-Type": "text/plain; charset=utf-8", "X-Request-Id": request_id}
    with suppress(ValueError):
        document = json.loads(message)
        known = isinstance(document, dict) and "status" in document
        headers["Content-Type"] = "application/problem+json" if known else "application/json"
        if known and isinstance(document.get("retry_after"), int):
            headers["Retry-After"] = str(document["retry_after"])
    return _answer(status, message.encode(), headers)


def _attributes(text: str) -> dict[str, str]:
    pairs = (part.partition("=") for part in text.split(";") if "=" in part)
    return {name.strip().lower(): value.strip() for name, _, value in pairs}


def _problem(problem: Problem, request_id: str) -> Answer:
    document: dict[str, Any] = {
        "type": "about:blank",
        "title": problem.title,
        "status": problem.status,
        "detail": problem.detail,
        "instance": request_id,
        "error": problem.detail,  # where clients of the Open Inference Protocol look for it
    }
    if problem.status in _RETRIABLE:
        document["retry_after"] = 1
    headers = {"Content-Type": "application/problem+json", "X-Request-Id": request_id}
    return _answer(problem.status, json.dumps(document).encode(), headers)


_RETRIABLE = (429, 503)


def _answer(status: int, body: bytes, headers: dict[str, str]) -> Answer:
    if status in _RETRIABLE:
        headers.setdefault("Retry-After", "1")
    encoded = base64.b64encode(body).decode("ascii")
    if len(encoded) > MAX_RESPONSE_BYTES:
        raise Problem(
            422,
            "Unprocessable Content",
            f"the answer has {len(body)} bytes, more than Lambda can return; send fewer rows at once",
        )
    # Always base64, which API Gateway decodes, so that any bytes are returned unchanged.
    return {"statusCode": status, "headers": headers, "body": encoded, "isBase64Encoded": True}


_environment = Environment.read(os.environ)
# Created once, at cold start, when Lambda provides a whole CPU.
handle = Invoker(_environment, make_client(_environment))
