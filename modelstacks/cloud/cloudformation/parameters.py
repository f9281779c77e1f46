"""A template and the values of its parameters, checked before an operation begins."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from moto.cloudformation.exceptions import MissingParameterError, ValidationError

from modelstacks.cloud.cloudformation.environment import unrecognized
from modelstacks.cloud.cloudformation.resource import dynamic_reference
from modelstacks.cloud.cloudformation.template import TemplateError, creation_order, parse

__all__ = ["prepared"]


def prepared(template: str, given: Mapping[str, str], region: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The parsed template and its parameters' values. Raises ValidationError."""
    try:
        parsed = parse(template)
        creation_order(parsed["Resources"])  # a circle is the template's fault, before anything is made
    except TemplateError as error:
        raise ValidationError(message=str(error)) from None
    if parsed.get("Transform"):
        raise ValidationError(
            message=f"transforms are not emulated: {parsed['Transform']}; "
            "give the template that the transform makes"
        )
    if unknown := unrecognized(parsed, region):
        raise ValidationError(
            message=f"Template format error: Unrecognized resource types: [{', '.join(unknown)}]"
        )
    declared = parsed.get("Parameters", {})
    if extra := sorted(set(given) - set(declared)):
        raise ValidationError(message=f"Parameters: [{', '.join(extra)}] do not exist in the template")
    return parsed, {
        name: _parameter(name, declaration, given.get(name), region) for name, declaration in declared.items()
    }


def _parameter(name: str, declaration: Mapping[str, Any], given: str | None, region: str) -> Any:
    value = declaration.get("Default") if given is None else given
    if value is None:
        raise MissingParameterError(name)
    if "AllowedValues" in declaration and str(value) not in map(str, declaration["AllowedValues"]):
        raise ValidationError(message=f"Parameter '{name}' must be one of AllowedValues")
    kind = declaration["Type"]
    if kind.startswith("AWS::SSM::Parameter::Value"):
        try:
            value = dynamic_reference("ssm", str(value), region)
        except TemplateError as error:
            raise ValidationError(message=str(error)) from None
    if kind == "CommaDelimitedList" or "List<" in kind:
        return [item.strip() for item in str(value).split(",")]
    return value
