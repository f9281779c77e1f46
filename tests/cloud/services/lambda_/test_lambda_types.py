"""Lambda: made by CloudFormation, read back by boto3, changed, deleted."""

from __future__ import annotations

import copy
import io
import zipfile
from typing import Any
from urllib.parse import urlsplit

import pytest
from botocore.exceptions import ClientError
from support.control_plane import NETWORK, Account, role


def function(account: Account) -> dict[str, Any]:
    """A function in a VPC, whose code lies in a bucket as an asset does."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("index.py", "def handler(event, context): return 1")
    s3 = account.client("s3")
    s3.create_bucket(Bucket="code", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    s3.put_object(Bucket="code", Key="asset.zip", Body=packed.getvalue())
    interfaces = {"Effect": "Allow", "Action": "ec2:*NetworkInterface*", "Resource": "*"}
    return NETWORK | {
        "Role": role("lambda.amazonaws.com", interfaces),
        "Function": {
            "Type": "AWS::Lambda::Function",
            "Properties": {
                "Runtime": "python3.13",
                "Handler": "index.handler",
                "Role": {"Fn::GetAtt": ["Role", "Arn"]},
                "Code": {"S3Bucket": "code", "S3Key": "asset.zip"},
                "Architectures": ["arm64"],
                "Timeout": 25,
                "MemorySize": 256,
                "ReservedConcurrentExecutions": 20,
                "Environment": {"Variables": {"ENDPOINT_NAME": "e"}},
                "TracingConfig": {"Mode": "Active"},
                "LoggingConfig": {"LogGroup": "functions", "LogFormat": "JSON"},
                "VpcConfig": {"SubnetIds": [{"Ref": "Subnet"}], "SecurityGroupIds": [{"Ref": "Group"}]},
            },
        },
        "MayInvoke": {
            "Type": "AWS::Lambda::Permission",
            "Properties": {
                "Action": "lambda:InvokeFunction",
                "FunctionName": {"Fn::GetAtt": ["Function", "Arn"]},
                "Principal": "apigateway.amazonaws.com",
                "SourceArn": "arn:aws:execute-api:eu-west-1:123456789012:api/live/POST/invocations",
            },
        },
    }


def test_a_function_with_its_surroundings_and_its_code(account: Account) -> None:
    resources = function(account)
    ids = account.create("function", resources)
    client = account.client("lambda")
    found = client.get_function(FunctionName=ids["Function"])
    own = found["Configuration"]
    assert (own["Timeout"], own["MemorySize"], own["Architectures"]) == (25, 256, ["arm64"])
    assert own["Environment"]["Variables"] == {"ENDPOINT_NAME": "e"}
    assert own["VpcConfig"]["SubnetIds"] == [ids["Subnet"]]
    assert own["VpcConfig"]["SecurityGroupIds"] == [ids["Group"]]
    assert own["LoggingConfig"] == {"LogGroup": "functions", "LogFormat": "JSON"}
    assert found["Concurrency"]["ReservedConcurrentExecutions"] == 20
    where = urlsplit(found["Code"]["Location"]).path
    assert zipfile.ZipFile(io.BytesIO(account.control_plane.get(where))).namelist() == ["index.py"]
    guessed = where.replace(where.split("/")[3], "a-guess")
    assert account.control_plane.get(guessed) == b""
    assert "execute-api" in client.get_policy(FunctionName=ids["Function"])["Policy"]

    other = copy.deepcopy(resources)
    own = other["Function"]["Properties"]
    own |= {"Timeout": 10, "ReservedConcurrentExecutions": 5}
    del own["Environment"]
    assert account.update("function", other)["Function"] == ids["Function"]
    found = client.get_function(FunctionName=ids["Function"])
    assert found["Configuration"]["Timeout"] == 10
    assert not found["Configuration"].get("Environment", {}).get("Variables")
    assert found["Concurrency"]["ReservedConcurrentExecutions"] == 5
    account.delete("function")
    assert client.list_functions()["Functions"] == []


def test_a_function_s_permission_can_go_alone(account: Account) -> None:
    inline = "def handler(event, context):\n    return 1\n"
    resources = {
        "Role": role("lambda.amazonaws.com"),
        "Function": {
            "Type": "AWS::Lambda::Function",
            "Properties": {
                "Runtime": "python3.13",
                "Handler": "index.handler",
                "Role": {"Fn::GetAtt": ["Role", "Arn"]},
                "Code": {"ZipFile": inline},
            },
        },
        "MayInvoke": {
            "Type": "AWS::Lambda::Permission",
            "Properties": {
                "Action": "lambda:InvokeFunction",
                "FunctionName": {"Ref": "Function"},
                "Principal": "apigateway.amazonaws.com",
            },
        },
    }
    ids = account.create("inline", resources)
    client = account.client("lambda")
    where = urlsplit(client.get_function(FunctionName=ids["Function"])["Code"]["Location"]).path
    code = zipfile.ZipFile(io.BytesIO(account.control_plane.get(where)))
    assert code.read("index.py").decode() == inline
    del resources["MayInvoke"]
    account.update("inline", resources)
    assert "apigateway" not in str(client.get_function(FunctionName=ids["Function"]))
    with pytest.raises(ClientError):
        client.get_policy(FunctionName=ids["Function"])
