"""The way to the control plane, which answers every call that no service's runtime answers itself."""

from __future__ import annotations

from pathlib import Path

from modelstacks.cloud.account.aws_errors import refusal
from modelstacks.cloud.host.pool import Pool
from modelstacks.cloud.host.wire import ConnectionLost, Request, Response, without

__all__ = ["ControlPlane"]

PATIENCE_SECONDS = 300


class ControlPlane:
    """Sends requests over the control plane's Unix socket."""

    def __init__(self, pool: Pool, socket: Path) -> None:
        self._pool, self._socket = pool, socket

    async def send(self, request: Request) -> Response:
        """Pass a request on; 503 where nothing answers."""
        # moto reads S3's bucket from a host name in front of localhost.
        host = (request.header("host") or "localhost").replace("127.0.0.1", "localhost")
        headers = [("host", host), *without(request.headers, "host", "expect")]
        forwarded = Request(request.method, request.path, request.query, headers, request.body)
        try:
            response = await self._pool.send(forwarded, 0, host=str(self._socket), timeout=PATIENCE_SECONDS)
        except (ConnectionLost, TimeoutError) as error:
            return refusal("s3", "ServiceUnavailable", f"the control plane does not answer: {error}", 503)
        # A bucket's CORS rules are for browsers, and no browser may call the embedded cloud.
        response.headers = [
            one for one in response.headers if not one[0].lower().startswith("access-control-")
        ]
        return response
