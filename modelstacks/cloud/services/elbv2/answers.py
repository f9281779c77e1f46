"""What a load balancer adds to a request, answers by itself, and expects of a health check."""

from __future__ import annotations

import secrets
import time

from modelstacks.cloud.host.wire import Headers, Request, Response, without

__all__ = ["forwarded_headers", "matches", "page"]


def forwarded_headers(request: Request) -> Headers:
    """The headers that travel on to a target, with the X-Forwarded ones."""
    headers = without(request.headers)
    known = {key.lower(): value for key, value in headers}
    chain = ", ".join(filter(None, (known.get("x-forwarded-for"), request.client)))
    kept = without(headers, "x-forwarded-for", "x-forwarded-port", "x-forwarded-proto")
    kept += [("X-Forwarded-For", chain), ("X-Forwarded-Proto", known.get("x-forwarded-proto", "http")),
             ("X-Forwarded-Port", known.get("x-forwarded-port", "80"))]  # fmt: skip
    if "x-amzn-trace-id" not in known:
        kept.append(("X-Amzn-Trace-Id", f"Root=1-{int(time.time()):08x}-{secrets.token_hex(12)}"))
    return kept


def page(status: int, text: str, why: str = "") -> Response:
    """ALB's own error page; the header says what AWS would leave to the access log."""
    page = (
        f"<html>\r\n<head><title>{status} {text}</title></head>\r\n<body>\r\n<center><h1>{status} {text}</h1>"
    )
    headers: Headers = [("server", "awselb/2.0"), ("content-type", "text/html")]
    if why:
        headers.append(("x-modelstacks-reason", " ".join(why.split())))
    return Response(status, headers, f"{page}</center>\r\n</body>\r\n</html>\r\n".encode())


def matches(matcher: str, status: int) -> bool:
    """Whether a target group's matcher ("200", "200-299", "200,204") takes a status for healthy."""
    for part in matcher.split(","):
        low, _, high = part.strip().partition("-")
        if int(low) <= status <= int(high or low):
            return True
    return False
