"""One HTTP request to a deployed API, with what it asks of its callers: an API key, or a SigV4 signature.

The standard library's client: a command that sends one request should not spend 300 ms on importing a client.
"""

from __future__ import annotations

import http.client
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from modelstacks.core.errors import InvocationFailed

if TYPE_CHECKING:
    from modelstacks.cloud.api import Api, Credentials

__all__ = ["Answer", "call"]

TIMEOUT_SECONDS = 60.0  # twice API Gateway's own limit


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back. Header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether the API did what was asked."""
        return 200 <= self.status < 300

    @property
    def text(self) -> str:
        """The body as text, what is not UTF-8 replaced."""
        return self.body.decode("utf-8", "replace")


def call(
    api: Api,
    method: str,
    path: str,
    *,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    credentials: Credentials | None = None,
    region: str = "",
) -> Answer:
    """Send one request to a route of an API. Raises InvocationFailed where no answer comes back at all."""
    url = urlsplit(api.url + path)
    sent = {key.lower(): value for key, value in (headers or {}).items()}
    if api.api_keys:
        sent.setdefault("x-api-key", api.api_keys[0].value)
    if credentials is not None and _wants_signature(api, method):
        sent = _signed(method, url.geturl(), body, sent, credentials, region)
    connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=TIMEOUT_SECONDS)
    started = time.perf_counter()
    try:
        connection.request(method, url.path + (f"?{url.query}" if url.query else ""), body, sent)
        answer = connection.getresponse()
        content = answer.read()
    except (OSError, http.client.HTTPException) as error:
        raise InvocationFailed(
            f"{api.url} did not answer {method} {path}: {error or type(error).__name__}",
            fix="modelstacks status shows what runs",
        ) from None
    finally:
        connection.close()
    return Answer(
        answer.status,
        {key.lower(): value for key, value in answer.getheaders()},
        content,
        time.perf_counter() - started,
    )


def _wants_signature(api: Api, method: str) -> bool:
    return any(route.authorization == "AWS_IAM" for route in api.routes if route.method in (method, "ANY"))


def _signed(
    method: str, url: str, body: bytes | None, headers: dict[str, str], credentials: Credentials, region: str
) -> dict[str, str]:
    from botocore.auth import SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials as Keys

    request = AWSRequest(method, url, headers=headers, data=body or b"")
    SigV4Auth(Keys(credentials.access_key_id, credentials.secret_access_key), "execute-api", region).add_auth(
        request
    )
    return {key.lower(): value for key, value in request.headers.items()}
