"""EC2: made by CloudFormation, read back by boto3, changed, deleted."""

from __future__ import annotations

from typing import Any

from support.control_plane import NETWORK, Account
from support.templates import changed


def rules(account: Account, group: str, key: str) -> list[dict[str, Any]]:
    """A group's rules: one direction of them."""
    found: list[dict[str, Any]] = account.client("ec2").describe_security_groups(GroupIds=[group])[
        "SecurityGroups"
    ][0][key]
    return found


def test_a_network_of_subnets_and_route_tables(account: Account) -> None:
    resources = NETWORK | {
        "Gateway": {"Type": "AWS::EC2::InternetGateway"},
        "Attached": {
            "Type": "AWS::EC2::VPCGatewayAttachment",
            "Properties": {"VpcId": {"Ref": "Vpc"}, "InternetGatewayId": {"Ref": "Gateway"}},
        },
        "Address": {"Type": "AWS::EC2::EIP", "Properties": {"Domain": "vpc"}, "DependsOn": "Attached"},
        "Nat": {
            "Type": "AWS::EC2::NatGateway",
            "Properties": {
                "SubnetId": {"Ref": "Subnet"},
                "AllocationId": {"Fn::GetAtt": ["Address", "AllocationId"]},
            },
        },
        "Table": {"Type": "AWS::EC2::RouteTable", "Properties": {"VpcId": {"Ref": "Vpc"}}},
        "Joined": {
            "Type": "AWS::EC2::SubnetRouteTableAssociation",
            "Properties": {"SubnetId": {"Ref": "Subnet"}, "RouteTableId": {"Ref": "Table"}},
        },
        "Out": {
            "Type": "AWS::EC2::Route",
            "Properties": {
                "RouteTableId": {"Ref": "Table"},
                "DestinationCidrBlock": "0.0.0.0/0",
                "GatewayId": {"Ref": "Gateway"},
            },
        },
    }
    ids = account.create("network", resources)
    ec2 = account.client("ec2")
    subnet = ec2.describe_subnets(SubnetIds=[ids["Subnet"]])["Subnets"][0]
    assert (subnet["VpcId"], subnet["CidrBlock"]) == (ids["Vpc"], "10.0.0.0/24")
    table = ec2.describe_route_tables(RouteTableIds=[ids["Table"]])["RouteTables"][0]
    assert [one["SubnetId"] for one in table["Associations"]] == [ids["Subnet"]]
    assert {route.get("GatewayId") for route in table["Routes"]} == {"local", ids["Gateway"]}

    through_nat = changed(resources, "Out", GatewayId=None, NatGatewayId={"Ref": "Nat"})
    through_nat["Vpc"]["Properties"]["EnableDnsHostnames"] = False
    account.update("network", through_nat)
    table = ec2.describe_route_tables(RouteTableIds=[ids["Table"]])["RouteTables"][0]
    assert ids["Nat"] in {route.get("NatGatewayId") for route in table["Routes"]}
    hostnames = ec2.describe_vpc_attribute(VpcId=ids["Vpc"], Attribute="enableDnsHostnames")
    assert hostnames["EnableDnsHostnames"]["Value"] is False
    account.delete("network")
    assert ids["Vpc"] not in {vpc["VpcId"] for vpc in ec2.describe_vpcs()["Vpcs"]}


def test_a_group_without_stated_egress_lets_everything_out(account: Account) -> None:
    ids = account.create("open-group", NETWORK)
    (rule,) = rules(account, ids["Group"], "IpPermissionsEgress")
    assert (rule["IpProtocol"], rule["IpRanges"][0]["CidrIp"]) == ("-1", "0.0.0.0/0")


def test_a_group_with_stated_egress_lets_only_that_out(account: Account) -> None:
    egress = [
        {"IpProtocol": "tcp", "FromPort": 443, "ToPort": "443", "CidrIp": "10.0.0.0/16", "Description": "tls"}
    ]
    resources = changed(NETWORK, "Group", SecurityGroupEgress=egress)
    ids = account.create("closed-group", resources)
    (rule,) = rules(account, ids["Group"], "IpPermissionsEgress")
    assert (rule["FromPort"], rule["ToPort"]) == (443, 443)
    assert rule["IpRanges"] == [{"CidrIp": "10.0.0.0/16", "Description": "tls"}]

    account.update(
        "closed-group",
        changed(resources, "Group", SecurityGroupEgress=[{**egress[0], "FromPort": 80, "ToPort": 80}]),
    )
    assert [rule["FromPort"] for rule in rules(account, ids["Group"], "IpPermissionsEgress")] == [80]


