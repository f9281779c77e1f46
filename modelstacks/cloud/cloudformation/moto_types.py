"""Resource types that moto's own CloudFormation provides, made to look like ours.

They are moto's classes, each with class methods that create, update and delete from a template's properties.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import wraps
from typing import Any, TypeVar, cast

from moto.cloudformation.parsing import generate_resource_name, get_model_map

from modelstacks.cloud.cloudformation.resource import (
    ONE_CALL_AT_A_TIME,
    Properties,
    Provisioned,
    Request,
    ResourceType,
)

__all__ = ["MotoType", "moto_type"]

_Method = TypeVar("_Method", bound=Callable[..., Any])


def moto_type(name: str) -> MotoType | None:
    """moto's implementation of a CloudFormation type, or None where it has none."""
    model = get_model_map().get(name)
    return MotoType(model) if model else None


def _in_turn(method: _Method) -> _Method:
    """moto's models change moto's dictionaries, as its API does."""

    @wraps(method)
    def locked(*arguments: Any) -> Any:
        with ONE_CALL_AT_A_TIME:
            return method(*arguments)

    return cast(_Method, locked)


class MotoType(ResourceType):
    """One of moto's CloudFormation models."""

    def __init__(self, model: Any) -> None:
        self.model = model

    @_in_turn
    def create(self, request: Request) -> Provisioned:
        made = self.model.create_from_cloudformation_json(
            self._name(request),
            self._declaration(request),
            request.account,
            request.region,
            LogicalId=request.logical_id,
            StackId=request.stack_id,
            ResourceType=request.type_name,
        )
        return self._provisioned(made, request)

    @_in_turn
    def update(self, request: Request, current: Provisioned, before: Properties) -> Provisioned | None:
        if hasattr(self.model.update_from_cloudformation_json, "__isabstractmethod__"):
            return None
        assert isinstance(current.attributes, _Attributes)
        changed = self.model.update_from_cloudformation_json(
            original_resource=current.attributes.resource,
            new_resource_name=self._name(request),
            cloudformation_json=self._declaration(request),
            account_id=request.account,
            region_name=request.region,
        )
        return self._provisioned(changed, request)

    @_in_turn
    def delete(self, request: Request, current: Provisioned) -> None:
        assert isinstance(current.attributes, _Attributes)
        if not hasattr(self.model.delete_from_cloudformation_json, "__isabstractmethod__"):
            self.model.delete_from_cloudformation_json(
                current.physical_id, self._declaration(request), request.account, request.region
            )
        elif hasattr(current.attributes.resource, "delete"):
            current.attributes.resource.delete(request.account, request.region)

    def _name(self, request: Request) -> str:
        given = request.properties.get(self.model.cloudformation_name_type() or "")
        return str(given or generate_resource_name(request.type_name, request.stack_name, request.logical_id))

    @staticmethod
    def _declaration(request: Request) -> dict[str, Any]:
        return {"Type": request.type_name, "Properties": request.properties}

    def _provisioned(self, resource: Any, request: Request) -> Provisioned:
        resource.cf_resource_type, resource.logical_resource_id = request.type_name, request.logical_id
        return Provisioned(str(resource.physical_resource_id), _Attributes(resource))


class _Attributes(Mapping[str, Any]):
    """moto's own Fn::GetAtt, looked up when asked for."""

    def __init__(self, resource: Any) -> None:
        self.resource = resource

    def __getitem__(self, name: str) -> Any:
        try:
            return self.resource.get_cfn_attribute(name)
        except Exception as error:  # moto raises a different class for each service
            raise KeyError(name) from error

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0
