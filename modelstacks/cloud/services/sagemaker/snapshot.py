"""SageMaker as it is read back: endpoints and their models."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from modelstacks.cloud.clients import Clients
from modelstacks.cloud.services.cloudformation.snapshot import CloudFormationSnapshot
from modelstacks.cloud.services.ec2.snapshot import Ec2Snapshot, NetworkInterface
from modelstacks.cloud.services.iam.snapshot import IamSnapshot
from modelstacks.cloud.services.kms.snapshot import KmsSnapshot
from modelstacks.cloud.services.s3.snapshot import S3Snapshot
from modelstacks.cloud.snapshot import Snapshot, each

__all__ = ["Endpoint", "Model", "SageMakerSnapshot", "Variant"]


@dataclass(frozen=True, slots=True)
class Model:
    name: str
    arn: str
    image: str
    environment: Mapping[str, str]
    data_uri: str  # s3://...; "" where the image holds the model
    data_type: str  # S3Object | S3Prefix
    compression: str  # Gzip | None
    role_arn: str
    network: NetworkInterface | None
    isolated: bool


@dataclass(frozen=True, slots=True)
class Variant:
    name: str
    model: str
    count: int
    weight: float
    startup_timeout: float
    download_timeout: float
    serverless: bool


@dataclass(frozen=True, slots=True)
class Endpoint:
    """`config` and `variants` are those that the endpoint is to have: of an update, the new ones."""

    name: str
    arn: str
    config: str
    variants: tuple[Variant, ...]
    status: str  # Creating | Updating | InService | Failed


@dataclass(frozen=True)
class SageMakerSnapshot(Snapshot):
    """The endpoints of the account, and the models that they serve, by name."""

    needs = (CloudFormationSnapshot, Ec2Snapshot, IamSnapshot, KmsSnapshot, S3Snapshot)
    endpoints: Mapping[str, Endpoint] = field(default_factory=dict)
    models: Mapping[str, Model] = field(default_factory=dict)

    @classmethod
    def read(cls, clients: Clients) -> SageMakerSnapshot:
        """Read the endpoints, then the models that they name."""
        return cls(*_endpoints(clients))


def _endpoints(clients: Clients) -> tuple[dict[str, Endpoint], dict[str, Model]]:
    sagemaker = clients.client("sagemaker")

    def endpoint(item: Mapping[str, Any]) -> Endpoint:
        found = sagemaker.describe_endpoint(EndpointName=item["EndpointName"])
        pending = found.get("PendingDeploymentSummary") or found
        config = sagemaker.describe_endpoint_config(EndpointConfigName=pending["EndpointConfigName"])
        counts = _counts(pending.get("ProductionVariants") or [])
        return Endpoint(
            name=found["EndpointName"],
            arn=found["EndpointArn"],
            config=pending["EndpointConfigName"],
            variants=tuple(_variant(variant, counts) for variant in config["ProductionVariants"]),
            status=found["EndpointStatus"],
        )

    def model(name: str) -> Model:
        found = sagemaker.describe_model(ModelName=name)
        container = found.get("PrimaryContainer") or (found.get("Containers") or [{}])[0]
        source = (container.get("ModelDataSource") or {}).get("S3DataSource") or {}
        wires = found.get("VpcConfig") or {}
        return Model(
            name=name,
            arn=found["ModelArn"],
            image=container.get("Image", ""),
            environment=container.get("Environment") or {},
            data_uri=source.get("S3Uri") or container.get("ModelDataUrl") or "",
            data_type=source.get("S3DataType") or "S3Object",
            compression=source.get("CompressionType") or "Gzip",
            role_arn=found.get("ExecutionRoleArn") or "",
            network=NetworkInterface(
                f"model {name}", tuple(wires["Subnets"]), tuple(wires.get("SecurityGroupIds", []))
            )
            if wires.get("Subnets")
            else None,
            isolated=bool(found.get("EnableNetworkIsolation")),
        )

    endpoints = each(endpoint, clients.pages("sagemaker", "list_endpoints", "Endpoints"))
    names = sorted({variant.model for one in endpoints for variant in one.variants if variant.model})
    models = each(model, names)
    return {one.name: one for one in endpoints}, {one.name: one for one in models}


def _counts(variants: Iterable[Mapping[str, Any]]) -> Mapping[str, int]:
    """Variant -> the number of instances that scaling or an operator asked for since the configuration."""
    return {one["VariantName"]: int(one.get("DesiredInstanceCount") or 0) for one in variants}


def _variant(item: Mapping[str, Any], counts: Mapping[str, int]) -> Variant:
    return Variant(
        name=item["VariantName"],
        model=item.get("ModelName", ""),
        count=counts.get(item["VariantName"]) or int(item.get("InitialInstanceCount") or 1),
        weight=float(item.get("InitialVariantWeight", 1.0)),
        startup_timeout=float(item.get("ContainerStartupHealthCheckTimeoutInSeconds") or 480),
        download_timeout=float(item.get("ModelDataDownloadTimeoutInSeconds") or 3600),
        serverless=bool(item.get("ServerlessConfig")),
    )
