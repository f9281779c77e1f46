"""Lambda refuses retired runtimes, limits that are passed and reservations that leave too little."""

from __future__ import annotations

import io
import json
import zipfile
from datetime import UTC, datetime
from typing import Any

import pytest
from botocore.exceptions import ClientError
from support.control_plane import NETWORK, Account, role
from support.templates import code

from modelstacks.cloud.services.lambda_.runtimes import lambda_runtimes


def packed(name: str, text: str) -> bytes:
    """A zip archive of one file."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr(name, text)
    return made.getvalue()


def function(**properties: Any) -> dict[str, Any]:
    own = {
        "Runtime": "python3.13",
        "Handler": "index.handler",
        "Code": {"ZipFile": "def handler(event, context): pass"},
        "Role": {"Fn::GetAtt": ["FunctionRole", "Arn"]},
        **properties,
    }
    return {
        "FunctionRole": role("lambda.amazonaws.com"),
        "Function": {"Type": "AWS::Lambda::Function", "Properties": own},
    }


@pytest.mark.parametrize(
    ("properties", "reason"),
    [
        (
            {"Runtime": "python3.7"},
            "The runtime parameter of python3.7 is no longer supported for creating or updating AWS Lambda",
        ),
        (
            {"Runtime": "python3.6"},
            "The runtime parameter of python3.6 is no longer supported for creating or updating AWS Lambda",
        ),
        (
            {"Timeout": 901},
            "1 validation error detected: Value '901' at 'timeout' failed to satisfy constraint",
        ),
        (
            {"MemorySize": 10_241},
            "1 validation error detected: Value '10241' at 'memorySize' failed to satisfy",
        ),
    ],
)
def test_a_function_is_refused(account: Account, properties: dict[str, Any], reason: str) -> None:
    assert account.refuse("functions", function(**properties))["Function"].startswith(reason)


def test_a_function_within_the_limits_is_made_and_not_changed_beyond_them(account: Account) -> None:
    ids = account.create("function", function(Timeout=900, MemorySize=10_240))
    client = account.client("lambda")
    for change, kind in (
        ({"Timeout": 901}, "ValidationException"),
        ({"Runtime": "python3.6"}, "InvalidParameterValueException"),
        ({"Runtime": "python9.9"}, "InvalidParameterValueException"),
    ):
        with pytest.raises(ClientError) as error:
            client.update_function_configuration(FunctionName=ids["Function"], **change)
        assert code(error) == kind
    assert json.dumps(client.get_function_configuration(FunctionName=ids["Function"])["Timeout"]) == "900"


def test_a_reservation_leaves_a_hundred_executions_to_the_others(account: Account) -> None:
    reason = account.refuse("greedy", function(ReservedConcurrentExecutions=901))["Function"]
    assert reason.startswith(
        "Specified ReservedConcurrentExecutions for function decreases account's "
        "UnreservedConcurrentExecution below its minimum value of [100]."
    )
    client = account.client("lambda")
    assert client.list_functions()["Functions"] == []
    ids = account.create("first", function(ReservedConcurrentExecutions=500))
    account.create("second", function(ReservedConcurrentExecutions=400))
    assert (
        "below its minimum value"
        in account.refuse("third", function(ReservedConcurrentExecutions=1))["Function"]
    )
    none = account.create("stopped", function(ReservedConcurrentExecutions=0))["Function"]
    assert client.get_function(FunctionName=none)["Concurrency"] == {"ReservedConcurrentExecutions": 0}
    with pytest.raises(ClientError, match="below its minimum value") as error:
        client.put_function_concurrency(FunctionName=ids["Function"], ReservedConcurrentExecutions=501)
    assert code(error) == "InvalidParameterValueException"
    client.put_function_concurrency(FunctionName=ids["Function"], ReservedConcurrentExecutions=499)


def test_no_runtime_is_created_after_the_day_on_which_aws_blocked_it(account: Account) -> None:
    today = datetime.now(UTC).date().isoformat()
    trust = json.dumps(role("lambda.amazonaws.com")["Properties"]["AssumeRolePolicyDocument"])
    iam, client = account.client("iam"), account.client("lambda")
    arn = iam.create_role(RoleName="runtimes", AssumeRolePolicyDocument=trust)["Role"]["Arn"]
    code_ = {"ZipFile": packed("index.py", "def handler(event, context): pass")}
    created = set()
    for runtime in lambda_runtimes():
        try:
            client.create_function(FunctionName="f", Runtime=runtime, Handler="index.h", Role=arn, Code=code_)
        except client.exceptions.InvalidParameterValueException:
            continue
        created.add(runtime)
        client.delete_function(FunctionName="f")
    iam.delete_role(RoleName="runtimes")
    blocked = {name for name, life in lambda_runtimes().items() if (life["create-block"] or "9") <= today}
    assert {"python3.7", "nodejs14.x", "python3.6"} <= blocked
    assert created
    assert not created & blocked


def test_a_role_that_lambda_may_not_assume_is_refused(account: Account) -> None:
    resources = function() | {"FunctionRole": role("ec2.amazonaws.com")}
    reason = account.refuse("wrong-role", resources)["Function"]
    assert reason.startswith("The role defined for the function cannot be assumed by Lambda.")
    ids = account.create("right-role", function() | {"Other": role("ec2.amazonaws.com")})
    other = account.client("iam").get_role(RoleName=ids["Other"])["Role"]["Arn"]
    with pytest.raises(ClientError, match="cannot be assumed by Lambda"):
        account.client("lambda").update_function_configuration(FunctionName=ids["Function"], Role=other)


def test_a_function_in_a_network_needs_a_role_that_may_make_network_interfaces(account: Account) -> None:
    wires = {"SubnetIds": [{"Ref": "Subnet"}], "SecurityGroupIds": [{"Ref": "Group"}]}
    resources = NETWORK | function(VpcConfig=wires)
    reason = account.refuse("unwired", resources)["Function"]
    assert reason.startswith(
        "The provided execution role does not have permissions to call CreateNetworkInterface on EC2"
    )
    interfaces = {"Effect": "Allow", "Action": "ec2:*NetworkInterface*", "Resource": "*"}
    account.create("wired", resources | {"FunctionRole": role("lambda.amazonaws.com", interfaces)})
