"""AWS Signature Version 4, verified: who signed a request, and whether the signature is theirs.

One verifier for everything that takes signatures: the account's endpoint, the workloads' gateways, and REST
APIs with IAM authorization. It reads what SDKs send: the Authorization header, presigned query strings, and
the bodies that S3 clients sign in chunks. Every secret is compared in constant time.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-streaming.html
"""

from __future__ import annotations

import hashlib
import hmac
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum, auto
from urllib.parse import parse_qsl, quote, unquote_to_bytes

from botocore.utils import normalize_url_path

from modelstacks.cloud.account.credentials import AccessKey
from modelstacks.cloud.host.wire import Request

__all__ = ["CLOCK_SKEW", "Fault", "Refusal", "Scope", "Signed", "read", "verify"]

CLOCK_SKEW = 15 * 60.0  # seconds
ALGORITHM = "AWS4-HMAC-SHA256"
UNSIGNED = "UNSIGNED-PAYLOAD"
UNSIGNED_CHUNKS = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
SIGNED_CHUNKS = ("STREAMING-AWS4-HMAC-SHA256-PAYLOAD", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER")
LONGEST_PRESIGNED = 7 * 24 * 3600
EMPTY = hashlib.sha256(b"").hexdigest()
UNRESERVED = "-_.~"
CREDENTIAL = re.compile(r"([\w-]{1,128})/(\d{8})/([\w-]+)/([\w-]+)/aws4_request")
HEX = re.compile(r"[0-9a-f]{64}")
CHUNK = re.compile(rb"([0-9a-fA-F]{1,8});chunk-signature=([0-9a-f]{64})")
MISMATCH = (
    "The request signature we calculated does not match the signature you provided. Check your AWS Secret "
    "Access Key and signing method. Consult the service documentation for details."
)


class Fault(Enum):
    """What is wrong with a signature. Each protocol has an error code of its own for it."""

    MISSING = auto()
    MALFORMED = auto()
    UNSUPPORTED = auto()  # SigV2, SigV4A, a bearer token
    UNKNOWN_KEY = auto()
    SCOPE = auto()  # the credential scope's date, region or service
    SKEWED = auto()
    EXPIRED = auto()  # a presigned request
    TOKEN = auto()
    TOKEN_EXPIRED = auto()
    MISMATCH = auto()
    UNSIGNED_HEADERS = auto()
    PAYLOAD = auto()
    INCOMPLETE_BODY = auto()


class Refusal(Exception):
    """A request whose signature does not hold."""

    def __init__(self, fault: Fault, message: str) -> None:
        super().__init__(message)
        self.fault, self.message = fault, message


@dataclass(frozen=True, slots=True)
class Scope:
    """The credential scope of a signature."""

    access_key_id: str
    date: str
    region: str
    service: str

    @property
    def text(self) -> str:
        """Without the key, as it is signed."""
        return f"{self.date}/{self.region}/{self.service}/aws4_request"


@dataclass(frozen=True, slots=True)
class Signed:
    """A signature as a request carries it; nothing about it is verified yet."""

    scope: Scope
    headers: str  # the names, as sent: "host;x-amz-date"
    signature: str
    timestamp: str
    token: str | None
    expires: int | None = None  # seconds; only of a presigned request

    @property
    def presigned(self) -> bool:
        """Whether the signature is in the query string."""
        return self.expires is not None


def read(request: Request) -> Signed:
    """The request's signature. Raises Refusal where there is none, or none that can be read."""
    given = [value for name, value in request.headers if name.lower() == "authorization"]
    query = dict(parse_qsl(request.query, keep_blank_values=True)) if "X-Amz-" in request.query else {}
    if (given and "X-Amz-Signature" in query) or len(given) > 1:
        raise Refusal(Fault.MALFORMED, "Only one auth mechanism is allowed, and it must be given once.")
    if given:
        return _from_header(request, given[0])
    if "X-Amz-Signature" in query:
        return _from_query(query)
    if "AWSAccessKeyId=" in request.query:
        raise _unsupported("a Signature Version 2 query string")
    raise Refusal(Fault.MISSING, "Request is missing Authentication Token")


def verify(
    request: Request,
    signed: Signed,
    key: AccessKey | None,
    *,
    region: str,
    skew: float = CLOCK_SKEW,
    now: float | None = None,
) -> None:
    """Raise Refusal unless `key` made the signature, for this request, this region and this time.

    `key` is the key that `signed.scope.access_key_id` names, None where there is none.
    """
    if key is None or not _same(key.access_key_id, signed.scope.access_key_id):
        raise Refusal(Fault.UNKNOWN_KEY, "The security token included in the request is invalid.")
    now = time.time() if now is None else now
    _check_scope(signed, region)
    _check_time(signed, now, skew)
    _check_token(signed, key, now)
    names = signed.headers.split(";")
    if "host" not in names:
        raise Refusal(Fault.MALFORMED, "'Host' must be a 'SignedHeader' in the AWS Authorization.")
    if signed.scope.service == "s3" and (missing := _unsigned(request, names)):
        text = f"There were headers present in the request which were not signed: {', '.join(missing)}"
        raise Refusal(Fault.UNSIGNED_HEADERS, text)
    payload = _declared_payload(request, signed, names)
    secret = _signing_key(key.secret_access_key, signed.scope)
    if not _same(_signature(secret, signed, _canonical(request, signed, names, payload)), signed.signature):
        raise Refusal(Fault.MISMATCH, MISMATCH)
    _check_payload(request, signed, secret, payload)


# --- reading --------------------------------------------------------------------------------------


def _from_header(request: Request, text: str) -> Signed:
    algorithm, _, rest = text.partition(" ")
    if algorithm != ALGORITHM:
        raise _unsupported(algorithm[:40])
    parts = dict(part.strip().partition("=")[::2] for part in rest.split(","))
    missing = [name for name in ("Credential", "SignedHeaders", "Signature") if not parts.get(name)]
    if missing:
        wanted = " ".join(f"Authorization header requires '{name}' parameter." for name in missing)
        raise Refusal(Fault.MALFORMED, wanted)
    timestamp = request.header("x-amz-date")
    if timestamp is None:
        raise Refusal(Fault.MALFORMED, "Authorization header requires existence of a 'X-Amz-Date' header.")
    return Signed(
        _scope(parts["Credential"]),
        parts["SignedHeaders"],
        parts["Signature"],
        timestamp,
        request.header("x-amz-security-token"),
    )


def _from_query(query: dict[str, str]) -> Signed:
    if query.get("X-Amz-Algorithm") != ALGORITHM:
        raise _unsupported(query.get("X-Amz-Algorithm", "no X-Amz-Algorithm")[:40])
    for name in ("X-Amz-Credential", "X-Amz-Date", "X-Amz-Expires", "X-Amz-SignedHeaders"):
        if not query.get(name):
            raise Refusal(Fault.MALFORMED, f"Query-string authentication requires the {name} parameter.")
    expires = query["X-Amz-Expires"]
    if not expires.isascii() or not expires.isdigit() or not 1 <= int(expires[:9]) <= LONGEST_PRESIGNED:
        text = f"X-Amz-Expires must be from 1 to {LONGEST_PRESIGNED} seconds"
        raise Refusal(Fault.MALFORMED, text)
    return Signed(
        _scope(query["X-Amz-Credential"]),
        query["X-Amz-SignedHeaders"],
        query["X-Amz-Signature"],
        query["X-Amz-Date"],
        query.get("X-Amz-Security-Token"),
        int(expires),
    )


def _scope(text: str) -> Scope:
    found = CREDENTIAL.fullmatch(text)
    if found is None:
        form = "<access key>/<date>/<region>/<service>/aws4_request"
        raise Refusal(Fault.MALFORMED, f"the Credential is malformed; expecting {form!r}")
    return Scope(*found.groups())


def _unsupported(what: str) -> Refusal:
    text = (
        "The authorization mechanism you have provided is not supported. "
        f"Please use {ALGORITHM}. (The embedded cloud got {what}.)"
    )
    return Refusal(Fault.UNSUPPORTED, text)


# --- checking -------------------------------------------------------------------------------------


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(), other.encode())


