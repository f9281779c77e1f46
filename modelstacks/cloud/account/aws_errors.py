"""Errors in the wording and format of the AWS service that a request is for.

https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html and each service's "Common Errors".
"""

from __future__ import annotations

import json
import secrets
from typing import Literal
from xml.sax.saxutils import escape

from modelstacks.cloud.account.signatures import Fault, Refusal
from modelstacks.cloud.host.wire import Request, Response

__all__ = ["protocol_of", "refusal", "signature_refusal"]

Protocol = Literal["s3", "ec2", "query", "json", "rest-json", "cbor"]

QUERY_SERVICES = frozenset(
    {"autoscaling", "cloudformation", "cloudfront", "elasticloadbalancing", "iam", "monitoring", "rds",
     "route53", "sns", "sqs", "sts"}
)  # fmt: skip

_Code = tuple[str, int]
#: By protocol: S3, EC2's query, query, JSON. A REST-JSON service answers 403 with the codes of JSON.
_CODES: dict[Fault, tuple[_Code, _Code, _Code, _Code]] = {
    Fault.MISSING: (
        ("AccessDenied", 403),
        ("MissingAuthenticationToken", 403),
        ("MissingAuthenticationToken", 403),
        ("MissingAuthenticationTokenException", 400),
    ),
    Fault.MALFORMED: (
        ("AuthorizationHeaderMalformed", 400),
        ("AuthFailure", 401),
        ("IncompleteSignature", 403),
        ("IncompleteSignatureException", 400),
    ),
    Fault.UNSUPPORTED: (
        ("InvalidRequest", 400),
        ("AuthFailure", 401),
        ("IncompleteSignature", 403),
        ("IncompleteSignatureException", 400),
    ),
    Fault.UNKNOWN_KEY: (
        ("InvalidAccessKeyId", 403),
        ("AuthFailure", 401),
        ("InvalidClientTokenId", 403),
        ("UnrecognizedClientException", 400),
    ),
    Fault.TOKEN: (
        ("InvalidToken", 400),
        ("AuthFailure", 401),
        ("InvalidClientTokenId", 403),
        ("UnrecognizedClientException", 400),
    ),
    Fault.TOKEN_EXPIRED: (
        ("ExpiredToken", 400),
        ("RequestExpired", 400),
        ("ExpiredToken", 403),
        ("ExpiredTokenException", 400),
    ),
    Fault.SCOPE: (
        ("AuthorizationHeaderMalformed", 400),
        ("SignatureDoesNotMatch", 403),
        ("SignatureDoesNotMatch", 403),
        ("InvalidSignatureException", 400),
    ),
    Fault.SKEWED: (
        ("RequestTimeTooSkewed", 403),
        ("RequestExpired", 400),
        ("SignatureDoesNotMatch", 403),
        ("InvalidSignatureException", 400),
    ),
    Fault.EXPIRED: (
        ("AccessDenied", 403),
        ("RequestExpired", 400),
        ("SignatureDoesNotMatch", 403),
        ("InvalidSignatureException", 400),
    ),
    Fault.MISMATCH: (
        ("SignatureDoesNotMatch", 403),
        ("SignatureDoesNotMatch", 403),
        ("SignatureDoesNotMatch", 403),
        ("InvalidSignatureException", 400),
    ),
    Fault.UNSIGNED_HEADERS: (("AccessDenied", 403),) * 4,  # S3's alone, as the two that follow
    Fault.PAYLOAD: (("XAmzContentSHA256Mismatch", 400),) * 4,
    Fault.INCOMPLETE_BODY: (("IncompleteBody", 400),) * 4,
}
_S3_MESSAGES = {
    Fault.MISSING: "Access Denied: the request is not signed",
    Fault.UNKNOWN_KEY: "The AWS Access Key Id you provided does not exist in our records.",
    Fault.SKEWED: "The difference between the request time and the current time is too large.",
    Fault.TOKEN: "The provided token is malformed or otherwise invalid.",
    Fault.TOKEN_EXPIRED: "The provided token has expired.",
}


def signature_refusal(request: Request, service: str, refused: Refusal) -> Response:
    """Answer a request whose signature is not valid. `service` is "" if the request names none."""
    protocol = protocol_of(request, service)
    codes = _CODES[refused.fault]
    if protocol == "s3":
        return _answer(protocol, *codes[0], _S3_MESSAGES.get(refused.fault, refused.message))
    if protocol == "ec2":
        return _answer(protocol, *codes[1], refused.message)
    if protocol == "query":
        return _answer(protocol, *codes[2], refused.message)
    code, status = codes[3]
    return _answer(protocol, code, 403 if protocol == "rest-json" else status, refused.message)


def protocol_of(request: Request, service: str) -> Protocol:
    """The protocol that the caller's SDK reads: from its request, else from the service it signed for."""
    if request.header("smithy-protocol") == "rpc-v2-cbor":
        return "cbor"
    if request.header("x-amz-target"):
        return "json"
    if service == "ec2":
        return "ec2"
    form = (request.header("content-type") or "").startswith("application/x-www-form-urlencoded")
    if service in QUERY_SERVICES or "Action=" in request.query or (form and b"Action=" in request.body):
        return "query"
    return "rest-json" if service not in ("", "s3") else "s3"


def refusal(service: str, code: str, message: str, status: int) -> Response:
    """Answer with an error of a service of which only the name is known; a header names the reason."""
    response = _refusal(service, code, message, status)
    if message:
        response.headers.append(("x-modelstacks-reason", " ".join(message.split())))
    return response


def _refusal(service: str, code: str, message: str, status: int) -> Response:
    if service == "s3":
        return _answer("s3", code, status, message)
    if service == "ec2":
        return _answer("ec2", code, status, message)
    if service in QUERY_SERVICES:
        return _answer("query", code, status, message)
    return _answer("json", "AccessDeniedException" if code == "AccessDenied" else code, status, message)


def _answer(protocol: Protocol, code: str, status: int, message: str) -> Response:
    request_id = secrets.token_hex(8).upper()
    if protocol in ("s3", "ec2", "query"):
        headers = [("content-type", "application/xml"), ("x-amz-request-id", request_id)]
        return Response(status, headers, _xml(protocol, code, message, request_id).encode())
    headers = [("x-amzn-errortype", code), ("x-amzn-requestid", request_id)]
    if protocol == "cbor":
        body = b"\xa2" + b"".join(map(_cbor_text, ("__type", code, "message", message)))
        return Response(
            status, [*headers, ("content-type", "application/cbor"), ("smithy-protocol", "rpc-v2-cbor")], body
        )
    body = json.dumps({"__type": code, "message": message, "Message": message}).encode()
    return Response(status, [*headers, ("content-type", "application/x-amz-json-1.1")], body)


def _xml(protocol: Protocol, code: str, message: str, request_id: str) -> str:
    inner = f"<Code>{code}</Code><Message>{escape(message)}</Message>"
    if protocol == "s3":
        text = f"<Error>{inner}<RequestId>{request_id}</RequestId></Error>"
    elif protocol == "ec2":
        text = (
            f"<Response><Errors><Error>{inner}</Error></Errors><RequestID>{request_id}</RequestID></Response>"
        )
    else:
        text = (
            f"<ErrorResponse><Error><Type>Sender</Type>{inner}</Error>"
            f"<RequestId>{request_id}</RequestId></ErrorResponse>"
        )
    return f'<?xml version="1.0" encoding="UTF-8"?>{text}'


def _cbor_text(text: str) -> bytes:
    raw = text.encode()
    return b"\x79" + len(raw).to_bytes(2, "big") + raw