def test_rules_between_groups_are_resources_of_their_own(account: Account) -> None:
    nothing = [{"IpProtocol": "icmp", "FromPort": 252, "ToPort": 86, "CidrIp": "255.255.255.255/32"}]
    resources = changed(NETWORK, "Group", SecurityGroupEgress=nothing) | {
        "Target": {
            "Type": "AWS::EC2::SecurityGroup",
            "Properties": {"GroupDescription": "t", "VpcId": {"Ref": "Vpc"}},
        },
        "In": {
            "Type": "AWS::EC2::SecurityGroupIngress",
            "Properties": {
                "GroupId": {"Fn::GetAtt": ["Target", "GroupId"]},
                "IpProtocol": "tcp",
                "FromPort": 8080,
                "ToPort": 8080,
                "SourceSecurityGroupId": {"Ref": "Group"},
                "Description": "one hop",
            },
        },
        "Out": {
            "Type": "AWS::EC2::SecurityGroupEgress",
            "Properties": {
                "GroupId": {"Ref": "Group"},
                "IpProtocol": "tcp",
                "FromPort": 8080,
                "ToPort": 8080,
                "DestinationSecurityGroupId": {"Ref": "Target"},
            },
        },
    }
    ids = account.create("rules", resources)
    (rule,) = rules(account, ids["Target"], "IpPermissions")
    assert rule["UserIdGroupPairs"][0]["GroupId"] == ids["Group"]
    assert rule["UserIdGroupPairs"][0]["Description"] == "one hop"
    (out,) = [
        rule for rule in rules(account, ids["Group"], "IpPermissionsEgress") if rule["IpProtocol"] == "tcp"
    ]
    assert out["UserIdGroupPairs"][0]["GroupId"] == ids["Target"]

    described = changed(resources, "In", Description="still one hop")
    assert account.update("rules", described)["In"] == ids["In"]
    (rule,) = rules(account, ids["Target"], "IpPermissions")
    assert rule["UserIdGroupPairs"][0]["Description"] == "still one hop"
    account.update("rules", changed(resources, "In", FromPort=9090, ToPort=9090))
    assert [rule["FromPort"] for rule in rules(account, ids["Target"], "IpPermissions")] == [9090]
    without = {name: value for name, value in resources.items() if name not in ("In", "Out")}
    account.update("rules", without)
    assert rules(account, ids["Target"], "IpPermissions") == []
    assert [rule["IpProtocol"] for rule in rules(account, ids["Group"], "IpPermissionsEgress")] == ["icmp"]


def test_endpoints_carry_policy_subnets_groups_and_routes(account: Account) -> None:
    def policy(action: str) -> dict[str, Any]:
        return {
            "Version": "2012-10-17",
            "Statement": [{"Effect": "Allow", "Principal": "*", "Action": action, "Resource": "*"}],
        }

    resources = NETWORK | {
        "Table": {"Type": "AWS::EC2::RouteTable", "Properties": {"VpcId": {"Ref": "Vpc"}}},
        "S3": {
            "Type": "AWS::EC2::VPCEndpoint",
            "Properties": {
                "ServiceName": {"Fn::Sub": "com.amazonaws.${AWS::Region}.s3"},
                "VpcId": {"Ref": "Vpc"},
                "VpcEndpointType": "Gateway",
                "RouteTableIds": [{"Ref": "Table"}],
                "PolicyDocument": policy("s3:GetObject"),
            },
        },
        "Runtime": {
            "Type": "AWS::EC2::VPCEndpoint",
            "Properties": {
                "ServiceName": {"Fn::Sub": "com.amazonaws.${AWS::Region}.sagemaker.runtime"},
                "VpcId": {"Ref": "Vpc"},
                "VpcEndpointType": "Interface",
                "SubnetIds": [{"Ref": "Subnet"}],
                "PrivateDnsEnabled": True,
                "SecurityGroupIds": [{"Ref": "Group"}],
                "PolicyDocument": policy("sagemaker:InvokeEndpoint"),
            },
        },
    }
    ids = account.create("endpoints", resources)

    def endpoint(logical_id: str) -> Any:
        return account.client("ec2").describe_vpc_endpoints(VpcEndpointIds=[ids[logical_id]])["VpcEndpoints"][
            0
        ]

    assert endpoint("S3")["RouteTableIds"] == [ids["Table"]]
    assert "s3:GetObject" in endpoint("S3")["PolicyDocument"]
    runtime = endpoint("Runtime")
    assert (runtime["SubnetIds"], runtime["Groups"][0]["GroupId"]) == ([ids["Subnet"]], ids["Group"])
    assert runtime["PrivateDnsEnabled"]
    assert "sagemaker:InvokeEndpoint" in runtime["PolicyDocument"]

    other = changed(resources, "Runtime", PolicyDocument=policy("sagemaker:*"), SubnetIds=[{"Ref": "Other"}])
    account.update("endpoints", other)
    assert endpoint("Runtime")["SubnetIds"] == [ids["Other"]]
    assert "sagemaker:*" in endpoint("Runtime")["PolicyDocument"]
    account.delete("endpoints")
