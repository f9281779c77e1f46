"""AWS::SSM: parameters. The resource type is moto's own; templates refer to its values."""

from __future__ import annotations

from botocore.exceptions import ClientError

from modelstacks.cloud.cloudformation.resource import client, resolves
from modelstacks.cloud.cloudformation.template import TemplateError


@resolves("ssm", "ssm-secure")
def parameter(reference: str, region: str) -> str:
    """Return the value of a parameter, `name` or `name:version`."""
    try:
        answer = client("ssm", region).get_parameter(Name=reference, WithDecryption=True)
    except ClientError as error:
        if error.response["Error"]["Code"] not in ("ParameterNotFound", "ParameterVersionNotFound"):
            raise
        raise TemplateError(
            f"Unable to fetch parameters [{reference}] from parameter store for this account."
        ) from None
    return str(answer["Parameter"]["Value"])