def _check_scope(signed: Signed, region: str) -> None:
    scope = signed.scope
    if scope.region != region:
        text = f"Credential should be scoped to a valid region: got {scope.region!r}, expecting {region!r}"
        raise Refusal(Fault.SCOPE, text)
    if scope.date != signed.timestamp[:8]:
        text = (
            "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: "
            f"'{scope.date}' != '{signed.timestamp[:8]}'."
        )
        raise Refusal(Fault.SCOPE, text)


def _check_time(signed: Signed, now: float, skew: float) -> None:
    try:
        made = datetime.strptime(signed.timestamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()
    except ValueError:
        text = "Date must be in ISO-8601 'basic format'. See http://en.wikipedia.org/wiki/ISO_8601"
        raise Refusal(Fault.MALFORMED, text) from None
    if signed.expires is not None and now > made + signed.expires:
        raise Refusal(Fault.EXPIRED, "Request has expired")
    if made > now + skew or (signed.expires is None and made < now - skew):
        here = datetime.fromtimestamp(now, UTC).strftime("%Y%m%dT%H%M%SZ")
        text = f"Signature expired: {signed.timestamp} is more than {skew / 60:g} min. from {here}"
        raise Refusal(Fault.SKEWED, text)


def _check_token(signed: Signed, key: AccessKey, now: float) -> None:
    if not _same(signed.token or "", key.session_token or ""):
        raise Refusal(Fault.TOKEN, "The security token included in the request is invalid.")
    if key.expires is not None and now > key.expires:
        raise Refusal(Fault.TOKEN_EXPIRED, "The security token included in the request is expired")


def _unsigned(request: Request, names: list[str]) -> list[str]:
    """The x-amz- headers that are not signed; S3 requires a signature over each."""
    return sorted(
        {
            name.lower()
            for name, _ in request.headers
            if name.lower().startswith("x-amz-") and name.lower() not in names
        }
    )


# --- what is signed -------------------------------------------------------------------------------


def _canonical(request: Request, signed: Signed, names: list[str], payload: str) -> str:
    path = request.path or "/"
    if signed.scope.service == "s3":
        uri = quote(unquote_to_bytes(path), safe="/" + UNRESERVED)
    else:  # every other service encodes once more what is encoded already
        uri = quote(normalize_url_path(path), safe="/" + UNRESERVED)
    values: dict[str, list[str]] = {name: [] for name in names}
    for name, value in request.headers:
        if name.lower() in values:
            values[name.lower()].append(" ".join(value.split()))
    headers = "".join(f"{name}:{','.join(values[name])}\n" for name in names)
    return "\n".join([request.method, uri, _canonical_query(request.query), headers, signed.headers, payload])


def _canonical_query(query: str) -> str:
    pairs = (part.partition("=")[::2] for part in query.split("&") if part)
    coded = (tuple(quote(unquote_to_bytes(text), safe=UNRESERVED) for text in pair) for pair in pairs)
    return "&".join(f"{name}={value}" for name, value in sorted(coded) if name != "X-Amz-Signature")


def _signing_key(secret: str, scope: Scope) -> bytes:
    key = f"AWS4{secret}".encode()
    for part in (scope.date, scope.region, scope.service, "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key


def _signature(key: bytes, signed: Signed, canonical: str) -> str:
    hashed = hashlib.sha256(canonical.encode("latin-1")).hexdigest()  # header values are bytes, read so
    text = "\n".join([ALGORITHM, signed.timestamp, signed.scope.text, hashed])
    return hmac.digest(key, text.encode(), "sha256").hex()


# --- bodies ---------------------------------------------------------------------------------------


def _declared_payload(request: Request, signed: Signed, names: list[str]) -> str:
    """The last line of the canonical request: the x-amz-content-sha256 header of S3, or the body's hash."""
    if signed.scope.service != "s3":
        return hashlib.sha256(request.body).hexdigest()
    declared = request.header("x-amz-content-sha256")
    if signed.presigned and (declared is None or "x-amz-content-sha256" not in names):
        return UNSIGNED
    if declared is None:
        raise Refusal(Fault.MALFORMED, "Missing required header for this request: x-amz-content-sha256")
    if declared not in (UNSIGNED, UNSIGNED_CHUNKS, *SIGNED_CHUNKS) and not HEX.fullmatch(declared):
        text = (
            f"x-amz-content-sha256 must be {UNSIGNED}, {UNSIGNED_CHUNKS}, {', '.join(SIGNED_CHUNKS)} or a "
            f"valid sha256 value; got {declared[:60]!r}"
        )
        raise Refusal(Fault.MALFORMED, text)
    return declared


def _check_payload(request: Request, signed: Signed, key: bytes, declared: str) -> None:
    """Compare the body with the hash that was signed."""
    if signed.scope.service != "s3" or declared == UNSIGNED:
        return
    if declared == UNSIGNED_CHUNKS:
        return  # its framing and checksum are S3's business
    if declared in SIGNED_CHUNKS:
        _check_chunks(request, signed, key, trailer=declared.endswith("-TRAILER"))
    elif not _same(hashlib.sha256(request.body).hexdigest(), declared):
        text = "The provided 'x-amz-content-sha256' header does not match what was computed."
        raise Refusal(Fault.PAYLOAD, text)


def _check_chunks(request: Request, signed: Signed, key: bytes, *, trailer: bool) -> None:
    """Each chunk is signed together with the signature before it; the last one is empty."""
    previous, size, end = signed.signature, 0, 0
    for data, given, end in _chunks(request.body):  # noqa: B007  the end of the last one
        hashed = hashlib.sha256(data).hexdigest()
        text = ["AWS4-HMAC-SHA256-PAYLOAD", signed.timestamp, signed.scope.text, previous, EMPTY, hashed]
        previous = _chained(key, text, given)
        size += len(data)
    if str(size) != request.header("x-amz-decoded-content-length"):
        raise _incomplete()
    if trailer:
        _check_trailer(request.body[end:], signed, key, previous)


def _check_trailer(trailer: bytes, signed: Signed, key: bytes, previous: str) -> None:
    lines = [line.strip().decode("latin-1") for line in trailer.split(b"\n") if line.strip()]
    given, covered = "", ""
    for name, _, value in (line.partition(":") for line in lines):
        if name.lower() == "x-amz-trailer-signature":
            given = value.strip()
        else:
            covered += f"{name.lower()}:{value.strip()}\n"
    hashed = hashlib.sha256(covered.encode("latin-1")).hexdigest()
    _chained(key, ["AWS4-HMAC-SHA256-TRAILER", signed.timestamp, signed.scope.text, previous, hashed], given)


def _chained(key: bytes, text: list[str], given: str) -> str:
    computed = hmac.digest(key, "\n".join(text).encode(), "sha256").hex()
    if not _same(computed, given):
        raise Refusal(Fault.MISMATCH, MISMATCH)
    return computed


def _chunks(body: bytes) -> Iterator[tuple[bytes, str, int]]:
    """The data, signature and end of each chunk: SIZE;chunk-signature=SIGNATURE CRLF DATA CRLF."""
    place, size = 0, 1
    while size:
        line = body.find(b"\r\n", place, place + 200)
        found = re.fullmatch(
            rb"([0-9a-fA-F]{1,8});chunk-signature=([0-9a-f]{64})", body[place : max(line, 0)]
        )
        if found is None:
            raise _incomplete()
        size = int(found[1], 16)
        end = line + 2 + size
        if len(body) < end or (size and body[end : end + 2] != b"\r\n"):
            raise _incomplete()
        place = end + 2
        yield body[line + 2 : end], found[2].decode(), end


def _incomplete() -> Refusal:
    text = "You did not provide the number of bytes specified by the Content-Length HTTP header"
    return Refusal(Fault.INCOMPLETE_BODY, text)
