"""Desync mitigation: how an Application Load Balancer classifies a request, and which it refuses.

Classes and reasons are those of AWS's http-desync-guardian, as the load balancer's user guide lists them
("Desync mitigation mode"), as far as a request can have them that API Gateway has parsed and framed anew.
"""

from __future__ import annotations

import re
from enum import IntEnum
from typing import Literal

from modelstacks.cloud.host.wire import Request

__all__ = ["Class", "Mode", "classify", "refusal"]

Mode = Literal["monitor", "defensive", "strictest"]

_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_LINE_ENDS = re.compile(r"[\x00\r\n]")
_FRAMING = ("transferencoding", "contentlength")


class Class(IntEnum):
    """How dangerous a request is, the least first."""

    COMPLIANT = 0
    ACCEPTABLE = 1
    AMBIGUOUS = 2
    SEVERE = 3


#: Mode -> the least dangerous class that it answers with 400.
_REFUSED = {"monitor": None, "defensive": Class.SEVERE, "strictest": Class.ACCEPTABLE}


def classify(request: Request) -> tuple[Class, str]:
    """The worst class that something in the request has, and the guardian's name for that."""
    found = [*_of_target(request), *_of_headers(request), *_of_framing(request)]
    return max(found, default=(Class.COMPLIANT, "Compliant"), key=lambda one: one[0])


def refusal(mode: str, request: Request) -> str:
    """Why a load balancer in this mode answers 400; empty where it lets the request pass."""
    least = _REFUSED.get(mode, Class.SEVERE)
    if least is None:
        return ""
    kind, reason = classify(request)
    if kind < least:
        return ""
    return f"desync mitigation mode {mode} blocks {kind.name.lower()} requests: {reason}"


def _of_target(request: Request) -> list[tuple[Class, str]]:
    target = request.target
    found = []
    if _LINE_ENDS.search(target):
        found.append((Class.SEVERE, "BadUri"))
    elif _CONTROL.search(target):
        found.append((Class.AMBIGUOUS, "AmbiguousUri"))
    if " " in target:
        found.append((Class.ACCEPTABLE, "SpaceInUri"))
    return found


def _of_headers(request: Request) -> list[tuple[Class, str]]:
    found = []
    for name, value in request.headers:
        plain = re.sub(r"[^a-z]", "", name.lower())
        if _LINE_ENDS.search(value):
            found.append((Class.SEVERE, f"BadHeader ({name})"))
        elif not value.strip():
            found.append((Class.AMBIGUOUS, f"EmptyHeader ({name})"))
        elif _CONTROL.search(value) or not value.isascii() or not name.isascii():
            found.append((Class.ACCEPTABLE, f"NonCompliantHeader ({name})"))
        if plain in _FRAMING and name.lower() not in ("transfer-encoding", "content-length"):
            found.append((Class.AMBIGUOUS, f"SuspiciousHeader ({name})"))
    return found


def _of_framing(request: Request) -> list[tuple[Class, str]]:
    lengths = [value.strip() for name, value in request.headers if name.lower() == "content-length"]
    codings = [value for name, value in request.headers if name.lower() == "transfer-encoding"]
    bodiless = request.method in ("GET", "HEAD")
    found = []
    if any(not length.isdecimal() for length in lengths):
        found.append((Class.SEVERE, "BadContentLength"))
    elif len(set(lengths)) > 1:
        found.append((Class.SEVERE, "MultipleContentLength"))
    elif len(lengths) > 1:
        found.append((Class.AMBIGUOUS, "DuplicateContentLength"))
    elif lengths and bodiless:
        empty = int(lengths[0]) == 0
        found.append(
            (Class.ACCEPTABLE, "GetHeadZeroContentLength")
            if empty
            else (Class.AMBIGUOUS, "UndefinedContentLengthSemantics")
        )
    if codings and lengths:
        found.append((Class.AMBIGUOUS, "BothTeClPresent"))
    if len(codings) > 1:
        found.append((Class.SEVERE, "MultipleTransferEncodingChunked"))
    elif codings and codings[0].strip().lower() not in ("chunked", "identity", "gzip", "deflate", "compress"):
        found.append((Class.SEVERE, "BadTransferEncoding"))
    elif codings and bodiless:
        found.append((Class.AMBIGUOUS, "UndefinedTransferEncodingSemantics"))
    return found
