"""What a stack consists of, and what the names in its template mean while it is being made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from modelstacks.cloud.cloudformation.resource import Provisioned, Request, ResourceType
from modelstacks.cloud.cloudformation.template import TemplateError, condition_holds

__all__ = ["Environment", "Resource", "StackResources", "StackScope"]


@dataclass(slots=True)
class Resource:
    """One resource that exists, and what it was made from."""

    request: Request
    type: ResourceType
    provisioned: Provisioned
    status: str
    declaration: Mapping[str, Any]
    emulated: bool = True

    # The names under which moto's CloudFormation API looks a resource up.
    @property
    def logical_resource_id(self) -> str:
        return self.request.logical_id

    @property
    def physical_resource_id(self) -> str:
        return self.provisioned.physical_id

    @property
    def cf_resource_type(self) -> str:
        return self.request.type_name


@dataclass(slots=True)
class StackResources:
    """What a stack consists of now.

    `resources` is in the order of creation. `parameters` has an SSM parameter's value, not its name.
    """

    template: dict[str, Any] = field(default_factory=lambda: {"Resources": {}})
    parameters: dict[str, Any] = field(default_factory=dict)
    resources: dict[str, Resource] = field(default_factory=dict)


class Environment(Protocol):
    """What a template can refer to outside its stack."""

    account: str
    region: str

    def type(self, name: str) -> tuple[ResourceType, bool]:
        """The implementation of a type, and whether anything emulates it."""

    def exported(self, name: str) -> Any:
        """The value that a stack exports."""

    def zones(self, region: str) -> list[str]:
        """A region's Availability Zones."""

    def dynamic(self, service: str, reference: str) -> str:
        """The value of a dynamic reference."""


class StackScope:
    """What the names of one stack's template mean while its resources come into being."""

    def __init__(self, stack: StackResources, environment: Environment, pseudo: Mapping[str, Any]) -> None:
        self._stack, self._environment, self._pseudo = stack, environment, pseudo
        self._conditions: dict[str, bool] = {}

    def ref(self, name: str) -> Any:
        if name in self._pseudo:
            return self._pseudo[name]
        if name in self._stack.parameters:
            return self._stack.parameters[name]
        return self.resource(name, "Ref").provisioned.physical_id

    def attribute(self, logical_id: str, name: str) -> Any:
        resource = self.resource(logical_id, "Fn::GetAtt")
        if not resource.emulated:
            where = f"{self._environment.region}:{self._environment.account}"
            return f"arn:aws:not-emulated:{where}:{logical_id}/{name}"
        try:
            return resource.provisioned.attributes[name]
        except KeyError:
            raise TemplateError(
                f"Template error: resource {logical_id} does not support attribute type {name} in Fn::GetAtt"
            ) from None

    def resource(self, logical_id: str, function: str) -> Resource:
        if logical_id in self._stack.resources:
            return self._stack.resources[logical_id]
        raise TemplateError(
            f"Template error: instance of {function} references undefined resource {logical_id}"
        )

    def condition(self, name: str) -> bool:
        if name not in self._conditions:
            definition = self._stack.template.get("Conditions", {}).get(name)
            if definition is None:
                raise TemplateError(f"Template format error: Unresolved condition dependency {name}")
            self._conditions[name] = condition_holds(definition, self)
        return self._conditions[name]

    def mapping(self, name: str) -> Mapping[str, Any]:
        table: Mapping[str, Any] = self._stack.template.get("Mappings", {})[name]
        return table

    def exported(self, name: str) -> Any:
        return self._environment.exported(name)

    def zones(self, region: str) -> list[str]:
        return self._environment.zones(region or self._environment.region)

    def dynamic(self, service: str, reference: str) -> str:
        return self._environment.dynamic(service, reference)
