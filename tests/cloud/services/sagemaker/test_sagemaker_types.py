"""SageMaker: made by CloudFormation, read back by boto3, changed, deleted."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from botocore.exceptions import ClientError
from support.control_plane import NETWORK, Account, role


def endpoint(instance_type: str = "ml.g5.xlarge") -> dict[str, Any]:
    """A SageMaker endpoint in a VPC, from a model archive in S3."""
    source = {"S3Uri": "s3://bucket/model.tar.gz", "S3DataType": "S3Object", "CompressionType": "Gzip"}
    variant = {
        "ModelName": {"Fn::GetAtt": ["Model", "ModelName"]},
        "VariantName": "AllTraffic",
        "InstanceType": instance_type,
        "InitialInstanceCount": 2,
        "InitialVariantWeight": 1,
        "ContainerStartupHealthCheckTimeoutInSeconds": 300,
    }
    return NETWORK | {
        "Role": role("sagemaker.amazonaws.com"),
        "Model": {
            "Type": "AWS::SageMaker::Model",
            "Properties": {
                "ExecutionRoleArn": {"Fn::GetAtt": ["Role", "Arn"]},
                "EnableNetworkIsolation": True,
                "VpcConfig": {"Subnets": [{"Ref": "Subnet"}], "SecurityGroupIds": [{"Ref": "Group"}]},
                "PrimaryContainer": {
                    "Image": "123456789012.dkr.ecr.eu-west-1.amazonaws.com/images:1",
                    "Environment": {"MODEL_SERVER_MODEL_NAME": "churn"},
                    "ModelDataSource": {"S3DataSource": source},
                },
            },
        },
        "Config": {"Type": "AWS::SageMaker::EndpointConfig", "Properties": {"ProductionVariants": [variant]}},
        "Endpoint": {
            "Type": "AWS::SageMaker::Endpoint",
            "Properties": {
                "EndpointConfigName": {"Fn::GetAtt": ["Config", "EndpointConfigName"]},
                "RetainAllVariantProperties": False,
            },
        },
    }


def name(arn: str) -> str:
    return arn.rsplit("/", 1)[1]


def test_an_endpoint_with_its_model(account: Account) -> None:
    ids = account.create("endpoint", endpoint())
    sagemaker = account.client("sagemaker")
    model = sagemaker.describe_model(ModelName=name(ids["Model"]))
    assert model["EnableNetworkIsolation"] is True
    assert model["VpcConfig"] == {"Subnets": [ids["Subnet"]], "SecurityGroupIds": [ids["Group"]]}
    source = model["PrimaryContainer"]["ModelDataSource"]["S3DataSource"]
    assert (source["S3Uri"], source["CompressionType"]) == ("s3://bucket/model.tar.gz", "Gzip")
    assert model["PrimaryContainer"]["Environment"] == {"MODEL_SERVER_MODEL_NAME": "churn"}
    config = sagemaker.describe_endpoint_config(EndpointConfigName=name(ids["Config"]))
    (variant,) = config["ProductionVariants"]
    assert (variant["InstanceType"], variant["InitialInstanceCount"]) == ("ml.g5.xlarge", 2)
    assert variant["ModelName"] == name(ids["Model"])
    found = sagemaker.describe_endpoint(EndpointName=name(ids["Endpoint"]))
    assert found["EndpointConfigName"] == name(ids["Config"])
    assert found["EndpointStatus"] == "InService"


def test_an_endpoint_takes_a_new_configuration_and_the_old_one_goes(account: Account) -> None:
    resources = endpoint()
    ids = account.create("updated", resources)
    other = copy.deepcopy(resources)
    other["Config"]["Properties"]["ProductionVariants"][0]["InitialInstanceCount"] = 3
    after = account.update("updated", other)
    assert after["Endpoint"] == ids["Endpoint"]
    assert after["Config"] != ids["Config"]
    sagemaker = account.client("sagemaker")
    found = sagemaker.describe_endpoint(EndpointName=name(ids["Endpoint"]))
    assert found["EndpointConfigName"] == name(after["Config"])
    assert found["ProductionVariants"][0]["DesiredInstanceCount"] == 3
    with pytest.raises(ClientError, match="Could not find endpoint configuration"):
        sagemaker.describe_endpoint_config(EndpointConfigName=name(ids["Config"]))
    account.delete("updated")
    assert sagemaker.list_endpoints()["Endpoints"] == []


def test_an_instance_type_that_does_not_exist_fails_the_endpoint_configuration(account: Account) -> None:
    account.stacks.append("mistyped")
    body = account.template(endpoint("ml.g5.huge"))
    account.client("cloudformation").create_stack(StackName="mistyped", TemplateBody=body)
    assert account.status("mistyped") == "ROLLBACK_COMPLETE"
    assert "#/ProductionVariants/0/InstanceType: failed validation" in account.reasons("mistyped")["Config"]
    sagemaker = account.client("sagemaker")
    assert sagemaker.list_models()["Models"] == []
    variant = {"VariantName": "v", "ModelName": "m", "InstanceType": "ml.g5.huge", "InitialInstanceCount": 1}
    with pytest.raises(ClientError, match=r"Value 'ml.g5.huge' at 'instanceType' failed"):
        sagemaker.create_endpoint_config(EndpointConfigName="mistyped", ProductionVariants=[variant])


def test_nobody_can_mistake_the_control_plane_for_the_runtime(account: Account) -> None:
    ids = account.create("silent", endpoint())
    with pytest.raises(ClientError, match="served by the data plane"):
        account.client("sagemaker-runtime").invoke_endpoint(EndpointName=name(ids["Endpoint"]), Body=b"{}")
