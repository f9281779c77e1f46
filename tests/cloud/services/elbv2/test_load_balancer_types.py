"""Load balancers: made by CloudFormation, read back by boto3, changed, deleted."""

from __future__ import annotations

from typing import Any

from support.control_plane import NETWORK, Account
from support.templates import changed


def test_a_load_balancer_with_rules_that_rewrite_paths(account: Account) -> None:
    def rewrite(replace: str) -> list[dict[str, Any]]:
        rewrites = [{"Regex": "^/live(/.*)$", "Replace": replace}]
        return [{"Type": "url-rewrite", "UrlRewriteConfig": {"Rewrites": rewrites}}]

    resources = NETWORK | {
        "Balancer": {
            "Type": "AWS::ElasticLoadBalancingV2::LoadBalancer",
            "Properties": {
                "Type": "application",
                "Scheme": "internal",
                "Subnets": [{"Ref": "Subnet"}, {"Ref": "Other"}],
                "SecurityGroups": [{"Ref": "Group"}],
                "LoadBalancerAttributes": [
                    {"Key": "routing.http.drop_invalid_header_fields.enabled", "Value": "true"}
                ],
            },
        },
        "Targets": {
            "Type": "AWS::ElasticLoadBalancingV2::TargetGroup",
            "Properties": {
                "Port": 8080,
                "Protocol": "HTTP",
                "TargetType": "ip",
                "VpcId": {"Ref": "Vpc"},
                "HealthCheckPath": "/ping",
                "HealthCheckIntervalSeconds": 10,
                "Matcher": {"HttpCode": "200"},
                "TargetGroupAttributes": [{"Key": "deregistration_delay.timeout_seconds", "Value": "30"}],
            },
        },
        "Listener": {
            "Type": "AWS::ElasticLoadBalancingV2::Listener",
            "Properties": {
                "LoadBalancerArn": {"Ref": "Balancer"},
                "Port": 80,
                "Protocol": "HTTP",
                "DefaultActions": [
                    {
                        "Type": "fixed-response",
                        "FixedResponseConfig": {
                            "StatusCode": "404",
                            "ContentType": "text/plain",
                            "MessageBody": "no",
                        },
                    }
                ],
            },
        },
        "Rule": {
            "Type": "AWS::ElasticLoadBalancingV2::ListenerRule",
            "Properties": {
                "ListenerArn": {"Ref": "Listener"},
                "Priority": 1,
                "Transforms": rewrite("$1"),
                "Conditions": [{"Field": "path-pattern", "PathPatternConfig": {"Values": ["/live/*"]}}],
                "Actions": [{"Type": "forward", "TargetGroupArn": {"Ref": "Targets"}}],
            },
        },
    }
    ids = account.create("balancer", resources)
    elb = account.client("elbv2")

    def rule() -> Any:
        return elb.describe_rules(RuleArns=[ids["Rule"]])["Rules"][0]

    listener = elb.describe_listeners(ListenerArns=[ids["Listener"]])["Listeners"][0]
    assert listener["DefaultActions"][0]["FixedResponseConfig"]["StatusCode"] == "404"
    assert rule()["Transforms"] == rewrite("$1")
    assert rule()["Actions"][0]["TargetGroupArn"] == ids["Targets"]
    group = elb.describe_target_groups(TargetGroupArns=[ids["Targets"]])["TargetGroups"][0]
    assert (group["HealthCheckPath"], group["HealthCheckIntervalSeconds"], group["Port"]) == (
        "/ping",
        10,
        8080,
    )
    attributes = elb.describe_target_group_attributes(TargetGroupArn=ids["Targets"])["Attributes"]
    assert {"Key": "deregistration_delay.timeout_seconds", "Value": "30"} in attributes

    other = changed(resources, "Rule", Transforms=rewrite("/x$1"))
    other = changed(other, "Targets", HealthCheckPath="/ready")
    assert account.update("balancer", other) == ids
    assert rule()["Transforms"] == rewrite("/x$1")
    assert (
        elb.describe_target_groups(TargetGroupArns=[ids["Targets"]])["TargetGroups"][0]["HealthCheckPath"]
        == "/ready"
    )
    account.update("balancer", changed(other, "Rule", Transforms=None))
    assert rule().get("Transforms", []) == []
    account.delete("balancer")
    assert elb.describe_load_balancers()["LoadBalancers"] == []
