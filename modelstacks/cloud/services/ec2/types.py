"""AWS::EC2: networks, security groups with their rules, and VPC endpoints."""

# ruff: noqa: ARG002  every type answers the same three questions, and not each needs all of what it is told
from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from modelstacks.cloud.cloudformation.resource import (
    Properties,
    Provisioned,
    Request,
    ResourceError,
    ResourceType,
    ignoring,
    provides,
    tag_list,
)

_GONE = ("InvalidGroup.NotFound", "InvalidPermission.NotFound", "InvalidSecurityGroupRuleId.NotFound")


def _tags(request: Request, kind: str) -> list[dict[str, Any]]:
    tags = tag_list(request.properties)
    return [{"ResourceType": kind, "Tags": tags}] if tags else []


def _permission(rule: Mapping[str, Any]) -> dict[str, Any]:
    """A rule of a template as the API's IpPermission."""
    permission: dict[str, Any] = {"IpProtocol": str(rule["IpProtocol"])}
    for port in ("FromPort", "ToPort"):
        if port in rule:
            permission[port] = int(rule[port])
    described = {"Description": rule["Description"]} if rule.get("Description") else {}
    group = rule.get("SourceSecurityGroupId") or rule.get("DestinationSecurityGroupId")
    prefix_list = rule.get("SourcePrefixListId") or rule.get("DestinationPrefixListId")
    if rule.get("CidrIp"):
        permission["IpRanges"] = [{"CidrIp": rule["CidrIp"], **described}]
    elif rule.get("CidrIpv6"):
        permission["Ipv6Ranges"] = [{"CidrIpv6": rule["CidrIpv6"], **described}]
    elif group:
        permission["UserIdGroupPairs"] = [{"GroupId": group, **described}]
    elif prefix_list:
        permission["PrefixListIds"] = [{"PrefixListId": prefix_list, **described}]
    else:
        raise ResourceError(
            "a security group rule needs one of CidrIp, CidrIpv6, a security group or a prefix list"
        )
    return permission


@provides("AWS::EC2::SecurityGroup")
class SecurityGroup(ResourceType):
    """A security group, with the rules that its properties state.

    A stated egress rule replaces the default one, which allows everything.
    """

    immutable: ClassVar = frozenset({"GroupName", "GroupDescription", "VpcId"})

    def create(self, request: Request) -> Provisioned:
        ec2 = request.client("ec2")
        properties = request.properties
        group_id = ec2.create_security_group(
            GroupName=properties.get("GroupName") or request.generated_name(),
            Description=properties["GroupDescription"],
            TagSpecifications=_tags(request, "security-group"),
            **request.only("VpcId"),
        )["GroupId"]
        if properties.get("SecurityGroupEgress"):
            default = ec2.describe_security_groups(GroupIds=[group_id])["SecurityGroups"][0][
                "IpPermissionsEgress"
            ]
            if default:
                ec2.revoke_security_group_egress(GroupId=group_id, IpPermissions=default)
        self._allow(
            ec2,
            group_id,
            properties.get("SecurityGroupIngress", []),
            properties.get("SecurityGroupEgress", []),
        )
        return Provisioned(
            group_id, {"GroupId": group_id, "Id": group_id, "VpcId": properties.get("VpcId", "")}
        )

    def update(self, request: Request, current: Provisioned, before: Properties) -> Provisioned | None:
        ec2, group_id, after = request.client("ec2"), current.physical_id, request.properties
        if bool(before.get("SecurityGroupEgress")) != bool(after.get("SecurityGroupEgress")):
            return None  # whether the default egress rule is there is settled when the group is made
        for key, revoke in (
            ("Ingress", ec2.revoke_security_group_ingress),
            ("Egress", ec2.revoke_security_group_egress),
        ):
            for rule in _less(before.get(f"SecurityGroup{key}", []), after.get(f"SecurityGroup{key}", [])):
                with ignoring(*_GONE):
                    revoke(GroupId=group_id, IpPermissions=[_permission(rule)])
        self._allow(
            ec2,
            group_id,
            _less(after.get("SecurityGroupIngress", []), before.get("SecurityGroupIngress", [])),
            _less(after.get("SecurityGroupEgress", []), before.get("SecurityGroupEgress", [])),
        )
        if tag_list(after) != tag_list(before):
            ec2.delete_tags(Resources=[group_id], Tags=tag_list(before))
            ec2.create_tags(Resources=[group_id], Tags=tag_list(after))
        return current

    def delete(self, request: Request, current: Provisioned) -> None:
        with ignoring(*_GONE):
            request.client("ec2").delete_security_group(GroupId=current.physical_id)

    @staticmethod
    def _allow(
        ec2: Any, group_id: str, ingress: Iterable[Mapping[str, Any]], egress: Iterable[Mapping[str, Any]]
    ) -> None:
        for rule in ingress:
            ec2.authorize_security_group_ingress(GroupId=group_id, IpPermissions=[_permission(rule)])
        for rule in egress:
            ec2.authorize_security_group_egress(GroupId=group_id, IpPermissions=[_permission(rule)])


