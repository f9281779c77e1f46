"""The caller's own AWS account, as far as the commands read it: stacks and their outputs, API keys.

Everything here is a read. Credentials, profile and region come from the caller's usual AWS configuration.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from modelstacks.core.errors import EnvironmentFault

if TYPE_CHECKING:
    from botocore.exceptions import ClientError

__all__ = ["AwsAccount"]


class AwsAccount:
    """An account and region of AWS.

    Args:
        region: the region to read; None takes the configured one.
    """

    def __init__(self, region: str | None = None) -> None:
        self._region = region

    def stacks(self, names: Sequence[str]) -> list[str]:
        """Those of the stacks that exist. Raises EnvironmentFault where CloudFormation cannot be asked."""
        return [name for name in names if self._stack(name) is not None]

    def outputs(self, stack: str) -> Mapping[str, str] | None:
        """The outputs of a stack, or None where there is no such stack."""
        found = self._stack(stack)
        if found is None:
            return None
        return {one["OutputKey"]: one["OutputValue"] for one in found.get("Outputs", [])}

    def api_key(self, key_id: str) -> str:
        """The value of an API key."""
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
        """One call. Raises ClientError for AWS's refusal, EnvironmentFault where nothing could be asked."""
        import boto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError

        config = Config(connect_timeout=5, read_timeout=15, retries={"total_max_attempts": 2})
        try:
            client = boto3.Session(region_name=self._region).client(service, config=config)
            answer: dict[str, Any] = getattr(client, operation)(**arguments)
        except BotoCoreError as error:
            raise EnvironmentFault(
                f"AWS cannot be asked ({service} {operation}): {error}",
                fix="check the credentials, profile and region: aws sts get-caller-identity",
            ) from None
        return answer


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
