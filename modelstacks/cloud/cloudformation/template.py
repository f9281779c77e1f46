"""CloudFormation templates: parsing, intrinsic functions, conditions, and the order of creation. Pure.

What a template can refer to (parameters, pseudo parameters, resources, exports) is passed in as a `Scope`;
this module does not know how a resource is created.
"""

from __future__ import annotations

import base64
import ipaddress
import json
import re
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from typing import Any, Protocol

import yaml

__all__ = [
    "Scope", "TemplateError", "condition_holds", "creation_order", "dependencies", "parse", "references",
    "resolve",
]  # fmt: skip

_SUBSTITUTION = re.compile(r"\$\{(!?)([^}]*)\}")
_DYNAMIC_REFERENCE = re.compile(r"\{\{resolve:([a-z-]+):([^}]*)\}\}")

#: What `Ref: AWS::NoValue` resolves to; properties and list items that are this are left out.
NO_VALUE = object()


class TemplateError(Exception):
    """The template is invalid; the message has CloudFormation's wording."""


class Scope(Protocol):
    """What the names in a template mean."""

    def ref(self, name: str) -> Any:
        """The value of a parameter or pseudo parameter, or the physical id of a resource."""

    def attribute(self, logical_id: str, name: str) -> Any:
        """The value of a resource's attribute."""

    def condition(self, name: str) -> bool:
        """Whether a condition holds."""

    def mapping(self, name: str) -> Mapping[str, Any]:
        """A mapping's first level."""

    def exported(self, name: str) -> Any:
        """The value that some stack exports under this name."""

    def zones(self, region: str) -> list[str]:
        """The Availability Zones of a region ("" is the stack's own)."""

    def dynamic(self, service: str, reference: str) -> str:
        """The value of `{{resolve:service:reference}}`."""


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """YAML with the short form of the intrinsic functions; dates stay text, as CloudFormation has them."""


def _short_form(loader: _Loader, suffix: str, node: yaml.Node) -> dict[str, Any]:
    name = suffix if suffix in ("Ref", "Condition") else f"Fn::{suffix}"
    if isinstance(node, yaml.ScalarNode):
        value: Any = loader.construct_scalar(node)
        return {name: value.split(".", 1) if suffix == "GetAtt" else value}
    if isinstance(node, yaml.SequenceNode):
        return {name: loader.construct_sequence(node, deep=True)}
    assert isinstance(node, yaml.MappingNode)
    return {name: loader.construct_mapping(node, deep=True)}


_Loader.add_multi_constructor("!", _short_form)
_Loader.add_constructor("tag:yaml.org,2002:timestamp", _Loader.construct_yaml_str)


def parse(body: str) -> dict[str, Any]:
    """A template's text, JSON or YAML, as a mapping. Raises TemplateError."""
    try:
        template = json.loads(body)
    except ValueError:
        try:
            template = yaml.load(body, Loader=_Loader)  # noqa: S506  a SafeLoader with the tags of this format
        except yaml.YAMLError as error:
            raise TemplateError(f"Template format error: {error}") from None
    if not isinstance(template, dict) or not template.get("Resources"):
        raise TemplateError("Template format error: At least one Resources member must be defined.")
    for logical_id, resource in template["Resources"].items():
        if not isinstance(resource, dict) or not isinstance(resource.get("Type"), str):
            raise TemplateError(
                f"Template format error: [/Resources/{logical_id}] every resource needs a Type."
            )
    return template


def references(value: Any) -> Iterator[str]:
    """The names that a value refers to by Ref, Fn::GetAtt and Fn::Sub."""
    if isinstance(value, list):
        for item in value:
            yield from references(item)
    elif isinstance(value, dict):
        for key, inner in value.items():
            if key == "Ref" and isinstance(inner, str):
                yield inner
            elif key == "Fn::GetAtt":
                yield (inner.split(".")[0] if isinstance(inner, str) else inner[0])
            elif key == "Fn::Sub":
                text, own = (inner, {}) if isinstance(inner, str) else (inner[0], inner[1])
                names = (m[2].strip().split(".")[0] for m in _SUBSTITUTION.finditer(text) if not m[1])
                yield from (name for name in names if name not in own)
                yield from references(own)
            else:
                yield from references(inner)


def dependencies(resources: Mapping[str, Any]) -> dict[str, set[str]]:
    """Logical id -> the resources that it refers to or depends on, each after everything that it needs.

    Independent resources keep the template's order. Names that are not among `resources` are left out.
    Raises TemplateError for a circle.
    """
    graph = {
        logical_id: {name for name in _needed(resource) if name in resources}
        for logical_id, resource in resources.items()
    }
    try:
        return {name: graph[name] for name in TopologicalSorter(graph).static_order()}
    except CycleError as error:
        raise TemplateError(
            f"Circular dependency between resources: [{', '.join(error.args[1][:-1])}]"
        ) from None