def _less(rules: list[Any], others: list[Any]) -> list[Any]:
    return [rule for rule in rules if rule not in others]


class _Rule(ResourceType):
    """One rule of a group, as a resource of its own. Any change but of its description makes a new one."""

    direction: ClassVar[str]

    def create(self, request: Request) -> Provisioned:
        authorize = getattr(request.client("ec2"), f"authorize_security_group_{self.direction}")
        answer = authorize(GroupId=self._group(request), IpPermissions=[_permission(request.properties)])
        made = answer.get("SecurityGroupRules") or [{"SecurityGroupRuleId": request.generated_name()}]
        return Provisioned(made[0]["SecurityGroupRuleId"], {"Id": made[0]["SecurityGroupRuleId"]})

    def update(self, request: Request, current: Provisioned, before: Properties) -> Provisioned | None:
        if {**before, "Description": None} != {**request.properties, "Description": None}:
            return None
        # Said anew rather than described anew: moto's call for that does not reach rules between groups.
        group, ec2 = self._group(request), request.client("ec2")
        getattr(ec2, f"revoke_security_group_{self.direction}")(
            GroupId=group, IpPermissions=[_permission(before)]
        )
        self.create(request)
        return current

    def delete(self, request: Request, current: Provisioned) -> None:
        revoke = getattr(request.client("ec2"), f"revoke_security_group_{self.direction}")
        with ignoring(*_GONE):
            revoke(GroupId=self._group(request), IpPermissions=[_permission(request.properties)])

    @staticmethod
    def _group(request: Request) -> str:
        if "GroupId" not in request.properties:
            raise ResourceError(
                "a security group rule needs GroupId; GroupName belongs to EC2-Classic, which is gone"
            )
        return str(request.properties["GroupId"])


@provides("AWS::EC2::SecurityGroupIngress")
class SecurityGroupIngress(_Rule):
    """What may come in."""

    direction = "ingress"


@provides("AWS::EC2::SecurityGroupEgress")
class SecurityGroupEgress(_Rule):
    """What may go out."""

    direction = "egress"


@provides("AWS::EC2::VPCEndpoint")
class VpcEndpoint(ResourceType):
    """A gateway or interface endpoint: policy, subnets, security groups, route tables and private DNS."""

    immutable: ClassVar = frozenset({"ServiceName", "VpcId", "VpcEndpointType"})

    def create(self, request: Request) -> Provisioned:
        answer = request.call(
            "ec2",
            "CreateVpcEndpoint",
            {**self._defaults(request), **request.without("Tags", "PolicyDocument")},
            TagSpecifications=_tags(request, "vpc-endpoint"),
            **_policy(request.properties),
        )["VpcEndpoint"]
        endpoint_id = answer["VpcEndpointId"]
        names = [
            f"{entry.get('HostedZoneId', '')}:{entry['DnsName']}" for entry in answer.get("DnsEntries", [])
        ]
        return Provisioned(
            endpoint_id,
            {
                "Id": endpoint_id,
                "DnsEntries": names,
                "NetworkInterfaceIds": answer.get("NetworkInterfaceIds", []),
                "CreationTimestamp": str(answer.get("CreationTimestamp", "")),
            },
        )

    @staticmethod
    def _defaults(request: Request) -> Properties:
        """CloudFormation's default for private DNS is off; the API's is on."""
        interface = request.properties.get("VpcEndpointType") == "Interface"
        return {"PrivateDnsEnabled": False} if interface else {}

    def update(self, request: Request, current: Provisioned, before: Properties) -> Provisioned | None:
        changes: dict[str, Any] = _policy(request.properties)
        for key, singular in (
            ("SubnetIds", "SubnetIds"),
            ("SecurityGroupIds", "SecurityGroupIds"),
            ("RouteTableIds", "RouteTableIds"),
        ):
            old, new = set(before.get(key, [])), set(request.properties.get(key, []))
            changes |= {f"Add{singular}": sorted(new - old)} if new - old else {}
            changes |= {f"Remove{singular}": sorted(old - new)} if old - new else {}
        if "PrivateDnsEnabled" in request.properties:
            changes["PrivateDnsEnabled"] = request.properties["PrivateDnsEnabled"] in (True, "true")
        request.client("ec2").modify_vpc_endpoint(VpcEndpointId=current.physical_id, **changes)
        return current

    def delete(self, request: Request, current: Provisioned) -> None:
        with ignoring("InvalidVpcEndpointId.NotFound"):
            request.client("ec2").delete_vpc_endpoints(VpcEndpointIds=[current.physical_id])


