"""A deployed REST API as its callers reach it: over HTTP or HTTPS, with an API key or a SigV4 signature.

The standard library's client: a command that sends one request should not spend 300 ms on importing a client.
"""

from __future__ import annotations

import http.client
import ssl
import time
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from modelstacks.core.errors import InvocationFailed

__all__ = ["Answer", "DeployedApi", "Signer"]

TIMEOUT_SECONDS = 60.0  # twice API Gateway's own limit
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer. Header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether the request succeeded."""
        return 200 <= self.status < 300

    @property
    def text(self) -> str:
        """The body as text, with invalid UTF-8 replaced."""
        return self.body.decode("utf-8", "replace")


@dataclass(frozen=True, slots=True)
class Signer:
    """The credentials and region that requests are signed with (service `execute-api`)."""

    access_key_id: str
    secret_access_key: str
    region: str
    session_token: str | None = None

    def sign(self, method: str, url: str, body: bytes | None, headers: Mapping[str, str]) -> dict[str, str]:
        """Return the headers with a SigV4 signature added. Names are in lower case."""
        from botocore.auth import SigV4Auth
        from botocore.awsrequest import AWSRequest
        from botocore.credentials import Credentials

        request = AWSRequest(method, url, headers=dict(headers), data=body or b"")
        keys = Credentials(self.access_key_id, self.secret_access_key, self.session_token)
        SigV4Auth(keys, "execute-api", self.region).add_auth(request)
        return {key.lower(): value for key, value in request.headers.items()}


@dataclass(frozen=True, slots=True)
class DeployedApi:
    """A stage of a REST API.

    Args:
        url: with the stage, without a slash at the end: "https://id.execute-api.eu-west-1.amazonaws.com/live".
        api_key: sent as `x-api-key`; None where the API asks for none.
        signer: signs every request; None where the API asks for no signature.
    """

    url: str
    api_key: str | None = None
    signer: Signer | None = None

    def send(
        self,
        method: str,
        path: str,
        *,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        anonymous: bool = False,
        timeout: float = TIMEOUT_SECONDS,
    ) -> Answer:
        """Send one request. `anonymous` leaves out key and signature.

        Raises InvocationFailed where no answer comes back at all.
        """
        url = urlsplit(self.url + path)
        sent = {key.lower(): value for key, value in (headers or {}).items()}
        if not anonymous:
            if self.api_key is not None:
                sent.setdefault("x-api-key", self.api_key)
            if self.signer is not None:
                sent = self.signer.sign(method, url.geturl(), body, sent)
        connection = _connect(url, timeout)
        started = time.perf_counter()
        try:
            connection.request(method, url.path + (f"?{url.query}" if url.query else ""), body, sent)
            answer = connection.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise InvocationFailed(
                f"{self.url} did not answer {method} {path}: {error or type(error).__name__}",
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


def _connect(url: SplitResult, timeout: float) -> http.client.HTTPConnection:
    """Connect directly to this machine, and to other hosts through the environment's proxy, if any."""
    host = url.hostname or ""
    if url.scheme != "https":
        return http.client.HTTPConnection(host, url.port, timeout=timeout)
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    proxy = urllib.request.getproxies().get("https")
    if proxy is None or host in _LOOPBACK or urllib.request.proxy_bypass(host):
        return http.client.HTTPSConnection(host, url.port, timeout=timeout, context=context)
    through = urlsplit(proxy if "//" in proxy else f"//{proxy}")
    connection = http.client.HTTPSConnection(
        through.hostname or "", through.port, timeout=timeout, context=context
    )
    connection.set_tunnel(host, url.port or 443)
    return connection
