"""The SecretStore port: AWS Secrets Manager through boto3."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from modelstacks.adapters.s3 import aws_errors
from modelstacks.core.errors import EnvironmentFault

__all__ = ["SecretsManager"]


class SecretsManager:
    """Reads secrets by name. Values are returned to the caller and not stored or logged."""

    @cached_property
    def _client(self) -> Any:
        import boto3

        return boto3.client("secretsmanager")

    def get(self, name: str) -> str:
        with aws_errors(f"the secret {name} cannot be read"):
            secret = self._client.get_secret_value(SecretId=name)
        if "SecretString" not in secret:
            raise EnvironmentFault(
                f"the secret {name} contains bytes, not text", fix="store the token as a plain string"
            )
        return str(secret["SecretString"])
