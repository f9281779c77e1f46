"""Listener rules: which one applies to a request, and what it makes of it."""

from __future__ import annotations

import fnmatch
import ipaddress
import re
from collections.abc import Mapping
from typing import Any

from modelstacks.cloud.host.wire import Request, Response
from modelstacks.cloud.services.elbv2.snapshot import ListenerRule

__all__ = ["applies", "forwarded_to", "redirect", "transformed"]


def applies(rule: ListenerRule, request: Request) -> bool:
    """Whether every condition of a rule holds; the default rule has none."""
    return rule.priority is None or all(_condition(one, request) for one in rule.conditions)


def _condition(condition: Mapping[str, Any], request: Request) -> bool:
    name = condition["Field"]
    if name == "path-pattern":
        config = condition.get("PathPatternConfig") or {}
        values = config.get("Values") or condition.get("Values") or []
        return any(_like(request.path, value) for value in values) or any(
            re.search(value, request.path) for value in config.get("RegexValues") or []
        )
    if name == "host-header":
        host = (request.header("host") or "").partition(":")[0].lower()
        values = (condition.get("HostHeaderConfig") or {}).get("Values") or condition.get("Values") or []
        return any(_like(host, value.lower()) for value in values)
    if name == "http-request-method":
        return request.method in condition["HttpRequestMethodConfig"]["Values"]
    if name == "http-header":
        config = condition["HttpHeaderConfig"]
        got = request.header(config["HttpHeaderName"].lower()) or ""
        return any(_like(got.lower(), value.lower()) for value in config["Values"])
    if name == "query-string":
        pairs = [pair.partition("=")[::2] for pair in request.query.split("&") if pair]
        return any(
            any(_like(value, wanted["Value"]) and wanted.get("Key") in (None, key) for key, value in pairs)
            for wanted in condition["QueryStringConfig"]["Values"]
        )
    if name == "source-ip":
        return any(
            ipaddress.ip_address(request.client) in ipaddress.ip_network(value, strict=False)
            for value in condition["SourceIpConfig"]["Values"]
        )
    return False


def _like(value: str, pattern: str) -> bool:
    """ALB's wildcards: * and ?; brackets are ordinary characters."""
    return fnmatch.fnmatchcase(value, pattern.replace("[", "[[]"))


def forwarded_to(rule: ListenerRule) -> list[str]:
    """The target groups that a rule forwards to, the heaviest first."""
    found: list[tuple[int, str]] = []
    for action in rule.actions:
        if action["Type"] != "forward":
            continue
        many = (action.get("ForwardConfig") or {}).get("TargetGroups") or []
        found += [(int(one.get("Weight", 1)), one["TargetGroupArn"]) for one in many]
        if not many and action.get("TargetGroupArn"):
            found.append((1, action["TargetGroupArn"]))
    return [arn for weight, arn in sorted(found, key=lambda pair: -pair[0]) if weight > 0]


def transformed(rule: ListenerRule, request: Request) -> Request:
    """Apply a rule's transforms: url-rewrite changes path and query, host-header-rewrite the host."""
    for transform in rule.transforms:
        if transform["Type"] == "url-rewrite":
            target = _rewritten(request.target, transform["UrlRewriteConfig"]["Rewrites"])
            path, _, query = target.partition("?")
            request = Request(request.method, path, query, request.headers, request.body, request.client)
        elif transform["Type"] == "host-header-rewrite":
            host = _rewritten(request.header("host") or "", transform["HostHeaderRewriteConfig"]["Rewrites"])
            headers = [(key, value) for key, value in request.headers if key.lower() != "host"]
            request = Request(
                request.method,
                request.path,
                request.query,
                [("Host", host), *headers],
                request.body,
                request.client,
            )
    return request


def _rewritten(value: str, rewrites: list[Mapping[str, str]]) -> str:
    for rewrite in rewrites:
        groups = re.sub(r"\$(\d)", r"\\g<\1>", rewrite["Replace"].replace("\\", r"\\"))
        value, changed = re.subn(rewrite["Regex"], groups, value, count=1)
        if changed:
            break
    return value


def redirect(config: Mapping[str, Any], request: Request) -> Response:
    """The answer of a redirect action."""
    host = (request.header("host") or "").partition(":")[0]
    values = {"#{host}": host, "#{path}": request.path.lstrip("/"), "#{query}": request.query,
              "#{port}": "80", "#{protocol}": "http"}  # fmt: skip

    def filled(text: str) -> str:
        for name, value in values.items():
            text = text.replace(name, value)
        return text

    protocol, port = (
        filled(config.get("Protocol", "#{protocol}")).lower(),
        filled(config.get("Port", "#{port}")),
    )
    path, query = filled(config.get("Path", "/#{path}")), filled(config.get("Query", "#{query}"))
    location = f"{protocol}://{filled(config.get('Host', '#{host}'))}:{port}{path}" + (
        f"?{query}" if query else ""
    )
    return Response(int(config["StatusCode"].removeprefix("HTTP_")), [("location", location)])
