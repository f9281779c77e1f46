"""A load balancer's rules: which one applies, and what its transforms make of the request."""

from __future__ import annotations

from typing import Any

import pytest

from modelstacks.cloud.host.wire import Request
from modelstacks.cloud.services.elbv2.answers import matches
from modelstacks.cloud.services.elbv2.rules import applies, transformed
from modelstacks.cloud.services.elbv2.snapshot import ListenerRule


def rule(*conditions: dict[str, Any], transforms: tuple[dict[str, Any], ...] = ()) -> ListenerRule:
    return ListenerRule(1, conditions, (), transforms)


def path(*patterns: str) -> dict[str, Any]:
    return {"Field": "path-pattern", "PathPatternConfig": {"Values": list(patterns)}}


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        (path("/live/*"), True),
        (path("/dev/*", "/live/v?/*"), True),
        (path("/LIVE/*"), False),
        (path("/live/[v]2/*"), False),
        ({"Field": "host-header", "HostHeaderConfig": {"Values": ["*.Example.com"]}}, True),
        ({"Field": "http-request-method", "HttpRequestMethodConfig": {"Values": ["GET"]}}, False),
        ({"Field": "http-header", "HttpHeaderConfig": {"HttpHeaderName": "X-Kind", "Values": ["a*"]}}, True),
        ({"Field": "query-string", "QueryStringConfig": {"Values": [{"Key": "v", "Value": "1"}]}}, True),
        ({"Field": "query-string", "QueryStringConfig": {"Values": [{"Key": "w", "Value": "1"}]}}, False),
        ({"Field": "source-ip", "SourceIpConfig": {"Values": ["10.0.0.0/8"]}}, False),
        ({"Field": "something-new"}, False),
    ],
)
def test_a_condition(condition: dict[str, Any], holds: bool) -> None:
    headers = [("Host", "api.example.com:80"), ("x-kind", "Abc")]
    request = Request("POST", "/live/v2/models", "v=1", headers, client="192.0.2.1")
    assert applies(rule(condition), request) is holds


def test_every_condition_has_to_hold_and_the_default_rule_has_none() -> None:
    request = Request("GET", "/live/x")
    method = {"Field": "http-request-method", "HttpRequestMethodConfig": {"Values": ["POST"]}}
    assert not applies(rule(path("/live/*"), method), request)
    assert applies(ListenerRule(None, (), (), ()), request)


@pytest.mark.parametrize(
    ("target", "rewritten"),
    [
        ("/live/invocations", "/invocations"),
        ("/live/v2/models/a%20b/infer?x=/live/y", "/v2/models/a%20b/infer?x=/live/y"),
        ("/other/live/x", "/other/live/x"),
        ("/invocations?x=/live/y", "/invocations?x=/live/y"),
        ("/live/live/x", "/live/x"),
        ("/livex", "/livex"),
        ("/live", "/live"),
        ("/", "/"),
    ],
)
def test_a_url_rewrite_takes_the_stage_away(target: str, rewritten: str) -> None:
    rewrite = {"Rewrites": [{"Regex": "^/live(/.*)$", "Replace": "$1"}]}
    strip = {"Type": "url-rewrite", "UrlRewriteConfig": rewrite}
    route, _, query = target.partition("?")
    assert transformed(rule(transforms=(strip,)), Request("GET", route, query)).target == rewritten


def test_a_host_rewrite_changes_the_host_alone() -> None:
    rewrite = {
        "Type": "host-header-rewrite",
        "HostHeaderRewriteConfig": {"Rewrites": [{"Regex": ".*", "Replace": "m"}]},
    }
    changed = transformed(rule(transforms=(rewrite,)), Request("GET", "/", "", [("host", "a"), ("x", "1")]))
    assert changed.headers == [("Host", "m"), ("x", "1")]


@pytest.mark.parametrize(
    ("matcher", "status", "good"),
    [
        ("200", 200, True),
        ("200", 204, False),
        ("200,204", 204, True),
        ("200-299", 250, True),
        ("200-299", 300, False),
    ],
)
def test_a_health_checks_matcher(matcher: str, status: int, good: bool) -> None:
    assert matches(matcher, status) is good
