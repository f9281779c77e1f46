"""API Gateway -> Lambda in isolated subnets -> interface endpoint -> one SageMaker endpoint."""

from __future__ import annotations

from collections.abc import Mapping

from aws_cdk import Aws
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_s3_assets as s3_assets
from constructs import Construct

from modelstacks.core import bundle
from modelstacks.core.contract import Route, answer_seconds

from .encryption import EncryptionKey
from .iam import Statement, allow, service_role
from .interfaces import function_interfaces
from .logs import log_group
from .nag import acknowledge
from .network import Network
from .rest_api import Integration
from .security_groups import HTTPS, Hop, SecurityGroup

__all__ = ["EndpointFunction", "Timeouts"]

CODE = bundle.functions() / "invoke"


class Timeouts:
    """Who gives up when: the SageMaker client, then Lambda, then API Gateway, so that each can say why.

    >>> Timeouts(29).client_seconds, Timeouts(29).function_seconds
    (27, 28)
    """

    def __init__(self, api_seconds: int) -> None:
        self.api_seconds = api_seconds
        # Lambda counts whole seconds from one. A caller who waits three seconds or less is given up on first.
        self.function_seconds = max(2, api_seconds - 1)
        self.client_seconds = answer_seconds(api_seconds, "managed")


class EndpointFunction(Construct):
    """The function that carries every route of the contract to a SageMaker endpoint.

    Args:
        endpoint_name: a token that holds until the endpoint is in service, so that the API never comes up
        before it. endpoint_arns: the same endpoint, and the one that it takes over from, for the policies.
        reserved_concurrency: invocations at once, taken from the account's. None reserves none: AWS refuses a
        reservation that leaves other functions fewer than 100, which in a new account is any.
    """

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        network: Network,
        key: EncryptionKey,
        endpoint_name: str,
        endpoint_arns: str,
        max_body_bytes: int,
        timeouts: Timeouts,
        reserved_concurrency: int | None,
        log_retention_days: int,
    ) -> None:
        super().__init__(scope, id)
        self._timeouts = timeouts
        invoke = allow("sagemaker:InvokeEndpoint", endpoint_arns)
        group = self._group(network, invoke)
        self.log_group = log_group(self, "Logs", key=key, retention_days=log_retention_days)
        role = self._role(invoke, network, group)
        function = self._function(
            network,
            group,
            role,
            reserved_concurrency=reserved_concurrency,
            environment={
                "ENDPOINT_NAME": endpoint_name,
                "MAX_BODY_BYTES": str(max_body_bytes),
                "READ_TIMEOUT_SECONDS": str(timeouts.client_seconds),
            },
        )
        for needed in (*network.ready, *group.opened):
            function.add_resource_dependency(needed)
        self.function_name: str = function.ref
        self._function_arn: str = function.attr_arn

    def _group(self, network: Network, invoke: Statement) -> SecurityGroup:
        """The function's security group, which opens the way to SageMaker's runtime and no other."""
        caller = {"StringEquals": {"aws:PrincipalAccount": Aws.ACCOUNT_ID}}
        runtime = network.interface_endpoint(
            "SagemakerRuntime",
            service="sagemaker.runtime",
            statements=[{**invoke, "Principal": "*", "Condition": caller}],
        )
        return SecurityGroup(
            self,
            "Group",
            vpc_id=network.vpc_id,
            description="the function that invokes the endpoint",
            hops=[Hop(runtime, HTTPS, "function to sagemaker.runtime")],
        )

    def _role(self, invoke: Statement, network: Network, group: SecurityGroup) -> iam.CfnRole:
        role = service_role(
            self,
            "Role",
            service="lambda.amazonaws.com",
            description="invokes one SageMaker endpoint",
            only_for_this_account=False,
            policies={
                "invoke": [invoke],
                "logs": [allow(["logs:CreateLogStream", "logs:PutLogEvents"], self.log_group.attr_arn)],
                "traces": [allow(["xray:PutTraceSegments", "xray:PutTelemetryRecords"], "*")],
                "network-interfaces": function_interfaces(network, group),
            },
        )
        acknowledge(
            role,
            "IAM5[Resource::*]",
            "X-Ray's actions and EC2's Describe actions name no resource (service authorization reference)",
        )
        acknowledge(
            role,
            "IAM5[Resource::arn:<AWS::Partition>:ec2:<AWS::Region>:<AWS::AccountId>:network-interface/*]",
            "the interface that Lambda makes has no id yet; where it is made is bound to subnets and group",
        )
        acknowledge(
            role,
            "IAM5[Resource::arn:<AWS::Partition>:ec2:<AWS::Region>:<AWS::AccountId>:*/*]",
            "Lambda checks a role for this form and refuses a narrower one (its guide on VPC access)",
        )
        return role

    def _function(
        self,
        network: Network,
        group: SecurityGroup,
        role: iam.CfnRole,
        *,
        reserved_concurrency: int | None,
        environment: Mapping[str, str],
    ) -> lambda_.CfnFunction:
        code = s3_assets.Asset(self, "Code", path=str(CODE), exclude=["**/__pycache__", "**/*.pyc"])
        return lambda_.CfnFunction(
            self,
            "Function",
            description="carries the API's routes to the SageMaker endpoint",
            code=lambda_.CfnFunction.CodeProperty(s3_bucket=code.s3_bucket_name, s3_key=code.s3_object_key),
            handler="handler.handle",
            runtime="python3.14",
            architectures=["arm64"],
            memory_size=1024,  # buys the CPU that TLS and base64 of a 4 MB body take
            timeout=self._timeouts.function_seconds,
            reserved_concurrent_executions=reserved_concurrency,
            role=role.attr_arn,
            environment=lambda_.CfnFunction.EnvironmentProperty(variables=dict(environment)),
            vpc_config=lambda_.CfnFunction.VpcConfigProperty(
                subnet_ids=network.subnet_ids, security_group_ids=[group.group_id]
            ),
            logging_config=lambda_.CfnFunction.LoggingConfigProperty(
                log_group=self.log_group.ref,
                log_format="JSON",
                application_log_level="INFO",
                system_log_level="WARN",
            ),
            tracing_config=lambda_.CfnFunction.TracingConfigProperty(mode="Active"),
        )

    def integrate(self, route: Route) -> Integration:  # noqa: ARG002  every route goes the same way
        """Send a route to the function."""
        return Integration(
            type="AWS_PROXY",
            integration_http_method="POST",
            uri=(
                f"arn:{Aws.PARTITION}:apigateway:{Aws.REGION}:lambda:path/2015-03-31/functions/"
                f"{self._function_arn}/invocations"
            ),
            timeout_in_millis=1000 * self._timeouts.api_seconds,
        )

    def admit(self, execute_arn: str) -> None:
        """Let one API's stage call the function."""
        lambda_.CfnPermission(
            self,
            "Api",
            action="lambda:InvokeFunction",
            function_name=self._function_arn,
            principal="apigateway.amazonaws.com",
            source_arn=execute_arn,
        )
