"""EC2 refuses VPC endpoints that their network cannot hold."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError
from support.control_plane import NETWORK, Account
from support.templates import changed, code, subnet


def interface(service: str = "sagemaker.runtime", **properties: Any) -> dict[str, Any]:
    own = {
        "ServiceName": {"Fn::Sub": f"com.amazonaws.${{AWS::Region}}.{service}"},
        "VpcId": {"Ref": "Vpc"},
        "VpcEndpointType": "Interface",
        "PrivateDnsEnabled": True,
        "SubnetIds": [{"Ref": "Subnet"}, {"Ref": "Other"}],
        **properties,
    }
    kept = {name: value for name, value in own.items() if value is not None}
    return {"Type": "AWS::EC2::VPCEndpoint", "Properties": kept}


@pytest.mark.parametrize("attribute", ["EnableDnsSupport", "EnableDnsHostnames"])
def test_private_dns_needs_the_network_s_dns(account: Account, attribute: str) -> None:
    network = changed(NETWORK, "Vpc", **{attribute: False})
    reason = account.refuse("no-dns", network | {"Endpoint": interface()})["Endpoint"]
    assert reason.startswith(
        "Enabling private DNS requires both enableDnsSupport and enableDnsHostnames VPC attributes set to"
    )
    account.create("no-private-dns", network | {"Endpoint": interface(PrivateDnsEnabled=None)})


def test_private_dns_can_be_switched_on_where_the_network_has_dns(account: Account) -> None:
    resources = NETWORK | {"Endpoint": interface(PrivateDnsEnabled=False)}
    ids = account.create("switched", resources)
    ec2 = account.client("ec2")
    ec2.modify_vpc_attribute(VpcId=ids["Vpc"], EnableDnsHostnames={"Value": False})
    with pytest.raises(ClientError, match="Enabling private DNS requires both") as error:
        ec2.modify_vpc_endpoint(VpcEndpointId=ids["Endpoint"], PrivateDnsEnabled=True)
    assert code(error) == "InvalidParameter"
    ec2.modify_vpc_attribute(VpcId=ids["Vpc"], EnableDnsHostnames={"Value": True})
    account.update("switched", resources | {"Endpoint": interface()})
    (found,) = ec2.describe_vpc_endpoints(VpcEndpointIds=[ids["Endpoint"]])["VpcEndpoints"]
    assert found["PrivateDnsEnabled"] is True


def test_one_service_has_one_private_name_in_a_network(account: Account) -> None:
    first = NETWORK | {"First": interface()}
    second = {**interface(), "DependsOn": "First"}
    reason = account.refuse("twice", first | {"Second": second})["Second"]
    assert (
        "already a conflicting DNS domain for runtime.sagemaker.eu-west-1.amazonaws.com in the VPC" in reason
    )
    account.create("apart", first | {"Second": {**interface("logs"), "DependsOn": "First"}})


def test_an_interface_endpoint_has_one_subnet_a_zone(account: Account) -> None:
    network = NETWORK | {"Other": subnet("10.0.1.0/24", 0)}
    reason = account.refuse("one-zone", network | {"Endpoint": interface()})["Endpoint"]
    assert reason.startswith("Found another VPC endpoint subnet in the availability zone of subnet-")
    assert "DuplicateSubnetsInSameZone" in reason
