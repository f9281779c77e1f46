"""A VPC that somebody has: what waits for its endpoints and routes, and what an imported one has to say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.cdk import CONTEXT, Template, use_own_node
from support.plans import make

from modelstacks.core.errors import UsageError

ZONES = ["eu-west-1a", "eu-west-1b"]


def stack(outdir: Path) -> Any:
    use_own_node()
    from aws_cdk import App, Stack

    return Stack(App(outdir=str(outdir), context=CONTEXT, analytics_reporting=False), "shop")


def synthesized(shop: Any, outdir: Path) -> Template:
    shop.node.root.synth()
    return Template.read(outdir, "shop")


def imported_vpc(shop: Any, **more: Any) -> Any:
    from aws_cdk import aws_ec2 as ec2

    return ec2.Vpc.from_vpc_attributes(
        shop,
        "Vpc",
        vpc_id="vpc-0123456789abcdef0",
        availability_zones=ZONES,
        isolated_subnet_ids=["subnet-0123456789abcdef0", "subnet-0123456789abcdef1"],
        **more,
    )


@pytest.mark.parametrize(
    ("architecture", "service", "kind"),
    [
        ("self-hosted", "logs", "AWS::ECS::Service"),
        ("managed", "sagemaker.runtime", "AWS::Lambda::Function"),
    ],
)
def test_nothing_starts_before_the_given_endpoints_of_its_stack_are_there(
    tmp_path: Path, architecture: Any, service: str, kind: str
) -> None:
    from aws_cdk import aws_ec2 as ec2

    from modelstacks.cdk import ModelApi

    shop = stack(tmp_path)
    isolated = ec2.SubnetConfiguration(name="own", subnet_type=ec2.SubnetType.PRIVATE_ISOLATED)
    vpc = ec2.Vpc(shop, "Vpc", max_azs=2, nat_gateways=0, subnet_configuration=[isolated])
    known = {
        "logs": ec2.InterfaceVpcEndpointAwsService.CLOUDWATCH_LOGS,
        "sagemaker.runtime": ec2.InterfaceVpcEndpointAwsService.SAGEMAKER_RUNTIME,
    }
    endpoints = {
        service: vpc.add_interface_endpoint("Theirs", service=known[service]),
        "s3": vpc.add_gateway_endpoint("Bucket", service=ec2.GatewayVpcEndpointAwsService.S3),
    }
    ModelApi(shop, "Churn", plan=make(architecture), vpc=vpc, endpoints=endpoints)
    template = synthesized(shop, tmp_path)
    given = {name for name in template.all("AWS::EC2::VPCEndpoint") if name.startswith("Vpc")}
    waiting = [
        set(resource.get("DependsOn", []))
        for name, resource in template.document["Resources"].items()
        # The check of the image and the CDK's own functions run outside the VPC.
        if resource["Type"] == kind and name.startswith(("ChurnService", "ChurnFunction"))
    ]
    assert len(given) == 2
    assert waiting
    assert all(given <= names for names in waiting)


def test_nothing_starts_before_the_subnets_of_its_stack_have_their_route_out(tmp_path: Path) -> None:
    from aws_cdk import aws_ec2 as ec2

    from modelstacks.cdk import ModelApi

    shop = stack(tmp_path)
    vpc = ec2.Vpc(shop, "Vpc", max_azs=2, nat_gateways=1)
    ModelApi(shop, "Churn", plan=make("self-hosted"), vpc=vpc, create_endpoints=False)
    template = synthesized(shop, tmp_path)
    out = {name for name in template.all("AWS::EC2::Route") if "Private" in name}
    [service] = [
        each for each in template.document["Resources"].values() if each["Type"] == "AWS::ECS::Service"
    ]
    assert len(out) == 2
    assert out <= set(service["DependsOn"])


def test_an_imported_endpoint_is_waited_for_by_nobody(tmp_path: Path) -> None:
    from aws_cdk import aws_ec2 as ec2

    from modelstacks.cdk import ModelApi

    shop = stack(tmp_path)
    bucket = ec2.GatewayVpcEndpoint.from_gateway_vpc_endpoint_id(shop, "Bucket", "vpce-0123456789abcdef0")
    ModelApi(shop, "Churn", plan=make("managed"), vpc=imported_vpc(shop), endpoints={"s3": bucket})
    assert len(synthesized(shop, tmp_path).all("AWS::EC2::VPCEndpoint")) == 1


def test_an_imported_vpc_without_route_tables_is_refused_with_the_fix(tmp_path: Path) -> None:
    from modelstacks.cdk import ModelApi

    shop = stack(tmp_path)
    with pytest.raises(
        UsageError, match=r"shop/Vpc: .* route tables.*; fix: .*isolated_subnet_route_table_ids"
    ):
        ModelApi(shop, "Churn", plan=make("managed"), vpc=imported_vpc(shop))


def test_an_endpoint_without_a_group_in_a_vpc_without_a_range_is_refused_with_the_fix(tmp_path: Path) -> None:
    from aws_cdk import aws_ec2 as ec2

    from modelstacks.cdk import ModelApi

    shop = stack(tmp_path)
    bucket = ec2.GatewayVpcEndpoint.from_gateway_vpc_endpoint_id(shop, "Bucket", "vpce-0123456789abcdef0")
    runtime = ec2.InterfaceVpcEndpoint.from_interface_vpc_endpoint_attributes(
        shop, "Runtime", port=443, vpc_endpoint_id="vpce-0123456789abcdef1"
    )
    given = {"s3": bucket, "sagemaker.runtime": runtime}
    with pytest.raises(UsageError, match=r"sagemaker\.runtime.* security group.*; fix: .*security_groups"):
        ModelApi(shop, "Churn", plan=make("managed"), vpc=imported_vpc(shop), endpoints=given)
