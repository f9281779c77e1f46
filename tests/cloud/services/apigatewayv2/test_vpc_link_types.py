"""VPC links: made by CloudFormation, read back by boto3, changed, deleted."""

from __future__ import annotations

from support.control_plane import NETWORK, Account
from support.templates import changed


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
