"""AWS::SecretsManager: secrets."""

from __future__ import annotations

import json
from typing import Any, ClassVar

from modelstacks.cloud.cloudformation.resource import (
    Properties,
    Provisioned,
    Request,
    ResourceType,
    client,
    ignoring,
    provides,
    resolves,
)
from modelstacks.cloud.cloudformation.template import TemplateError


@provides("AWS::SecretsManager::Secret")
class Secret(ResourceType):
    """A secret, given or generated. Ref is its ARN."""

    immutable: ClassVar = frozenset({"Name"})

    def create(self, request: Request) -> Provisioned:
        name = request.properties.get("Name") or request.generated_name()
        given = request.without("Name", "GenerateSecretString", "ReplicaRegions", "SecretString")
        arn = request.call(
            "secretsmanager", "CreateSecret", given, Name=name, SecretString=self._value(request)
        )["ARN"]
        return Provisioned(arn, {"Id": arn})

    def update(self, request: Request, current: Provisioned, before: Properties) -> Provisioned | None:
        request.call(
            "secretsmanager",
            "UpdateSecret",
            request.only("Description", "KmsKeyId"),
            SecretId=current.physical_id,
        )
        wanted, had = (
            p.get("SecretString") or p.get("GenerateSecretString") for p in (request.properties, before)
        )
        if wanted != had:  # an unchanged secret keeps the value that it has now, rotated or not
            request.client("secretsmanager").put_secret_value(
                SecretId=current.physical_id, SecretString=self._value(request)
            )
        return current

    def delete(self, request: Request, current: Provisioned) -> None:
        with ignoring("ResourceNotFoundException"):
            request.client("secretsmanager").delete_secret(
                SecretId=current.physical_id, ForceDeleteWithoutRecovery=True
            )

    @staticmethod
    def _value(request: Request) -> str:
        if "SecretString" in request.properties:
            return str(request.properties["SecretString"])
        rules: dict[str, Any] = dict(request.properties.get("GenerateSecretString", {}))
        template, key = rules.pop("SecretStringTemplate", None), rules.pop("GenerateStringKey", None)
        password: str = request.call("secretsmanager", "GetRandomPassword", rules)["RandomPassword"]
        return json.dumps({**json.loads(template), key: password}) if template and key else password


@resolves("secretsmanager")
def secret(reference: str, region: str) -> str:
    """Return the value of `secret-id:SecretString:json-key`, or the whole secret without a key."""
    parts = reference.split(":")
    name_parts = 7 if reference.startswith("arn:") else 1
    name, rest = ":".join(parts[:name_parts]), parts[name_parts:]
    value = str(client("secretsmanager", region).get_secret_value(SecretId=name)["SecretString"])
    if len(rest) < 2 or not (key := rest[1]):
        return value
    try:
        return str(json.loads(value)[key])
    except ValueError:
        raise TemplateError("Could not parse SecretString JSON") from None
    except KeyError:
        raise TemplateError(
            f"Could not find a value associated with JSONKey in SecretString: {key}"
        ) from None
