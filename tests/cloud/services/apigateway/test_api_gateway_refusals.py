"""API Gateway refuses stages that cannot log, long timeouts, and targets other than load balancers."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError
from support.control_plane import LOGGING, Account, role
from support.templates import BALANCED, changed, code


@pytest.fixture
def no_role(account: Account) -> Iterator[Account]:
    """An account whose APIs may not write logs."""
    operation = {"op": "replace", "path": "/cloudwatchRoleArn", "value": ""}
    account.client("apigateway").update_account(patchOperations=[operation])
    yield account
    account.client("apigateway").update_account(patchOperations=[operation])


def api(**stage: Any) -> dict[str, Any]:
    reference = {"RestApiId": {"Ref": "Api"}}
    place = {"ResourceId": {"Fn::GetAtt": ["Api", "RootResourceId"]}, "HttpMethod": "GET"}
    method = {**reference, **place, "AuthorizationType": "NONE", "Integration": {"Type": "MOCK"}}
    return {
        "Api": {"Type": "AWS::ApiGateway::RestApi", "Properties": {"Name": "api"}},
        "Method": {"Type": "AWS::ApiGateway::Method", "Properties": method},
        "Deployment": {
            "Type": "AWS::ApiGateway::Deployment",
            "Properties": reference,
            "DependsOn": "Method",
        },
        "Stage": {
            "Type": "AWS::ApiGateway::Stage",
            "Properties": {**reference, "StageName": "live", "DeploymentId": {"Ref": "Deployment"}, **stage},
        },
    }


ACCESS_LOG = {
    "DestinationArn": "arn:aws:logs:eu-west-1:123456789012:log-group:g",
    "Format": "$context.requestId",
}


LOGGING_STAGES: list[dict[str, Any]] = [
    {"AccessLogSetting": ACCESS_LOG},
    {"MethodSettings": [{"HttpMethod": "*", "ResourcePath": "/*", "LoggingLevel": "ERROR"}]},
    {"MethodSettings": [{"HttpMethod": "*", "ResourcePath": "/*", "DataTraceEnabled": True}]},
]


@pytest.mark.parametrize("stage", LOGGING_STAGES, ids=["access log", "execution log", "data trace"])
def test_a_stage_logs_only_once_the_account_has_a_role(no_role: Account, stage: dict[str, Any]) -> None:
    reasons = no_role.refuse("logless", api(**stage))
    assert reasons["Stage"].startswith(
        "CloudWatch Logs role ARN must be set in account settings to enable logging"
    )
    resources = copy.deepcopy(api(**stage) | LOGGING)
    resources["Stage"]["DependsOn"] = "Account"
    no_role.create("logging", resources)


def test_a_stage_without_logs_needs_no_role(no_role: Account) -> None:
    silent = {"HttpMethod": "*", "ResourcePath": "/*", "LoggingLevel": "OFF", "MetricsEnabled": True}
    ids = no_role.create("silent", api(MethodSettings=[silent]))
    on = {"op": "replace", "path": "/*/*/logging/loglevel", "value": "INFO"}
    with pytest.raises(ClientError, match="CloudWatch Logs role ARN must be set") as error:
        no_role.client("apigateway").update_stage(
            restApiId=ids["Api"], stageName="live", patchOperations=[on]
        )
    assert code(error) == "BadRequestException"


WRITES = {"Effect": "Allow", "Action": "logs:*", "Resource": "*"}


@pytest.mark.parametrize(
    ("roles", "missing"),
    [
        (
            {"LogsRole": role("lambda.amazonaws.com", WRITES)},
            "does not let apigateway.amazonaws.com assume it",
        ),
        ({"LogsRole": role("apigateway.amazonaws.com")}, "do not allow logs:CreateLogGroup"),
    ],
    ids=["trust", "permissions"],
)
def test_the_account_takes_no_role_that_cannot_write_logs(
    no_role: Account, roles: dict[str, Any], missing: str
) -> None:
    reason = no_role.refuse("wrong-role", LOGGING | roles)["Account"]
    assert reason.startswith("The role ARN does not have required permissions configured.")
    assert missing in reason
    assert not no_role.client("apigateway").get_account().get("cloudwatchRoleArn")


@pytest.mark.parametrize(
    ("timeout", "more", "limit"),
    [(29_001, {}, 29_000), (900_001, {"ResponseTransferMode": "STREAM"}, 900_000)],
)
def test_an_integration_times_out_within_the_quota(
    account: Account, timeout: int, more: dict[str, Any], limit: int
) -> None:
    def integration(milliseconds: int) -> dict[str, Any]:
        return {
            "Type": "HTTP_PROXY",
            "IntegrationHttpMethod": "GET",
            "Uri": "https://example.com",
            "TimeoutInMillis": milliseconds,
            **more,
        }

    reasons = account.refuse("hasty", changed(api(), "Method", Integration=integration(timeout)))
    assert reasons["Method"].startswith(f"Timeout should be between 50 ms and {limit} ms")
    ids = account.create("patient", changed(api(), "Method", Integration=integration(limit)))
    gateway = account.client("apigateway")
    refused = changed(api(), "Method", Integration=integration(timeout))
    assert "Timeout should be between" in account.refuse_update("patient", refused)["Method"]
    (root,) = gateway.get_resources(restApiId=ids["Api"])["items"]
    kept = gateway.get_integration(restApiId=ids["Api"], resourceId=root["id"], httpMethod="GET")
    assert kept["timeoutInMillis"] == limit
    with pytest.raises(ClientError, match="Timeout should be between 50 ms and 29000 ms"):
        gateway.put_integration(
            restApiId=ids["Api"], resourceId=root["id"], httpMethod="GET", type="MOCK", timeoutInMillis=49
        )


LINK = {
    "Type": "AWS::ApiGatewayV2::VpcLink",
    "Properties": {"Name": "l", "SubnetIds": [{"Ref": "Subnet"}], "SecurityGroupIds": [{"Ref": "Group"}]},
}


def private(**target: Any) -> dict[str, Any]:
    """An API that sends to a load balancer over a VPC link."""
    integration = {
        "Type": "HTTP_PROXY",
        "IntegrationHttpMethod": "GET",
        "Uri": "http://balancer.internal",
        "ConnectionType": "VPC_LINK",
        "ConnectionId": {"Ref": "Link"},
        **target,
    }
    return BALANCED | {"Link": LINK} | changed(api(), "Method", Integration=integration)


def test_a_private_integration_sends_to_a_load_balancer(account: Account) -> None:
    ids = account.create("private", private(IntegrationTarget={"Ref": "Balancer"}))
    account.delete("private")
    listener = account.refuse("listener", private(IntegrationTarget={"Ref": "Listener"}))["Method"]
    assert ":listener/app/" in listener
    assert "is not a valid ALB or NLB arn" in listener
    assert "Error Code: BadRequestException" in listener
    nowhere = account.refuse("nowhere", private())["Method"]
    assert nowhere.startswith("IntegrationTarget is required for VpcLinkV2")
    assert ids["Link"]
