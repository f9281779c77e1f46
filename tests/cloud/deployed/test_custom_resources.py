"""Custom resources: a function in the stack answers CloudFormation while the stack is made."""

from __future__ import annotations

import json
from typing import Any

import pytest

FUNCTION = """
import json, urllib.request

def handler(event, context):
    wanted = event["ResourceProperties"]
    if wanted.get("Mode") == "raise":
        raise ValueError("no such thing")
    if wanted.get("Mode") == "silent":
        return
    failed = event["RequestType"] != "Delete" and wanted.get("Mode") == "fail"
    answer = {
        "Status": "FAILED" if failed else "SUCCESS",
        "Reason": "it may not be",
        "PhysicalResourceId": wanted.get("Name", "thing"),
        "StackId": event["StackId"],
        "RequestId": event["RequestId"],
        "LogicalResourceId": event["LogicalResourceId"],
        "Data": {"Event": json.dumps({key: value for key, value in event.items() if key != "ResponseURL"})},
    }
    body = json.dumps(answer).encode()
    wrong = urllib.request.Request(event["ResponseURL"] + "x", data=body, method="PUT")
    try:
        urllib.request.urlopen(wrong)
    except urllib.error.HTTPError as refused:
        assert refused.code == 403
    right = urllib.request.Request(event["ResponseURL"], data=body, method="PUT")
    urllib.request.urlopen(right)
"""


def template(**properties: Any) -> str:
    trust = {"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"}
    resources = {
        "Role": {
            "Type": "AWS::IAM::Role",
            "Properties": {"AssumeRolePolicyDocument": {"Version": "2012-10-17", "Statement": [trust]}},
        },
        "Function": {
            "Type": "AWS::Lambda::Function",
            "Properties": {
                "Code": {"ZipFile": FUNCTION},
                "Handler": "index.handler",
                "Runtime": "python3.13",
                "Role": {"Fn::GetAtt": ["Role", "Arn"]},
                "Timeout": 30,
            },
        },
        "Thing": {
            "Type": "Custom::Thing",
            "Properties": {"ServiceToken": {"Fn::GetAtt": ["Function", "Arn"]}, **properties},
        },
    }
    outputs = {"Name": {"Value": {"Ref": "Thing"}}, "Event": {"Value": {"Fn::GetAtt": ["Thing", "Event"]}}}
    return json.dumps({"Resources": resources, "Outputs": outputs})


def deployed(cloud: Any, operation: str, stack: str, **properties: Any) -> dict[str, Any]:
    cloudformation = cloud.client("cloudformation")
    getattr(cloudformation, operation)(
        StackName=stack, TemplateBody=template(**properties), Capabilities=["CAPABILITY_IAM"]
    )
    cloud.until(lambda: not status(cloud, stack)["StackStatus"].endswith("IN_PROGRESS"))
    return status(cloud, stack)


def status(cloud: Any, stack: str) -> dict[str, Any]:
    found: dict[str, Any] = cloud.client("cloudformation").describe_stacks(StackName=stack)["Stacks"][0]
    return found


def reasons(cloud: Any, stack: str) -> list[str]:
    events = cloud.client("cloudformation").describe_stack_events(StackName=stack)["StackEvents"]
    return [one.get("ResourceStatusReason", "") for one in events]


def outputs(stack: dict[str, Any]) -> dict[str, str]:
    return {one["OutputKey"]: one["OutputValue"] for one in stack["Outputs"]}


def test_a_function_makes_changes_and_deletes_a_resource(cloud: Any) -> None:
    made = deployed(cloud, "create_stack", "custom", Name="one", Count=3, Ready=True)
    assert made["StackStatus"] == "CREATE_COMPLETE", reasons(cloud, "custom")
    event = json.loads(outputs(made)["Event"])
    assert outputs(made)["Name"] == "one"
    assert (event["RequestType"], event["ResourceType"]) == ("Create", "Custom::Thing")
    assert event["ResourceProperties"]["Count"] == "3", "CloudFormation sends text"
    assert event["ResourceProperties"]["Ready"] == "true"
    assert event["LogicalResourceId"] == "Thing"

    changed = deployed(cloud, "update_stack", "custom", Name="two")
    event = json.loads(outputs(changed)["Event"])
    assert (event["RequestType"], event["PhysicalResourceId"]) == ("Update", "one")
    assert event["OldResourceProperties"]["Name"] == "one"
    assert outputs(changed)["Name"] == "two"

    cloud.client("cloudformation").delete_stack(StackName="custom")
    cloud.settle()
    assert "custom" not in {one.name for one in cloud.plane.stacks()}


@pytest.mark.parametrize(
    ("mode", "reason"),
    [
        ("fail", "Received response status [FAILED] from custom resource. Message returned: it may not be"),
        ("raise", "ended without a response to the URL that it was given"),
        ("silent", "ended without a response to the URL that it was given"),
    ],
)
def test_a_function_that_refuses_or_does_not_answer_fails_the_stack(
    cloud: Any, mode: str, reason: str
) -> None:
    stack = f"custom-{mode}"
    made = deployed(cloud, "create_stack", stack, Mode=mode)
    said = reasons(cloud, stack)
    cloud.client("cloudformation").delete_stack(StackName=stack)
    assert "ROLLBACK" in made["StackStatus"]
    assert any(reason in one for one in said), said


def test_a_function_that_cannot_run_here_fails_its_stack(cloud: Any) -> None:
    trust = {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"Service": "lambda.amazonaws.com"}}
    properties = {
        "Runtime": "nodejs22.x",
        "Handler": "index.handler",
        "Role": {"Fn::GetAtt": ["Role", "Arn"]},
        "Code": {"ZipFile": "exports.handler = async () => 1"},
    }
    document = {"Version": "2012-10-17", "Statement": [trust]}
    template = {
        "Resources": {
            "Role": {"Type": "AWS::IAM::Role", "Properties": {"AssumeRolePolicyDocument": document}},
            "Function": {"Type": "AWS::Lambda::Function", "Properties": properties},
        }
    }
    cloudformation = cloud.client("cloudformation")
    cloudformation.create_stack(StackName="script", TemplateBody=json.dumps(template))
    cloud.until(lambda: cloud.status("script") == "ROLLBACK_COMPLETE")
    (said,) = [one for one in reasons(cloud, "script") if "did not stabilize" in one]
    cloudformation.delete_stack(StackName="script")
    assert "nodejs22.x" in said
