"""AWS::ElasticLoadBalancingV2: load balancers, listeners, rules, target groups."""

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
    tag_list,
    undoing,
)

_SERVICE = "elbv2"
_LONGEST_NAME = 32


def _attributes(properties: Properties, key: str) -> list[dict[str, str]]:
    return [{"Key": str(entry["Key"]), "Value": str(entry["Value"])} for entry in properties.get(key, [])]


@provides("AWS::ElasticLoadBalancingV2::LoadBalancer")
class LoadBalancer(ResourceType):
    """A load balancer, its attributes included. It is stable once it is active."""

    immutable: ClassVar = frozenset({"Name", "Scheme", "Type"})

    def create(self, request: Request) -> Provisioned:
        name = request.properties.get("Name") or request.generated_name(_LONGEST_NAME)
        answer = request.call(
            _SERVICE, "CreateLoadBalancer", request.without("Name", "LoadBalancerAttributes"), Name=name
        )["LoadBalancers"][0]
        arn = answer["LoadBalancerArn"]
        if attributes := _attributes(request.properties, "LoadBalancerAttributes"):
            client = request.client(_SERVICE)
            with undoing(lambda: client.delete_load_balancer(LoadBalancerArn=arn)):
                client.modify_load_balancer_attributes(LoadBalancerArn=arn, Attributes=attributes)
        return Provisioned(
            arn,
            {
                "LoadBalancerArn": arn,
                "LoadBalancerName": name,
                "DNSName": answer["DNSName"],
                "LoadBalancerFullName": arn.split(":loadbalancer/")[1],
                "CanonicalHostedZoneID": answer["CanonicalHostedZoneId"],
                "SecurityGroups": answer.get("SecurityGroups", []),
            },
        )

    def update(self, request: Request, current: Provisioned, before: Properties) -> Provisioned | None:
        client, after, arn = request.client(_SERVICE), request.properties, current.physical_id
        if after.get("Subnets") != before.get("Subnets"):
            client.set_subnets(LoadBalancerArn=arn, Subnets=after["Subnets"])
        if after.get("SecurityGroups") != before.get("SecurityGroups"):
            client.set_security_groups(LoadBalancerArn=arn, SecurityGroups=after["SecurityGroups"])
        if attributes := _attributes(after, "LoadBalancerAttributes"):
            client.modify_load_balancer_attributes(LoadBalancerArn=arn, Attributes=attributes)
        _retag(client, arn, before, after)
        return current

    def stabilised(self, request: Request, current: Provisioned) -> Provisioned | None:
        found = request.client(_SERVICE).describe_load_balancers(LoadBalancerArns=[current.physical_id])
        state = found["LoadBalancers"][0]["State"]
        if state["Code"] == "provisioning":
            return None
        if state["Code"] == "failed":
            raise ResourceError(
                f"ElasticLoadBalancerV2 LoadBalancer did not stabilize. {state.get('Reason', '')}".rstrip()
            )
        return current

    def delete(self, request: Request, current: Provisioned) -> None:
        with ignoring("LoadBalancerNotFound"):
            request.client(_SERVICE).delete_load_balancer(LoadBalancerArn=current.physical_id)


