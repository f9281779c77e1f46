"""AWS::EC2: VPCs, subnets, routes, gateways and flow logs."""

from __future__ import annotations

from typing import Any, ClassVar

from modelstacks.cloud.cloudformation.resource import (
    Properties,
    Provisioned,
    Request,
    ResourceError,
    ResourceType,
    ignoring,
    provides,
)
from modelstacks.cloud.services.ec2.types._tags import Tagged, tags_of


@provides("AWS::EC2::VPC")
class Vpc(Tagged):
    """A network, with its DNS settings."""

    immutable: ClassVar = frozenset({"CidrBlock", "InstanceTenancy"})
    _dns: ClassVar = ("EnableDnsHostnames", "EnableDnsSupport")

    def create(self, request: Request) -> Provisioned:
        ec2, properties = request.client("ec2"), request.properties
        vpc = request.call(
            "ec2", "CreateVpc", request.without("Tags", *self._dns), TagSpecifications=tags_of(request, "vpc")
        )["Vpc"]
        vpc_id = vpc["VpcId"]
        self._set_dns(ec2, vpc_id, properties)
        of_vpc = [{"Name": "vpc-id", "Values": [vpc_id]}]
        groups = ec2.describe_security_groups(
            Filters=[*of_vpc, {"Name": "group-name", "Values": ["default"]}]
        )["SecurityGroups"]
        acls = ec2.describe_network_acls(Filters=of_vpc)["NetworkAcls"]
        return Provisioned(
            vpc_id,
            {
                "VpcId": vpc_id,
                "CidrBlock": vpc["CidrBlock"],
                "CidrBlockAssociations": [a["AssociationId"] for a in vpc.get("CidrBlockAssociationSet", [])],
                "DefaultSecurityGroup": groups[0]["GroupId"] if groups else "",
                "DefaultNetworkAcl": acls[0]["NetworkAclId"] if acls else "",
                "Ipv6CidrBlocks": [],
            },
        )

    def update(self, request: Request, current: Provisioned, before: Properties) -> Provisioned | None:
        self._set_dns(request.client("ec2"), current.physical_id, request.properties)
        dns = {name: request.properties.get(name) for name in self._dns}
        return super().update(request, current, {**before, **{k: v for k, v in dns.items() if v is not None}})

    def delete(self, request: Request, current: Provisioned) -> None:
        with ignoring("InvalidVpcID.NotFound"):
            request.client("ec2").delete_vpc(VpcId=current.physical_id)

    @classmethod
    def _set_dns(cls, ec2: Any, vpc_id: str, properties: Properties) -> None:
        for name in cls._dns:
            if name in properties:
                ec2.modify_vpc_attribute(
                    VpcId=vpc_id, **{name: {"Value": properties[name] in (True, "true")}}
                )


@provides("AWS::EC2::Subnet")
class Subnet(Tagged):
    """A subnet in one zone."""

    def create(self, request: Request) -> Provisioned:
        ec2 = request.client("ec2")
        given = request.without(
            "Tags",
            "MapPublicIpOnLaunch",
            "AssignIpv6AddressOnCreation",
            "EnableDns64",
            "PrivateDnsNameOptionsOnLaunch",
        )
        subnet = request.call("ec2", "CreateSubnet", given, TagSpecifications=tags_of(request, "subnet"))[
            "Subnet"
        ]
        subnet_id = subnet["SubnetId"]
        if "MapPublicIpOnLaunch" in request.properties:
            public = request.properties["MapPublicIpOnLaunch"] in (True, "true")
            ec2.modify_subnet_attribute(SubnetId=subnet_id, MapPublicIpOnLaunch={"Value": public})
        acls = ec2.describe_network_acls(Filters=[{"Name": "vpc-id", "Values": [subnet["VpcId"]]}])[
            "NetworkAcls"
        ]
        associations = [
            a["NetworkAclAssociationId"]
            for acl in acls
            for a in acl.get("Associations", [])
            if a.get("SubnetId") == subnet_id
        ]
        return Provisioned(
            subnet_id,
            {
                "SubnetId": subnet_id,
                "VpcId": subnet["VpcId"],
                "CidrBlock": subnet["CidrBlock"],
                "Ipv6CidrBlocks": [],
                "AvailabilityZone": subnet["AvailabilityZone"],
                "AvailabilityZoneId": subnet.get("AvailabilityZoneId", ""),
                "NetworkAclAssociationId": associations[0] if associations else "",
            },
        )

    def delete(self, request: Request, current: Provisioned) -> None:
        with ignoring("InvalidSubnetID.NotFound"):
            request.client("ec2").delete_subnet(SubnetId=current.physical_id)


@provides("AWS::EC2::RouteTable")
class RouteTable(Tagged):
    """A route table."""

    def create(self, request: Request) -> Provisioned:
        answer = request.client("ec2").create_route_table(
            VpcId=request.properties["VpcId"], TagSpecifications=tags_of(request, "route-table")
        )
        table_id = answer["RouteTable"]["RouteTableId"]
        return Provisioned(table_id, {"RouteTableId": table_id})

    def delete(self, request: Request, current: Provisioned) -> None:
        with ignoring("InvalidRouteTableID.NotFound"):
            request.client("ec2").delete_route_table(RouteTableId=current.physical_id)


