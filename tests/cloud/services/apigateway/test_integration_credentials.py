"""A function is invoked by its own policy's leave, or with the role that the integration names."""

from __future__ import annotations

from typing import Any

import pytest

from modelstacks.cloud.host.wire import Request
from modelstacks.cloud.services.apigateway.call import Call
from modelstacks.cloud.services.apigateway.lambda_integration import refused
from modelstacks.cloud.services.apigateway.snapshot import Integration, Method, Resource, RestApi, Stage
from modelstacks.cloud.services.iam.snapshot import IamSnapshot, Policy, Role
from modelstacks.cloud.services.lambda_.snapshot import Function
from modelstacks.cloud.snapshot import Account

ROLE = "arn:aws:iam::123456789012:role/Api"
FUNCTION = "arn:aws:lambda:us-east-1:123456789012:function:invoke"
GATEWAY = {"Service": "apigateway.amazonaws.com"}


def function(policy: Policy | None = None) -> Function:
    return Function(
        name="invoke",
        arn=FUNCTION,
        handler="handler.handler",
        runtime="python3.12",
        timeout=3,
        memory=128,
        environment={},
        role_arn=ROLE,
        network=None,
        reserved_concurrency=None,
        code_sha256="",
        code_location="",
        package_type="Zip",
        log_group="",
        revision="",
        policy=policy,
    )


def account(trusted: dict[str, Any], *actions: str) -> Account:
    trust = {"Effect": "Allow", "Principal": trusted, "Action": "sts:AssumeRole"}
    allow = {"Effect": "Allow", "Action": list(actions), "Resource": FUNCTION}
    policies = (Policy("policy api", {"Statement": [allow]}),) if actions else ()
    role = Role("Api", ROLE, Policy("the trust policy", {"Statement": [trust]}), policies)
    return Account(IamSnapshot({ROLE: role}))


def call(credentials: str) -> tuple[Call, Integration]:
    integration = Integration("AWS_PROXY", "POST", "", "", "", "", {}, 29000, False, credentials, "")
    method = Method("POST", "NONE", False, None, (), {}, integration)
    resource = Resource("r", "/x", {})
    stage, api = Stage("live", "d", {}, {}), RestApi("a", "api", (), {}, None, (), {})
    return Call(api, stage, resource, method, "/x", {}, Request("POST", "/live/x"), "", "", ""), integration


def test_the_integrations_role_invokes_the_function_without_a_policy_of_the_functions() -> None:
    assert refused(account(GATEWAY, "lambda:InvokeFunction"), *call(ROLE), function()) is None


@pytest.mark.parametrize(
    ("known", "credentials", "reason"),
    [
        (
            account({"Service": "lambda.amazonaws.com"}, "lambda:InvokeFunction"),
            ROLE,
            "does not let apigateway",
        ),
        (account(GATEWAY), ROLE, "is not authorized to perform: lambda:InvokeFunction"),
        (account(GATEWAY, "lambda:InvokeFunction"), "arn:aws:iam::*:user/*", "are no role's"),
    ],
    ids=["a role that API Gateway may not assume", "a role that may not invoke", "the caller's own"],
)
def test_credentials_that_do_not_reach_the_function_are_refused(
    known: Account, credentials: str, reason: str
) -> None:
    found = refused(known, *call(credentials), function())
    assert found is not None
    assert reason in found.reason


def test_without_credentials_the_functions_policy_decides() -> None:
    allow = {"Effect": "Allow", "Principal": GATEWAY, "Action": "lambda:InvokeFunction", "Resource": FUNCTION}
    policy = Policy("the resource policy", {"Statement": [allow]})
    assert refused(account(GATEWAY), *call(""), function(policy)) is None
    found = refused(account(GATEWAY), *call(""), function())
    assert found is not None
    assert "no resource policy of lambda invoke lets apigateway.amazonaws.com invoke it" in found.reason
