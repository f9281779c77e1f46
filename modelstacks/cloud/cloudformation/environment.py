"""The account and region that a template refers to: resource types, exports, zones, dynamic references."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from moto.cloudformation.exceptions import ExportNotFound

from modelstacks.cloud.cloudformation.moto_types import moto_type
from modelstacks.cloud.cloudformation.resource import (
    Provisioned,
    Request,
    ResourceType,
    client,
    dynamic_reference,
    emulated_types,
)
from modelstacks.cloud.cloudformation.schemas import Validated, schema_of
from modelstacks.cloud.cloudformation.template import TemplateError

__all__ = ["StackEnvironment", "unrecognized"]

CUSTOM_RESOURCE = "AWS::CloudFormation::CustomResource"


class Unemulated(ResourceType):
    """Accepts anything and makes nothing."""

    def create(self, request: Request) -> Provisioned:
        return Provisioned(request.generated_name())

    def update(self, request: Request, current: Provisioned, before: dict[str, Any]) -> Provisioned | None:
        return current

    def delete(self, request: Request, current: Provisioned) -> None:
        return None


class StackEnvironment:
    """One account and region: what a template can refer to outside its stack."""

    def __init__(self, backend: Any) -> None:
        self.backend, self.account, self.region = backend, backend.account_id, backend.region_name

    def type(self, name: str) -> tuple[ResourceType, bool]:
        kind = schema_name(name)
        known = emulated_types().get(kind) or moto_type(name)
        # The properties of a custom resource are its function's business; the schema names none of them.
        schema = None if kind == CUSTOM_RESOURCE else schema_of(kind, self.region)
        implementation = known or Unemulated()
        return (Validated(implementation, schema) if schema else implementation), known is not None

    def exported(self, name: str) -> Any:
        if name not in self.backend.exports:
            raise TemplateError(str(ExportNotFound(name).message))
        return self.backend.exports[name].value

    def zones(self, region: str) -> list[str]:
        zones = client("ec2", region).describe_availability_zones()["AvailabilityZones"]
        return [zone["ZoneName"] for zone in zones]

    def dynamic(self, service: str, reference: str) -> str:
        return dynamic_reference(service, reference, self.region)


def schema_name(type_name: str) -> str:
    """The type whose schema a type follows: a custom resource may have any name of its own."""
    return CUSTOM_RESOURCE if type_name.startswith("Custom::") else type_name


def unrecognized(template: Mapping[str, Any], region: str) -> list[str]:
    """The template's resource types that the region does not have."""
    used = {resource["Type"] for resource in template["Resources"].values()}
    return sorted(name for name in used if schema_of(schema_name(name), region) is None)
