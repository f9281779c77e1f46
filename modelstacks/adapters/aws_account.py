"""Reads an AWS account for the commands: stacks and their outputs, resources, API keys.

Everything here is a read. Credentials, profile and region come from the caller's usual AWS configuration.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from modelstacks.adapters.deployed_api import Signer
from modelstacks.core.errors import EnvironmentFault
from modelstacks.core.leftovers import Leftover, leftovers

if TYPE_CHECKING:
    from botocore.exceptions import ClientError

__all__ = ["AwsAccount", "Keys"]


#: How to ask for what a resource is like now: service, operation, and its arguments by physical id.
_FACTS: Mapping[str, tuple[str, str, Callable[[str], dict[str, Any]]]] = {
    "AWS::ApiGatewayV2::VpcLink": ("apigatewayv2", "get_vpc_link", lambda link: {"VpcLinkId": link}),
    "AWS::ElasticLoadBalancingV2::LoadBalancer": (
        "elbv2",
        "describe_load_balancer_attributes",
        lambda arn: {"LoadBalancerArn": arn},
    ),
    "AWS::ElasticLoadBalancingV2::ListenerRule": ("elbv2", "describe_rules", lambda arn: {"RuleArns": [arn]}),
    "AWS::ElasticLoadBalancingV2::TargetGroup": (
        "elbv2",
        "describe_target_health",
        lambda arn: {"TargetGroupArn": arn},
    ),
    "AWS::ECS::Service": (
        "ecs",
        "describe_services",
        lambda arn: {"cluster": arn.split("/")[1], "services": [arn]},
    ),
    "AWS::SageMaker::Endpoint": (
        "sagemaker",
        "describe_endpoint",
        lambda arn: {"EndpointName": arn.rpartition("/")[2]},
    ),
    "AWS::Lambda::Function": ("lambda", "get_function_configuration", lambda name: {"FunctionName": name}),
}


@dataclass(frozen=True, slots=True)
class Keys:
    """Credentials and endpoint of an account other than the caller's own: the embedded cloud's."""

    endpoint_url: str
    access_key_id: str
    secret_access_key: str


class AwsAccount:
    """An account and region of AWS.

    Args:
        region: the region to read; None takes the configured one.
        keys: reads the embedded account instead of the caller's.
    """

    def __init__(self, region: str | None = None, keys: Keys | None = None) -> None:
        self._region, self._keys = region, keys

    def account_id(self) -> str:
        """Return the id of the account that the credentials belong to."""
        return str(self._call("sts", "get_caller_identity")["Account"])

    def region(self) -> str:
        """Return the region. Raises EnvironmentFault if none is configured."""
        import boto3

        found = self._region or boto3.Session().region_name
        if not found:
            raise EnvironmentFault("no AWS region is configured", fix="set AWS_REGION, or aws configure")
        return str(found)

    def bootstrap_version(self) -> int | None:
        """Return the version of the CDK's bootstrap resources, or None without them."""
        found = self._unless_missing("ssm", "get_parameter", Name="/cdk-bootstrap/hnb659fds/version")
        return None if found is None else int(found["Parameter"]["Value"])

    def has_role(self, name: str) -> bool:
        """Return whether an IAM role exists."""
        return self._unless_missing("iam", "get_role", RoleName=name) is not None

    def _unless_missing(self, service: str, operation: str, **arguments: object) -> dict[str, Any] | None:
        from botocore.exceptions import ClientError

        try:
            return self._ask(service, operation, **arguments)
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") in ("ParameterNotFound", "NoSuchEntity"):
                return None
            raise _fault(service, operation, error) from None

    def signer(self) -> Signer:
        """Return what signs requests with the caller's credentials. Raises EnvironmentFault without them."""
        import boto3

        session = boto3.Session(region_name=self._region)
        found = session.get_credentials()
        if found is None or session.region_name is None:
            raise EnvironmentFault("no AWS credentials or no region", fix="aws configure, or set AWS_PROFILE")
        keys = found.get_frozen_credentials()
        return Signer(keys.access_key, keys.secret_key, session.region_name, keys.token)

    def facts(self, stack: str) -> dict[str, Any]:
        """Describe a stack's resources, by logical id; a refusal is recorded in place of a description."""
        listed = self._call("cloudformation", "describe_stack_resources", StackName=stack)["StackResources"]
        found: dict[str, Any] = {}
        for resource in listed:
            kind = resource.get("ResourceType", "")
            found[resource["LogicalResourceId"]] = {"type": kind, "status": resource.get("ResourceStatus")}
            if kind in _FACTS:
                service, operation, arguments = _FACTS[kind]
                found[resource["LogicalResourceId"]]["answer"] = self._fact(
                    service, operation, arguments(resource["PhysicalResourceId"])
                )
        return found

    def _fact(self, service: str, operation: str, arguments: Mapping[str, Any]) -> Any:
        try:
            answer = self._call(service, operation, **arguments)
        except EnvironmentFault as error:
            return str(error)
        answer.pop("ResponseMetadata", None)
        return answer

    def stacks(self, names: Sequence[str]) -> list[str]:
        """Return those of the stacks that exist. Raises EnvironmentFault if AWS cannot be asked."""
        return [name for name in names if self._stack(name) is not None]

    def outputs(self, stack: str) -> Mapping[str, str] | None:
        """Return the outputs of a stack, or None if there is no such stack."""
        found = self._stack(stack)
        if found is None:
            return None
        return {one["OutputKey"]: one["OutputValue"] for one in found.get("Outputs", [])}

    def leftovers(self, stack: str) -> list[Leftover]:
        """List what deleting a deployed stack leaves in the account; empty if there is no such stack."""
        if self._stack(stack) is None:
            return []
        body = self._call("cloudformation", "get_template", StackName=stack)["TemplateBody"]
        listed = self._call("cloudformation", "describe_stack_resources", StackName=stack)["StackResources"]
        names = {one["LogicalResourceId"]: one.get("PhysicalResourceId", "") for one in listed}
        return leftovers(json.loads(body) if isinstance(body, str) else body, names)

    def api_key(self, key_id: str) -> str:
        """Return the value of an API key."""
        answer = self._call("apigateway", "get_api_key", apiKey=key_id, includeValue=True)
        return str(answer["value"])

    def _stack(self, name: str) -> dict[str, Any] | None:
        from botocore.exceptions import ClientError

        try:
            answer = self._ask("cloudformation", "describe_stacks", StackName=name)
        except ClientError as error:
            if _means_no_such_stack(error):
                return None
            raise _fault("cloudformation", "describe_stacks", error) from None
        stack: dict[str, Any] = answer["Stacks"][0]
        return stack

    def _call(self, service: str, operation: str, **arguments: object) -> dict[str, Any]:
        from botocore.exceptions import ClientError

        try:
            return self._ask(service, operation, **arguments)
        except ClientError as error:
            raise _fault(service, operation, error) from None

    def _ask(self, service: str, operation: str, **arguments: object) -> dict[str, Any]:
        """Call AWS. Raises ClientError if AWS refuses, EnvironmentFault if it cannot be reached."""
        import boto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError

        config = Config(connect_timeout=5, read_timeout=15, retries={"total_max_attempts": 2})
        try:
            client = boto3.Session(region_name=self._region).client(service, config=config, **self._access())
            answer: dict[str, Any] = getattr(client, operation)(**arguments)
        except BotoCoreError as error:
            raise EnvironmentFault(
                f"AWS cannot be asked ({service} {operation}): {error}",
                fix="check the credentials, profile and region: aws sts get-caller-identity",
            ) from None
        return answer

    def _access(self) -> dict[str, str]:
        if self._keys is None:
            return {}
        return {
            "endpoint_url": self._keys.endpoint_url,
            "aws_access_key_id": self._keys.access_key_id,
            "aws_secret_access_key": self._keys.secret_access_key,
        }


def _means_no_such_stack(error: ClientError) -> bool:
    # CloudFormation has no error code for a missing stack: a ValidationError, whose message says so.
    details = error.response.get("Error", {})
    return details.get("Code") == "ValidationError" and "does not exist" in details.get("Message", "")


def _fault(service: str, operation: str, error: ClientError) -> EnvironmentFault:
    details = error.response.get("Error", {})
    return EnvironmentFault(
        f"AWS refused {service} {operation}: {details.get('Code')}: {details.get('Message')}",
        fix="check that these credentials may read the account",
    )
