"""Connections to the control plane's Unix socket, for boto3's clients and for the account's own routes.

The socket is in a folder that only this user can enter. Nothing listens on a port of the machine, so no web
page and no other user can reach moto; outside callers use the front door, which verifies signatures.
"""

from __future__ import annotations

import json
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

import urllib3
from urllib3.connection import HTTPConnection

from modelstacks.core.errors import EnvironmentFault

if TYPE_CHECKING:
    from modelstacks.cloud.account.credentials import AccessKey

__all__ = ["ENDPOINT", "OPEN_PATH", "Connection", "Unemulated"]

#: The `endpoint_url` of clients of the socket: moto reads S3's bucket names from a host under localhost.
ENDPOINT = "http://localhost"
#: The front door passes a GET of a path below this one on without a signature: the path itself is a secret.
OPEN_PATH = "/_modelstacks/open/"
#: A call that starts a stack operation is answered when the operation is over, or after some seconds.
READ_SECONDS = 300.0


@dataclass(frozen=True, slots=True, order=True)
class Unemulated:
    """A resource that a deploy accepted and that nothing here emulates."""

    stack: str
    type: str
    logical_id: str

    def __str__(self) -> str:
        return f"accepted, not emulated: {self.type} ({self.logical_id})"


class Connection:
    """Keep-alive connections to a control plane's socket. Thread-safe."""

    def __init__(self, path: Path, *, connections: int = 24, timeout: float = READ_SECONDS) -> None:
        self._pool = _Pool(path, maxsize=connections, timeout=urllib3.Timeout(timeout))

    def carry(self, client: Any) -> Any:
        """Send a boto3 client's calls over the socket, without any proxy, and return the client."""
        client.meta.events.register("before-send", self._send)
        return client

    def unemulated(self, region: str) -> list[Unemulated]:
        """Every resource of `region` that nothing emulates, sorted. Raises EnvironmentFault."""
        stacks = self.ask("/_modelstacks/unemulated", region=region)
        return sorted(
            Unemulated(stack, entry["type"], entry["logical_id"])
            for stack, entries in stacks.items()
            for entry in entries
        )

    def access_key(self, access_key_id: str) -> AccessKey | None:
        """Return an access key that IAM or STS made, or None for an unknown id."""
        from modelstacks.cloud.account.credentials import AccessKey

        found = self.ask("/_modelstacks/access-key", id=access_key_id)
        return AccessKey(**found) if found else None

    def ask(self, path: str, **parameters: str) -> Any:
        """Return the JSON answer of one of the account's own routes. Raises EnvironmentFault."""
        try:
            return json.loads(self.get(f"{path}?{urlencode(parameters)}"))
        except ValueError as error:
            raise _silent(error) from None

    def get(self, target: str) -> bytes:
        """GET a path. Raises EnvironmentFault if nothing answers."""
        try:
            answer = self._pool.urlopen("GET", target, headers={"Host": "localhost"}, retries=False)
        except (OSError, urllib3.exceptions.HTTPError) as error:
            raise _silent(error) from None
        return answer.data

    def close(self) -> None:
        """Drop the connections."""
        self._pool.close()

    def _send(self, request: Any, **_: Any) -> Any:
        """Botocore's `before-send`: what it returns is the answer, and nothing else is sent."""
        from botocore.awsrequest import AWSResponse
        from botocore.exceptions import EndpointConnectionError, HTTPClientError

        url = urlsplit(request.url)
        headers = {**request.headers, "Host": url.netloc}
        try:
            answer = self._pool.urlopen(
                request.method,
                f"{url.path or '/'}?{url.query}" if url.query else url.path or "/",
                body=request.body,
                headers=headers,
                retries=False,
                assert_same_host=False,
                preload_content=False,
                decode_content=False,
            )
        except urllib3.exceptions.NewConnectionError as error:
            raise EndpointConnectionError(endpoint_url=request.url, error=error) from error
        except (OSError, urllib3.exceptions.HTTPError) as error:
            raise HTTPClientError(error=error) from error
        response = AWSResponse(request.url, answer.status, answer.headers, answer)
        if not request.stream_output:
            _ = response.content  # read now, which gives the connection back
        return response


def _silent(error: Exception) -> EnvironmentFault:
    return EnvironmentFault("the control plane does not answer", got=str(error), fix="modelstacks up")


class _Pool(urllib3.HTTPConnectionPool):
    def __init__(self, path: Path, **options: Any) -> None:
        super().__init__("localhost", **options)
        self._path = path

    def _new_conn(self) -> HTTPConnection:
        return _UnixConnection(self._path, timeout=self.timeout.connect_timeout)


class _UnixConnection(HTTPConnection):
    def __init__(self, path: Path, **options: Any) -> None:
        super().__init__("localhost", **options)
        self._path = path
        self.socket_options = None  # TCP's

    def _new_conn(self) -> socket.socket:
        connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connected.connect(str(self._path))
        except OSError as error:
            connected.close()
            raise urllib3.exceptions.NewConnectionError(self, str(error)) from error
        return connected