@provides("AWS::ElasticLoadBalancingV2::TargetGroup")
class TargetGroup(ResourceType):
    """A target group with its health check and attributes; targets stated in the template are registered."""

    immutable: ClassVar = frozenset(
        {"Name", "Port", "Protocol", "ProtocolVersion", "TargetType", "VpcId", "IpAddressType"}
    )
    _apart: ClassVar = ("Name", "TargetGroupAttributes", "Targets", "TargetControlPort")

    def create(self, request: Request) -> Provisioned:
        client = request.client(_SERVICE)
        name = request.properties.get("Name") or request.generated_name(_LONGEST_NAME)
        arn = request.call(_SERVICE, "CreateTargetGroup", request.without(*self._apart), Name=name)[
            "TargetGroups"
        ][0]["TargetGroupArn"]
        with undoing(lambda: client.delete_target_group(TargetGroupArn=arn)):
            if attributes := _attributes(request.properties, "TargetGroupAttributes"):
                client.modify_target_group_attributes(TargetGroupArn=arn, Attributes=attributes)
            if request.properties.get("Targets"):
                request.call(_SERVICE, "RegisterTargets", request.only("Targets"), TargetGroupArn=arn)
        full_name = arn.split(":")[-1]
        return Provisioned(
            arn,
            {
                "TargetGroupArn": arn,
                "TargetGroupName": name,
                "TargetGroupFullName": full_name,
                "LoadBalancerArns": [],
            },
        )

    def update(self, request: Request, current: Provisioned, before: Properties) -> Provisioned | None:
        client, after, arn = request.client(_SERVICE), request.properties, current.physical_id
        health = {
            key: value
            for key, value in after.items()
            if key.startswith(("HealthCheck", "HealthyThreshold", "UnhealthyThreshold", "Matcher"))
        }
        if health:
            request.call(_SERVICE, "ModifyTargetGroup", health, TargetGroupArn=arn)
        if attributes := _attributes(after, "TargetGroupAttributes"):
            client.modify_target_group_attributes(TargetGroupArn=arn, Attributes=attributes)
        if after.get("Targets") != before.get("Targets"):
            for operation, targets in (
                ("DeregisterTargets", before.get("Targets")),
                ("RegisterTargets", after.get("Targets")),
            ):
                if targets:
                    request.call(_SERVICE, operation, {"Targets": targets}, TargetGroupArn=arn)
        _retag(client, arn, before, after)
        return current

    def delete(self, request: Request, current: Provisioned) -> None:
        with ignoring("TargetGroupNotFound"):
            request.client(_SERVICE).delete_target_group(TargetGroupArn=current.physical_id)


@provides("AWS::ElasticLoadBalancingV2::Listener")
class Listener(ResourceType):
    """A listener and its default actions."""

    immutable: ClassVar = frozenset({"LoadBalancerArn"})

    def create(self, request: Request) -> Provisioned:
        answer = request.call(_SERVICE, "CreateListener", request.without("ListenerAttributes"))["Listeners"][
            0
        ]
        arn = answer["ListenerArn"]
        if attributes := _attributes(request.properties, "ListenerAttributes"):
            request.client(_SERVICE).modify_listener_attributes(ListenerArn=arn, Attributes=attributes)
        return Provisioned(arn, {"ListenerArn": arn})

    def update(self, request: Request, current: Provisioned, before: Properties) -> Provisioned | None:
        changeable = request.without("LoadBalancerArn", "ListenerAttributes", "Tags")
        request.call(_SERVICE, "ModifyListener", changeable, ListenerArn=current.physical_id)
        if attributes := _attributes(request.properties, "ListenerAttributes"):
            request.client(_SERVICE).modify_listener_attributes(
                ListenerArn=current.physical_id, Attributes=attributes
            )
        return current

    def delete(self, request: Request, current: Provisioned) -> None:
        with ignoring("ListenerNotFound", "LoadBalancerNotFound"):
            request.client(_SERVICE).delete_listener(ListenerArn=current.physical_id)


@provides("AWS::ElasticLoadBalancingV2::ListenerRule")
class ListenerRule(ResourceType):
    """A listener rule: conditions, actions and transforms."""

    immutable: ClassVar = frozenset({"ListenerArn"})

    def create(self, request: Request) -> Provisioned:
        arn = request.call(_SERVICE, "CreateRule", request.properties)["Rules"][0]["RuleArn"]
        return Provisioned(arn, {"RuleArn": arn, "IsDefault": False})

    def update(self, request: Request, current: Provisioned, before: Properties) -> Provisioned | None:
        arn = current.physical_id
        dropped = before.get("Transforms") and not request.properties.get("Transforms")
        reset = {"ResetTransforms": True} if dropped else {}
        request.call(
            _SERVICE, "ModifyRule", request.only("Conditions", "Actions", "Transforms"), RuleArn=arn, **reset
        )
        if request.properties.get("Priority") != before.get("Priority"):
            priority: Any = {"RuleArn": arn, "Priority": int(request.properties["Priority"])}
            request.client(_SERVICE).set_rule_priorities(RulePriorities=[priority])
        return current

    def delete(self, request: Request, current: Provisioned) -> None:
        with ignoring("RuleNotFound", "ListenerNotFound"):
            request.client(_SERVICE).delete_rule(RuleArn=current.physical_id)


def _retag(client: Any, arn: str, before: Properties, after: Properties) -> None:
    old, new = tag_list(before), tag_list(after)
    if old != new:
        client.remove_tags(ResourceArns=[arn], TagKeys=[tag["Key"] for tag in old])
        client.add_tags(ResourceArns=[arn], Tags=new)
