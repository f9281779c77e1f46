"""Which resource of a REST API a path belongs to."""

from __future__ import annotations

import pytest

from modelstacks.cloud.services.apigateway.matching import match
from modelstacks.cloud.services.apigateway.snapshot import Method, Resource


def resource(path: str, *methods: str) -> Resource:
    made = {name: Method(name, "NONE", False, None, (), {}, None) for name in methods}
    return Resource(path, path, made)


RESOURCES = (
    resource("/"),
    resource("/{proxy+}", "ANY"),
    resource("/v2", "GET"),
    resource("/v2/models/{model}", "GET"),
    resource("/v2/models/{model}/infer", "POST"),
    resource("/v2/models/default", "GET"),
    resource("/files/{key+}", "GET"),
)


@pytest.mark.parametrize(
    ("method", "path", "found", "parameters"),
    [
        ("GET", "/v2", "/v2", {}),
        ("GET", "/v2/", "/v2", {}),
        ("GET", "/v2/models/churn", "/v2/models/{model}", {"model": "churn"}),
        ("GET", "/v2/models/a%2Fb", "/v2/models/{model}", {"model": "a/b"}),
        ("GET", "/v2/models/default", "/v2/models/default", {}),
        ("POST", "/v2/models/churn/infer", "/v2/models/{model}/infer", {"model": "churn"}),
        ("GET", "/files/a/b/c", "/files/{key+}", {"key": "a/b/c"}),
        ("DELETE", "/v2/models/churn", "/{proxy+}", {"proxy": "v2/models/churn"}),
        ("GET", "/elsewhere", "/{proxy+}", {"proxy": "elsewhere"}),
    ],
)
def test_the_most_specific_resource_with_the_method(
    method: str, path: str, found: str, parameters: dict[str, str]
) -> None:
    matched = match(RESOURCES, path, method)
    assert matched is not None
    assert (matched[0].path, matched[2]) == (found, parameters)


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/"), ("POST", "/v2"), ("GET", "/v2/models/a/b"), ("GET", "/x")]
)
def test_nothing_else(method: str, path: str) -> None:
    without_proxy = tuple(one for one in RESOURCES if one.path != "/{proxy+}")
    assert match(without_proxy, path, method) is None
