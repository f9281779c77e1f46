"""CloudFormation's resource provider schemas: what a type accepts at creation and at an update.

CloudFormation validates a resource's resolved properties against the type's schema before it calls the
service. The schemas are data files of cfn-lint, one file a type; only those of the types in use are read, and
cfn-lint itself is never imported: that takes longer than everything else here.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from modelstacks.cloud.cloudformation.resource import (
    Properties,
    Provisioned,
    Request,
    ResourceError,
    ResourceType,
)
from modelstacks.cloud.cloudformation.schema_keywords import describe, validator_class
from modelstacks.cloud.cloudformation.schema_values import coerced, values_at

__all__ = [
    "Schema",
    "SchemasMissingError",
    "Validated",
    "find",
    "folder",
    "schema_of",
]

_ANY_REGION = "us-east-1"

#: The parts of a schema that say something about properties; the rest describes its handlers.
_OF_PROPERTIES = (
    "additionalProperties",
    "allOf",
    "anyOf",
    "createOnlyProperties",
    "definitions",
    "dependentExcluded",
    "dependentRequired",
    "dependencies",
    "oneOf",
    "properties",
    "readOnlyProperties",
    "required",
    "requiredOr",
    "requiredXor",
)


class SchemasMissingError(RuntimeError):
    """cfn-lint is not installed, or keeps its schemas where this module does not look."""


@cache
def folder() -> Path:
    """Where cfn-lint keeps its schemas. Raises SchemasMissingError."""
    spec = importlib.util.find_spec("cfnlint")  # finds the package without importing it
    return find((spec.submodule_search_locations or []) if spec else [])


def find(packages: Iterable[str]) -> Path:
    """The folder with providers/<region>.json and resources/<hash>.json in one of cfn-lint's folders."""
    for package in packages:
        schemas = Path(package) / "data" / "schemas"
        if (schemas / "providers" / f"{_ANY_REGION}.json").is_file():
            return schemas
    raise SchemasMissingError(
        "CloudFormation's resource schemas were not found: cfn-lint, which brings them, is missing or keeps "
        "them elsewhere; install modelstacks[cloud] again"
    )


@cache
def _types(region: str) -> Mapping[str, str]:
    """Resource type -> the name of its schema's file, of the types that exist in `region`."""
    path = folder() / "providers" / f"{region}.json"
    if not path.is_file():  # a region newer than the schemas
        path = folder() / "providers" / f"{_ANY_REGION}.json"
    found: dict[str, str] = json.loads(path.read_text())
    return found


@cache
def schema_of(type_name: str, region: str) -> Schema | None:
    """The schema of a resource type in a region; None where the region has no such type."""
    name = _types(region).get(type_name)
    if name is None:
        return None
    return _parsed(name)


@cache
def _parsed(name: str) -> Schema:
    """Most regions share one file."""
    document = json.loads((folder() / "resources" / f"{name}.json").read_text())
    return Schema({key: document[key] for key in _OF_PROPERTIES if key in document})


@dataclass(frozen=True, eq=False)
class Schema:
    """One type's resource provider schema."""

    document: Mapping[str, Any]

    def violations(self, properties: Properties) -> list[str]:
        """What is wrong with resolved properties, one line each, as CloudFormation says it."""
        value = coerced(properties, self.document, self.document)
        lines = [
            f"#: read-only property [{'/'.join(path)}] cannot be specified"
            for path in self._paths("readOnlyProperties")
            if any(True for _ in values_at(value, path))
        ]
        for error in self._validator.iter_errors(value):
            lines += describe(error)
        return list(dict.fromkeys(lines))

    def replaced(self, before: Properties, after: Properties) -> bool:
        """Whether an update changes what can only be set at creation, so that it needs a new resource."""
        old, new = (coerced(one, self.document, self.document) for one in (before, after))
        return any(
            list(values_at(old, path)) != list(values_at(new, path))
            for path in self._paths("createOnlyProperties")
        )

    def _paths(self, key: str) -> Iterator[tuple[str, ...]]:
        for pointer in self.document.get(key, []):
            yield tuple(pointer.removeprefix("/properties/").split("/"))

    @cached_property
    def _validator(self) -> Any:
        return validator_class()(self.document)


class Validated(ResourceType):
    """A resource type that refuses properties which violate its schema, before the service is called."""

    def __init__(self, inner: ResourceType, schema: Schema) -> None:
        self.inner, self.schema = inner, schema

    @property
    def immutable(self) -> frozenset[str]:  # type: ignore[override]  # each instance wraps another type
        """What the wrapped type says; the schema's own list is compared in `update`."""
        return self.inner.immutable

    def create(self, request: Request) -> Provisioned:
        """Create the resource once its properties are valid."""
        self._validate(request)
        return self.inner.create(request)

    def update(self, request: Request, current: Provisioned, before: Properties) -> Provisioned | None:
        """Update the resource once its properties are valid; a create-only change asks for a new one."""
        self._validate(request)
        if self.schema.replaced(before, request.properties):
            return None
        return self.inner.update(request, current, before)

    def stabilised(self, request: Request, current: Provisioned) -> Provisioned | None:
        """The resource once it is stable."""
        return self.inner.stabilised(request, current)

    def stabilises_within(self, request: Request) -> float:
        """Seconds until CloudFormation stops waiting and fails the resource."""
        return self.inner.stabilises_within(request)

    def delete(self, request: Request, current: Provisioned) -> None:
        """Delete the resource."""
        self.inner.delete(request, current)

    def _validate(self, request: Request) -> None:
        if lines := self.schema.violations(request.properties):
            raise ResourceError(
                f"Properties validation failed for resource {request.logical_id} with message:\n"
                + "\n".join(lines)
            )
