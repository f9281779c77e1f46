"""SageMaker refuses OCI manifests, and instance types that change under a scaled variant."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError
from support.control_plane import Account, role

REPOSITORY = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/images"


DOCKER, OCI = "docker.distribution.manifest.v2", "oci.image.manifest.v1"


@pytest.fixture
def images(account: Account) -> Iterator[Account]:
    """An account with a repository of two images, whose manifests differ in kind."""
    ecr = account.client("ecr")
    ecr.create_repository(repositoryName="images")
    for tag, kind in (("docker", DOCKER), ("oci", OCI)):
        media_type = f"application/vnd.{kind}+json"
        manifest = {
            "schemaVersion": 2,
            "mediaType": media_type,
            "config": {"mediaType": f"{media_type}.{tag}", "size": 2, "digest": "sha256:" + "0" * 64},
            "layers": [],
        }
        ecr.put_image(
            repositoryName="images",
            imageTag=tag,
            imageManifest=json.dumps(manifest),
            imageManifestMediaType=media_type,
        )
    yield account
    ecr.delete_repository(repositoryName="images", force=True)


def endpoint(tag: str = "docker", instance: str = "ml.m5.large", variant: str = "main") -> dict[str, Any]:
    """An endpoint of one variant, which scales."""
    model = {
        "ExecutionRoleArn": {"Fn::GetAtt": ["Role", "Arn"]},
        "PrimaryContainer": {"Image": f"{REPOSITORY}:{tag}"},
    }
    production = {
        "ModelName": {"Fn::GetAtt": ["Model", "ModelName"]},
        "VariantName": variant,
        "InstanceType": instance,
        "InitialInstanceCount": 1,
        "InitialVariantWeight": 1,
    }
    resource = {"Fn::Sub": f"endpoint/${{Endpoint.EndpointName}}/variant/{variant}"}
    capacity = {
        "MinCapacity": 1,
        "MaxCapacity": 2,
        "ServiceNamespace": "sagemaker",
        "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
        "ResourceId": resource,
    }
    return {
        "Role": role("sagemaker.amazonaws.com"),
        "Model": {"Type": "AWS::SageMaker::Model", "Properties": model},
        "Config": {
            "Type": "AWS::SageMaker::EndpointConfig",
            "Properties": {"ProductionVariants": [production]},
        },
        "Endpoint": {
            "Type": "AWS::SageMaker::Endpoint",
            "Properties": {"EndpointConfigName": {"Fn::GetAtt": ["Config", "EndpointConfigName"]}},
        },
        "Capacity": {"Type": "AWS::ApplicationAutoScaling::ScalableTarget", "Properties": capacity},
    }


def test_a_model_s_image_has_a_docker_manifest(images: Account) -> None:
    reason = images.refuse("oci", endpoint("oci"))["Model"]
    assert reason.startswith(
        f"Unsupported manifest media type application/vnd.{OCI}+json for image {REPOSITORY}:oci. "
        "Ensure that valid manifest media type is used for specified image."
    )
    arn = images.client("iam").create_role(RoleName="r", AssumeRolePolicyDocument="{}")["Role"]["Arn"]
    with pytest.raises(ClientError, match="Unsupported manifest media type"):
        images.client("sagemaker").create_model(
            ModelName="oci", ExecutionRoleArn=arn, Containers=[{"Image": f"{REPOSITORY}:oci"}]
        )
    images.client("iam").delete_role(RoleName="r")
    images.create("docker", endpoint("docker"))


@pytest.mark.parametrize(
    ("instance", "variant"), [("ml.m5.xlarge", "main"), ("ml.m5.large", "other")], ids=["type", "removed"]
)
def test_a_variant_that_scales_keeps_its_instance_type(images: Account, instance: str, variant: str) -> None:
    before = endpoint()
    images.create("scaled", before)
    after = endpoint(instance=instance, variant=variant)
    after["Capacity"] = before["Capacity"]
    reason = images.refuse_update("scaled", after)["Endpoint"]
    assert (
        "must be deregistered as scalable targets with AWS Auto Scaling before they can be removed" in reason
    )
    unscaled = {name: one for name, one in before.items() if name != "Capacity"}
    images.update("scaled", unscaled)
    images.update("scaled", {name: one for name, one in after.items() if name != "Capacity"})
