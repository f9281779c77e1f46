"""API Gateway -> VPC link v2 -> internal Application Load Balancer -> model servers."""

from __future__ import annotations

from typing import Literal

from aws_cdk import aws_apigatewayv2 as apigatewayv2
from aws_cdk import aws_elasticloadbalancingv2 as elbv2
from constructs import Construct

from modelstacks.core.contract import SERVER_PORT, STAGE, Route

from .access_logs import balancer_log_bucket
from .network import Network
from .rest_api import Integration
from .security_groups import Hop, SecurityGroup

__all__ = ["PrivateIntegration", "TargetType"]

HTTP = 80
# Longer than the 29 s that API Gateway waits, so that the balancer never gives up first; shorter than the 75
# s for which the model server keeps an idle connection, so that the balancer never sends into one that is
# being closed.
IDLE_TIMEOUT_SECONDS = 60

# How targets register: tasks with a network interface of their own by address, machines by instance id.
TargetType = Literal["ip", "instance"]


class PrivateIntegration(Construct):
    """A load balancer that only this API's VPC link can reach.

    Args:
        targets: the security group of what the balancer sends to, which listens on the serving port.
        drain_seconds: how long a target that leaves may finish its requests.
        timeout_seconds: how long API Gateway waits for an answer.
    """

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        name: str,
        network: Network,
        targets: SecurityGroup,
        target_type: TargetType = "ip",
        drain_seconds: int,
        timeout_seconds: int,
        log_retention_days: int,
    ) -> None:
        super().__init__(scope, id)
        self._timeout_seconds = timeout_seconds
        balancer_group, link_group = self._groups(network, targets)
        self.opened = [*balancer_group.opened, *link_group.opened]
        self._balancer = self._make_balancer(network, balancer_group, log_retention_days)
        self.full_name: str = self._balancer.attr_load_balancer_full_name
        self.listener = self._make_listener()
        self.target_group = self._make_target_group(network, target_type, drain_seconds)
        self.rule = self._make_rule()
        # Subnets and security groups of a VPC link cannot be changed: an update replaces the link, while a
        # method that refers to it looks the same in the template.
        self.identity = (*network.identity, *network.subnet_ids, link_group.group_id)
        self._link = apigatewayv2.CfnVpcLink(
            self,
            "Link",
            name=name,
            subnet_ids=network.subnet_ids,
            security_group_ids=[link_group.group_id],
        )

    def integrate(self, route: Route) -> Integration:
        """Send a route to the load balancer."""
        return Integration(
            type="HTTP_PROXY",
            integration_http_method=route.method,
            connection_type="VPC_LINK",
            connection_id=self._link.ref,
            # The load balancer; the port of the URI (80) selects its listener.
            integration_target=self._balancer.ref,
            uri=f"http://{self._balancer.attr_dns_name}{route.path}",
            request_parameters={
                **{
                    f"integration.request.path.{name}": f"method.request.path.{name}"
                    for name in route.parameters
                },
                **{
                    f"integration.request.header.{header}": f"context.{variable}"
                    for header, variable in route.context
                },
            },
            passthrough_behavior="WHEN_NO_MATCH",
            timeout_in_millis=1000 * self._timeout_seconds,
        )

    def _groups(self, network: Network, targets: SecurityGroup) -> tuple[SecurityGroup, SecurityGroup]:
        """The security groups of the balancer and of the VPC link, open from the link to the targets."""
        balancer = SecurityGroup(
            self,
            "BalancerGroup",
            vpc_id=network.vpc_id,
            description="internal load balancer",
            hops=[Hop(targets, SERVER_PORT, "load balancer to model servers")],
        )
        link = SecurityGroup(
            self,
            "LinkGroup",
            vpc_id=network.vpc_id,
            description="VPC link of API Gateway",
            hops=[Hop(balancer, HTTP, "VPC link to load balancer")],
        )
        return balancer, link

    def _make_balancer(
        self, network: Network, group: SecurityGroup, log_retention_days: int
    ) -> elbv2.CfnLoadBalancer:
        log_bucket, log_policy = balancer_log_bucket(self, retention_days=log_retention_days)
        attributes = {
            "access_logs.s3.enabled": "true",
            "access_logs.s3.bucket": log_bucket.ref,
            # No deletion protection: it holds nothing, and `cdk destroy` has to be able to remove it.
            "deletion_protection.enabled": "false",
            "idle_timeout.timeout_seconds": str(IDLE_TIMEOUT_SECONDS),
            # Not "strictest": behind a VPC link that answers 400 to requests that API Gateway sends, such as
            # a GET with "Content-Length: 0" (docs/verified.md).
            "routing.http.desync_mitigation_mode": "defensive",
            "routing.http.drop_invalid_header_fields.enabled": "true",
        }
        balancer = elbv2.CfnLoadBalancer(
            self,
            "Balancer",
            type="application",
            scheme="internal",
            ip_address_type="ipv4",
            subnets=network.subnet_ids,
            security_groups=[group.group_id],
            load_balancer_attributes=[
                elbv2.CfnLoadBalancer.LoadBalancerAttributeProperty(key=key, value=value)
                for key, value in attributes.items()
            ],
        )
        balancer.add_resource_dependency(log_policy)
        return balancer

    def _make_listener(self) -> elbv2.CfnListener:
        return elbv2.CfnListener(
            self,
            "Listener",
            load_balancer_arn=self._balancer.ref,
            protocol="HTTP",
            port=HTTP,
            default_actions=[
                elbv2.CfnListener.ActionProperty(
                    type="fixed-response",
                    fixed_response_config=elbv2.CfnListener.FixedResponseConfigProperty(
                        status_code="404",
                        content_type="application/json",
                        message_body='{"title":"Not Found","status":404,"detail":"not a path of the API"}',
                    ),
                )
            ],
        )

    def _make_target_group(
        self, network: Network, target_type: TargetType, drain_seconds: int
    ) -> elbv2.CfnTargetGroup:
        attributes = {
            "deregistration_delay.timeout_seconds": str(drain_seconds),
            # Predictions differ in length: send the next one to whoever has least to do.
            "load_balancing.algorithm.type": "least_outstanding_requests",
            "stickiness.enabled": "false",
        }
        return elbv2.CfnTargetGroup(
            self,
            "Targets",
            vpc_id=network.vpc_id,
            target_type=target_type,
            protocol="HTTP",
            port=SERVER_PORT,
            # Readiness: 200 only once the model is loaded and has answered a warm-up, 503 again while it
            # drains.
            health_check_enabled=True,
            health_check_protocol="HTTP",
            health_check_path="/ping",
            health_check_interval_seconds=10,
            health_check_timeout_seconds=5,
            healthy_threshold_count=2,
            unhealthy_threshold_count=3,
            matcher=elbv2.CfnTargetGroup.MatcherProperty(http_code="200"),
            target_group_attributes=[
                elbv2.CfnTargetGroup.TargetGroupAttributeProperty(key=key, value=value)
                for key, value in attributes.items()
            ],
        )

    def _make_rule(self) -> elbv2.CfnListenerRule:
        """Forward every path, without the stage's name where it is there.

        AWS's documents say that API Gateway puts the stage's name in front of the path that it sends through
        a VPC link; recorded runs received the path without it. A path that the pattern does not match is
        forwarded unchanged. No route of the contract begins with the stage's name, so the two cannot be
        confused.
        """
        rule = elbv2.CfnListenerRule
        return rule(
            self,
            "Rule",
            listener_arn=self.listener.ref,
            priority=1,
            conditions=[
                rule.RuleConditionProperty(
                    field="path-pattern",
                    path_pattern_config=rule.PathPatternConfigProperty(values=["/*"]),
                )
            ],
            transforms=[
                rule.TransformProperty(
                    type="url-rewrite",
                    url_rewrite_config=rule.RewriteConfigObjectProperty(
                        rewrites=[rule.RewriteConfigProperty(regex=f"^/{STAGE}(/.*)$", replace="$1")]
                    ),
                )
            ],
            actions=[rule.ActionProperty(type="forward", target_group_arn=self.target_group.ref)],
        )
