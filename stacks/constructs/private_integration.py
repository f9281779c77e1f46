"""API Gateway -> VPC link v2 -> internal Application Load Balancer -> targets by IP address."""

from __future__ import annotations

from aws_cdk import Aws, CfnDeletionPolicy
from aws_cdk import aws_apigatewayv2 as apigatewayv2
from aws_cdk import aws_elasticloadbalancingv2 as elbv2
from aws_cdk import aws_s3 as s3
from constructs import Construct

from modelstacks.core.contract import SERVER_PORT, STAGE, Route

from .iam import allow, policy_document
from .nag import acknowledge
from .network import Hop, Network, SecurityGroup
from .rest_api import Integration

__all__ = ["PrivateIntegration"]

HTTP = 80
# Longer than the 29 s that API Gateway waits, so that the balancer never gives up first; shorter than the 75
# s for which the model server keeps an idle connection, so that the balancer never sends into one that is
# being closed.
IDLE_TIMEOUT_SECONDS = 60


class PrivateIntegration(Construct):
    """A load balancer that only this API's VPC link can reach.

    Args:
        targets: the security group of what stands behind the balancer; it listens on the serving port.
        drain_seconds: how long a target that leaves may finish its requests.
        timeout_seconds: how long API Gateway waits for an answer.
    """

    def __init__(
        self,
        scope: Construct,
        id: str,  # noqa: A002  the CDK's own word
        *,
        name: str,
        network: Network,
        targets: SecurityGroup,
        drain_seconds: int,
        timeout_seconds: int,
        log_retention_days: int,
    ) -> None:
        super().__init__(scope, id)
        self._timeout_seconds = timeout_seconds
        balancer_group = SecurityGroup(
            self,
            "BalancerGroup",
            vpc_id=network.vpc_id,
            description="internal load balancer",
            hops=[Hop(targets, SERVER_PORT, "load balancer to model servers")],
        )
        link_group = SecurityGroup(
            self,
            "LinkGroup",
            vpc_id=network.vpc_id,
            description="VPC link of API Gateway",
            hops=[Hop(balancer_group, HTTP, "VPC link to load balancer")],
        )
        log_bucket, log_policy = self._log_bucket(log_retention_days)
        self._balancer = elbv2.CfnLoadBalancer(
            self,
            "Balancer",
            type="application",
            scheme="internal",
            ip_address_type="ipv4",
            subnets=network.subnet_ids,
            security_groups=[balancer_group.group_id],
            load_balancer_attributes=[
                elbv2.CfnLoadBalancer.LoadBalancerAttributeProperty(key=key, value=value)
                for key, value in {
                    "access_logs.s3.enabled": "true",
                    "access_logs.s3.bucket": log_bucket.ref,
                    # No deletion protection: it holds nothing, and `cdk destroy` has to be able to remove it.
                    "deletion_protection.enabled": "false",
                    "idle_timeout.timeout_seconds": str(IDLE_TIMEOUT_SECONDS),
                    # Not "strictest": behind a VPC link that answers 400 to requests that API Gateway sends,
                    # such as a GET with "Content-Length: 0" (docs/verified.md).
                    "routing.http.desync_mitigation_mode": "defensive",
                    "routing.http.drop_invalid_header_fields.enabled": "true",
                }.items()
            ],
        )
        self._balancer.add_resource_dependency(log_policy)
        self.full_name: str = self._balancer.attr_load_balancer_full_name
        self.listener = elbv2.CfnListener(
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
        self.target_group = elbv2.CfnTargetGroup(
            self,
            "Targets",
            vpc_id=network.vpc_id,
            target_type="ip",
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
                for key, value in {
                    "deregistration_delay.timeout_seconds": str(drain_seconds),
                    # Predictions differ in length: send the next one to whoever has least to do.
                    "load_balancing.algorithm.type": "least_outstanding_requests",
                    "stickiness.enabled": "false",
                }.items()
            ],
        )
        # AWS's documents say that API Gateway puts the stage's name in front of the path that it sends
        # through a VPC link; recorded runs received the path without it. The rule takes every path, and the
        # rewrite removes the stage's name where it is there: a path that the pattern does not match is
        # forwarded unchanged. No route of the contract begins with the stage's name, so the two cannot be
        # confused.
        self.rule = elbv2.CfnListenerRule(
            self,
            "Rule",
            listener_arn=self.listener.ref,
            priority=1,
            conditions=[
                elbv2.CfnListenerRule.RuleConditionProperty(
                    field="path-pattern",
                    path_pattern_config=elbv2.CfnListenerRule.PathPatternConfigProperty(values=["/*"]),
                )
            ],
            transforms=[
                elbv2.CfnListenerRule.TransformProperty(
                    type="url-rewrite",
                    url_rewrite_config=elbv2.CfnListenerRule.RewriteConfigObjectProperty(
                        rewrites=[
                            elbv2.CfnListenerRule.RewriteConfigProperty(
                                regex=f"^/{STAGE}(/.*)$", replace="$1"
                            )
                        ]
                    ),
                )
            ],
            actions=[
                elbv2.CfnListenerRule.ActionProperty(type="forward", target_group_arn=self.target_group.ref)
            ],
        )
        self.opened = [*balancer_group.opened, *link_group.opened]
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

    def _log_bucket(self, retention_days: int) -> tuple[s3.CfnBucket, s3.CfnBucketPolicy]:
        """The balancer's access logs. The load balancing service can only write under S3's own key."""
        bucket = s3.CfnBucket(
            self,
            "AccessLogs",
            bucket_encryption=s3.CfnBucket.BucketEncryptionProperty(
                server_side_encryption_configuration=[
                    s3.CfnBucket.ServerSideEncryptionRuleProperty(
                        server_side_encryption_by_default=s3.CfnBucket.ServerSideEncryptionByDefaultProperty(
                            sse_algorithm="AES256"
                        )
                    )
                ]
            ),
            public_access_block_configuration=s3.CfnBucket.PublicAccessBlockConfigurationProperty(
                block_public_acls=True,
                block_public_policy=True,
                ignore_public_acls=True,
                restrict_public_buckets=True,
            ),
            ownership_controls=s3.CfnBucket.OwnershipControlsProperty(
                rules=[s3.CfnBucket.OwnershipControlsRuleProperty(object_ownership="BucketOwnerEnforced")]
            ),
            lifecycle_configuration=s3.CfnBucket.LifecycleConfigurationProperty(
                rules=[
                    s3.CfnBucket.RuleProperty(
                        id="retention",
                        status="Enabled",
                        expiration_in_days=retention_days,
                        abort_incomplete_multipart_upload=s3.CfnBucket.AbortIncompleteMultipartUploadProperty(
                            days_after_initiation=1
                        ),
                    )
                ]
            ),
        )
        # A bucket that holds logs cannot be deleted; it stays behind, and its lifecycle rule empties it.
        bucket.cfn_options.deletion_policy = CfnDeletionPolicy.RETAIN
        bucket.cfn_options.update_replace_policy = CfnDeletionPolicy.RETAIN
        acknowledge(bucket, "S1", "it is itself the destination of access logs")
        objects = f"{bucket.attr_arn}/*"
        policy = s3.CfnBucketPolicy(
            self,
            "AccessLogsPolicy",
            bucket=bucket.ref,
            policy_document=policy_document(
                {
                    "Effect": "Deny",
                    "Principal": "*",
                    "Action": "s3:*",
                    "Resource": [bucket.attr_arn, objects],
                    "Condition": {"Bool": {"aws:SecureTransport": "false"}},
                },
                # The service writes below the account that owns the load balancer: nobody else's logs fit
                # this path.
                allow(
                    "s3:PutObject",
                    f"{bucket.attr_arn}/AWSLogs/{Aws.ACCOUNT_ID}/*",
                    principal={"Service": "logdelivery.elasticloadbalancing.amazonaws.com"},
                ),
            ),
        )
        policy.cfn_options.deletion_policy = CfnDeletionPolicy.RETAIN
        policy.cfn_options.update_replace_policy = CfnDeletionPolicy.RETAIN
        return bucket, policy