@provides("AWS::EC2::SubnetRouteTableAssociation")
class SubnetRouteTableAssociation(ResourceType):
    """Which route table a subnet follows."""

    def create(self, request: Request) -> Provisioned:
        association = request.call("ec2", "AssociateRouteTable", request.properties)["AssociationId"]
        return Provisioned(association, {"Id": association})

    def delete(self, request: Request, current: Provisioned) -> None:
        with ignoring("InvalidAssociationID.NotFound"):
            request.client("ec2").disassociate_route_table(AssociationId=current.physical_id)


@provides("AWS::EC2::Route")
class Route(ResourceType):
    """One route; any change makes a new one."""

    _destinations: ClassVar = ("DestinationCidrBlock", "DestinationIpv6CidrBlock", "DestinationPrefixListId")

    def create(self, request: Request) -> Provisioned:
        request.call("ec2", "CreateRoute", request.properties)
        destination = next(iter(request.only(*self._destinations).values()))
        return Provisioned(f"{request.properties['RouteTableId']}|{destination}", {"CidrBlock": destination})

    def update(self, request: Request, current: Provisioned, before: Properties) -> Provisioned | None:
        place = ("RouteTableId", *self._destinations)
        if any(before.get(name) != request.properties.get(name) for name in place):
            return None
        request.call("ec2", "ReplaceRoute", request.properties)
        return current

    def delete(self, request: Request, current: Provisioned) -> None:
        with ignoring("InvalidRoute.NotFound", "InvalidRouteTableID.NotFound"):
            request.call("ec2", "DeleteRoute", request.only("RouteTableId", *self._destinations))


@provides("AWS::EC2::InternetGateway")
class InternetGateway(Tagged):
    """A way to the internet, once attached."""

    def create(self, request: Request) -> Provisioned:
        answer = request.client("ec2").create_internet_gateway(
            TagSpecifications=tags_of(request, "internet-gateway")
        )
        gateway_id = answer["InternetGateway"]["InternetGatewayId"]
        return Provisioned(gateway_id, {"InternetGatewayId": gateway_id})

    def delete(self, request: Request, current: Provisioned) -> None:
        with ignoring("InvalidInternetGatewayID.NotFound"):
            request.client("ec2").delete_internet_gateway(InternetGatewayId=current.physical_id)


@provides("AWS::EC2::VPCGatewayAttachment")
class VpcGatewayAttachment(ResourceType):
    """That a VPC uses an internet gateway."""

    def create(self, request: Request) -> Provisioned:
        if "InternetGatewayId" not in request.properties:
            raise ResourceError("only internet gateways can be attached: VPN gateways are not emulated")
        request.call("ec2", "AttachInternetGateway", request.only("VpcId", "InternetGatewayId"))
        return Provisioned(f"IGW|{request.properties['VpcId']}", {"AttachmentType": "IGW"})

    def delete(self, request: Request, current: Provisioned) -> None:
        with ignoring("Gateway.NotAttached", "InvalidInternetGatewayID.NotFound"):
            request.call("ec2", "DetachInternetGateway", request.only("VpcId", "InternetGatewayId"))


@provides("AWS::EC2::EIP")
class ElasticIp(Tagged):
    """An Elastic IP address. Ref is the address."""

    def create(self, request: Request) -> Provisioned:
        answer = request.client("ec2").allocate_address(
            Domain="vpc", TagSpecifications=tags_of(request, "elastic-ip")
        )
        return Provisioned(
            answer["PublicIp"], {"PublicIp": answer["PublicIp"], "AllocationId": answer["AllocationId"]}
        )

    def delete(self, request: Request, current: Provisioned) -> None:
        with ignoring("InvalidAllocationID.NotFound"):
            request.client("ec2").release_address(AllocationId=current.attributes["AllocationId"])


@provides("AWS::EC2::NatGateway")
class NatGateway(Tagged):
    """A way out for private subnets."""

    def create(self, request: Request) -> Provisioned:
        given = request.only("SubnetId", "AllocationId", "ConnectivityType")
        answer = request.call(
            "ec2", "CreateNatGateway", given, TagSpecifications=tags_of(request, "natgateway")
        )
        gateway_id = answer["NatGateway"]["NatGatewayId"]
        return Provisioned(gateway_id, {"NatGatewayId": gateway_id})

    def delete(self, request: Request, current: Provisioned) -> None:
        with ignoring("NatGatewayNotFound"):
            request.client("ec2").delete_nat_gateway(NatGatewayId=current.physical_id)


@provides("AWS::EC2::FlowLog")
class FlowLog(Tagged):
    """A flow log. The embedded network writes none."""

    def create(self, request: Request) -> Provisioned:
        given = request.without("Tags", "ResourceId", "DestinationOptions")
        resource, tags = request.properties["ResourceId"], tags_of(request, "vpc-flow-log")
        made = request.call("ec2", "CreateFlowLogs", given, ResourceIds=[resource], TagSpecifications=tags)
        if made.get("Unsuccessful"):
            raise ResourceError(made["Unsuccessful"][0]["Error"]["Message"])
        return Provisioned(made["FlowLogIds"][0], {"Id": made["FlowLogIds"][0]})

    def delete(self, request: Request, current: Provisioned) -> None:
        request.client("ec2").delete_flow_logs(FlowLogIds=[current.physical_id])