def creation_order(resources: Mapping[str, Any]) -> list[str]:
    """Logical ids so that each comes after everything that it refers to or depends on.

    Raises TemplateError for a circle or an unknown name in DependsOn.
    """
    for resource in resources.values():
        for name in _explicit(resource):
            if name not in resources:
                raise TemplateError(
                    f"Template format error: Unresolved resource dependencies [{name}] "
                    "in the Resources block of the template"
                )
    return list(dependencies(resources))


def _explicit(resource: Mapping[str, Any]) -> list[str]:
    named = resource.get("DependsOn", [])
    return [named] if isinstance(named, str) else list(named)


def _needed(resource: Mapping[str, Any]) -> set[str]:
    return {*references(resource.get("Properties", {})), *_explicit(resource)}


def condition_holds(condition: Any, scope: Scope) -> bool:
    """Evaluate one condition's definition."""
    if isinstance(condition, bool):
        return condition
    (operator, operands), *more = condition.items()
    if more:
        raise TemplateError("Template error: a condition holds exactly one function")
    if operator == "Condition":
        return scope.condition(operands)
    if operator == "Fn::Equals":
        left, right = (resolve(operand, scope) for operand in operands)
        return _text(left) == _text(right)
    if operator == "Fn::Not":
        return not condition_holds(operands[0], scope)
    if operator == "Fn::And":
        return all(condition_holds(operand, scope) for operand in operands)
    if operator == "Fn::Or":
        return any(condition_holds(operand, scope) for operand in operands)
    raise TemplateError(f"Template error: {operator} is no condition function")


def resolve(value: Any, scope: Scope) -> Any:
    """Return a value with every intrinsic function and dynamic reference replaced by its result."""
    if isinstance(value, list):
        return [item for item in (resolve(item, scope) for item in value) if item is not NO_VALUE]
    if isinstance(value, str):
        return _DYNAMIC_REFERENCE.sub(lambda match: scope.dynamic(match[1], match[2]), value)
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        ((name, argument),) = value.items()
        if name == "Ref":
            return NO_VALUE if argument == "AWS::NoValue" else scope.ref(argument)
        if name.startswith("Fn::"):
            return _call(name, argument, scope)
    items = ((key, resolve(inner, scope)) for key, inner in value.items())
    return {key: inner for key, inner in items if inner is not NO_VALUE}


def _call(name: str, argument: Any, scope: Scope) -> Any:
    match name:
        case "Fn::GetAtt":
            logical_id, attribute = (
                argument.split(".", 1) if isinstance(argument, str) else (argument[0], ".".join(argument[1:]))
            )
            return scope.attribute(logical_id, resolve(attribute, scope))
        case "Fn::Sub":
            return _substitute(argument, scope)
        case "Fn::If":
            return resolve(argument[1] if scope.condition(argument[0]) else argument[2], scope)
        case "Fn::ImportValue":
            return scope.exported(resolve(argument, scope))
        case "Fn::FindInMap":
            table, first, second, *_ = (resolve(part, scope) for part in argument)
            try:
                return scope.mapping(table)[str(first)][str(second)]
            except KeyError:
                raise TemplateError(
                    f"Template error: Unable to get mapping for {table}::{first}::{second}"
                ) from None
        case "Fn::GetAZs":
            return scope.zones(resolve(argument, scope))
    argument = resolve(argument, scope)
    match name:
        case "Fn::Join":
            return argument[0].join(_text(part) for part in argument[1])
        case "Fn::Split":
            return argument[1].split(argument[0])
        case "Fn::Select":
            try:
                return argument[1][int(argument[0])]
            except IndexError:
                raise TemplateError(
                    f"Template error: Fn::Select cannot select nonexistent value at index {argument[0]}"
                ) from None
        case "Fn::Base64":
            return base64.b64encode(argument.encode()).decode()
        case "Fn::ToJsonString":
            return json.dumps(argument)
        case "Fn::Length":
            return len(argument)
        case "Fn::Cidr":
            block, count, bits = ipaddress.ip_network(argument[0]), int(argument[1]), int(argument[2])
            subnets = block.subnets(new_prefix=block.max_prefixlen - bits)
            return [str(subnet) for _, subnet in zip(range(count), subnets, strict=False)]
    raise TemplateError(f"Template error: the function {name} is not known")


def _substitute(argument: Any, scope: Scope) -> str:
    text, own = (argument, {}) if isinstance(argument, str) else (argument[0], argument[1])

    def value(match: re.Match[str]) -> str:
        literal, name = match[1], match[2].strip()
        if literal:
            return "${" + match[2] + "}"
        if name in own:
            return _text(resolve(own[name], scope))
        if "." in name:
            return _text(scope.attribute(*name.split(".", 1)))
        return _text(scope.ref(name))

    return _DYNAMIC_REFERENCE.sub(lambda m: scope.dynamic(m[1], m[2]), _SUBSTITUTION.sub(value, text))


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