def _policy(properties: Mapping[str, Any]) -> dict[str, str]:
    policy = properties.get("PolicyDocument")
    return (
        {}
        if policy is None
        else {"PolicyDocument": policy if isinstance(policy, str) else json.dumps(policy)}
    )


class _Tagged(ResourceType):
    """A part of a network whose tags are all that can change; anything else makes a new one."""

    def update(self, request: Request, current: Provisioned, before: Properties) -> Provisioned | None:
        old, new = tag_list(before), tag_list(request.properties)
        if {**before, "Tags": None} != {**request.properties, "Tags": None}:
            return None
        ec2 = request.client("ec2")
        ec2.delete_tags(Resources=[current.physical_id], Tags=old)
        ec2.create_tags(Resources=[current.physical_id], Tags=new)
        return current


@provides("AWS::EC2::VPC")
class Vpc(_Tagged):
    """A network, with its DNS settings."""

    immutable: ClassVar = frozenset({"CidrBlock", "InstanceTenancy"})
    _dns: ClassVar = ("EnableDnsHostnames", "EnableDnsSupport")

    def create(self, request: Request) -> Provisioned:
        ec2, properties = request.client("ec2"), request.properties
        vpc = request.call(
            "ec2", "CreateVpc", request.without("Tags", *self._dns), TagSpecifications=_tags(request, "vpc")
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
class Subnet(_Tagged):
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
        subnet = request.call("ec2", "CreateSubnet", given, TagSpecifications=_tags(request, "subnet"))[
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
class RouteTable(_Tagged):
    """A route table."""

    def create(self, request: Request) -> Provisioned:
        answer = request.client("ec2").create_route_table(
            VpcId=request.properties["VpcId"], TagSpecifications=_tags(request, "route-table")
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
class InternetGateway(_Tagged):
    """A way to the internet, once attached."""

    def create(self, request: Request) -> Provisioned:
        answer = request.client("ec2").create_internet_gateway(
            TagSpecifications=_tags(request, "internet-gateway")
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
class ElasticIp(_Tagged):
    """An address of one's own. Ref is the address."""

    def create(self, request: Request) -> Provisioned:
        answer = request.client("ec2").allocate_address(
            Domain="vpc", TagSpecifications=_tags(request, "elastic-ip")
        )
        return Provisioned(
            answer["PublicIp"], {"PublicIp": answer["PublicIp"], "AllocationId": answer["AllocationId"]}
        )

    def delete(self, request: Request, current: Provisioned) -> None:
        with ignoring("InvalidAllocationID.NotFound"):
            request.client("ec2").release_address(AllocationId=current.attributes["AllocationId"])


@provides("AWS::EC2::NatGateway")
class NatGateway(_Tagged):
    """A way out for private subnets."""

    def create(self, request: Request) -> Provisioned:
        given = request.only("SubnetId", "AllocationId", "ConnectivityType")
        answer = request.call(
            "ec2", "CreateNatGateway", given, TagSpecifications=_tags(request, "natgateway")
        )
        gateway_id = answer["NatGateway"]["NatGatewayId"]
        return Provisioned(gateway_id, {"NatGatewayId": gateway_id})

    def delete(self, request: Request, current: Provisioned) -> None:
        with ignoring("NatGatewayNotFound"):
            request.client("ec2").delete_nat_gateway(NatGatewayId=current.physical_id)


@provides("AWS::EC2::FlowLog")
class FlowLog(_Tagged):
    """A flow log. The embedded network writes none."""

    def create(self, request: Request) -> Provisioned:
        given = request.without("Tags", "ResourceId", "DestinationOptions")
        resource, tags = request.properties["ResourceId"], _tags(request, "vpc-flow-log")
        made = request.call("ec2", "CreateFlowLogs", given, ResourceIds=[resource], TagSpecifications=tags)
        if made.get("Unsuccessful"):
            raise ResourceError(made["Unsuccessful"][0]["Error"]["Message"])
        return Provisioned(made["FlowLogIds"][0], {"Id": made["FlowLogIds"][0]})

    def delete(self, request: Request, current: Provisioned) -> None:
        request.client("ec2").delete_flow_logs(FlowLogIds=[current.physical_id])
