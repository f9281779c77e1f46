"""VPC links: made by CloudFormation, read back by boto3, changed, deleted."""

from __future__ import annotations

import pytest
from botocore.exceptions import ClientError
from support.control_plane import NETWORK, Account
from support.templates import changed

from modelstacks.cloud.account.process import ControlPlane


def test_a_vpc_link_has_the_subnets_and_groups_that_it_was_made_with(account: Account) -> None:
    link = {
        "Type": "AWS::ApiGatewayV2::VpcLink",
        "Properties": {"Name": "l", "SubnetIds": [{"Ref": "Subnet"}], "SecurityGroupIds": [{"Ref": "Group"}]},
    }
    resources = NETWORK | {"Link": link}
    ids = account.create("link", resources)
    found = account.client("apigatewayv2").get_vpc_link(VpcLinkId=ids["Link"])
    assert (found["SubnetIds"], found["SecurityGroupIds"]) == ([ids["Subnet"]], [ids["Group"]])
    assert account.update("link", changed(resources, "Link", Name="renamed"))["Link"] == ids["Link"]
    assert account.client("apigatewayv2").get_vpc_link(VpcLinkId=ids["Link"])["Name"] == "renamed"
    replaced = account.update("link", changed(resources, "Link", SubnetIds=[{"Ref": "Other"}]))["Link"]
    assert [one["VpcLinkId"] for one in account.client("apigatewayv2").get_vpc_links()["Items"]] == [replaced]


def test_a_vpc_link_is_refused_in_a_zone_that_does_not_have_them(plane: ControlPlane) -> None:
    account = Account(plane.connection, region="us-east-1")
    ec2, gateway = account.client("ec2"), account.client("apigatewayv2")
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    subnets = {
        zone: ec2.create_subnet(VpcId=vpc, CidrBlock=f"10.0.{number}.0/24", AvailabilityZoneId=zone)[
            "Subnet"
        ]["SubnetId"]
        for number, zone in enumerate(("use1-az1", "use1-az3"))
    }
    with pytest.raises(ClientError, match="in Availability Zone 'use1-az3' where service is not available"):
        gateway.create_vpc_link(Name="l", SubnetIds=list(subnets.values()))
    link = gateway.create_vpc_link(Name="l", SubnetIds=[subnets["use1-az1"]])
    assert link["VpcLinkStatus"] == "AVAILABLE"
    gateway.delete_vpc_link(VpcLinkId=link["VpcLinkId"])
