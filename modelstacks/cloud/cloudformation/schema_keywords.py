"""The validator for CloudFormation's resource schemas: JSON Schema draft 7 and what cfn-lint adds to it.

The wording is that of the Java library everit, with which CloudFormation validates. Where everit would
repeat a value, cloudformation-resource-schema says "failed validation constraint for keyword [enum]" instead;
what is allowed is added in brackets.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache, partial
from typing import Any

from modelstacks.cloud.cloudformation.schema_values import is_a, matches

__all__ = ["describe", "validator_class"]

# Each keyword yields what is wrong, in words. All but `pattern` are cfn-lint's: they state what the services
# refuse and JSON Schema cannot say, or says at length.

_Faults = Iterator[str]


def _made_up(value: str) -> bool:
    """Whether the value is an attribute of a resource that nothing emulates."""
    return value.startswith("arn:aws:not-emulated:")


def _pattern(pattern: str, value: Any) -> _Faults:
    if isinstance(value, str) and not _made_up(value) and not matches(pattern, value):
        yield f"failed validation constraint for keyword [pattern] (allowed: {pattern})"


def _required_one(names: list[str], value: Any) -> _Faults:
    given = [name for name in names if name in value] if isinstance(value, dict) else names[:1]
    if len(given) != 1:
        yield f"exactly one of the keys [{', '.join(names)}] is required, found: {len(given)}"


def _required_any(names: list[str], value: Any) -> _Faults:
    if isinstance(value, dict) and not any(name in value for name in names):
        yield f"at least one of the keys [{', '.join(names)}] is required"


def _dependent_required(needs: Mapping[str, list[str]], value: Any) -> _Faults:
    for name, others in needs.items() if isinstance(value, dict) else ():
        if name in value:
            yield from (
                f"required key [{one}] not found (with [{name}])" for one in others if one not in value
            )


def _dependent_excluded(bars: Mapping[str, list[str]], value: Any) -> _Faults:
    for name, others in bars.items() if isinstance(value, dict) else ():
        if name in value:
            yield from (f"key [{one}] is not permitted with [{name}]" for one in others if one in value)


def _enum_in_any_case(allowed: list[str], value: Any) -> _Faults:
    if isinstance(value, str) and value.lower() not in (one.lower() for one in allowed):
        yield f"failed validation constraint for keyword [enum] (allowed: {', '.join(allowed)})"


def _unique_keys(keys: list[str], value: Any) -> _Faults:
    if isinstance(value, list):
        found = [json.dumps([item.get(key) for key in keys]) for item in value if isinstance(item, dict)]
        if len(set(found)) != len(found):
            yield f"array items are not unique in [{', '.join(keys)}]"


_KEYWORDS: Mapping[str, Callable[[Any, Any], _Faults]] = {
    "pattern": _pattern,
    "dependentExcluded": _dependent_excluded,
    "dependentRequired": _dependent_required,
    "enumCaseInsensitive": _enum_in_any_case,
    "requiredOr": _required_any,
    "requiredXor": _required_one,
    "uniqueKeys": _unique_keys,
}


@cache
def validator_class() -> Any:
    """jsonschema's validator for draft 7, in which CloudFormation's schemas are written, and our keywords."""
    # Imported here: a control plane that deploys nothing does not need it.
    from jsonschema import Draft7Validator, ValidationError
    from jsonschema.validators import extend

    def keyword(check: Callable[[Any, Any], _Faults]) -> Any:
        def validate(_validator: Any, stated: Any, value: Any, _schema: Any) -> Iterator[Any]:
            return (ValidationError(fault) for fault in check(stated, value))

        return validate

    def pattern_properties(
        validator: Any, patterns: Mapping[str, Any], value: Any, _schema: Any
    ) -> Iterator[Any]:
        for pattern, inner in patterns.items() if isinstance(value, dict) else ():
            for key in filter(partial(matches, pattern), value):
                yield from validator.descend(value[key], inner, path=key, schema_path=pattern)

    def additional(_validator: Any, allowed: Any, value: Any, schema: Any) -> Iterator[Any]:
        if allowed is False and isinstance(value, dict):
            yield from (ValidationError(fault) for fault in _extraneous(schema, value))

    return extend(  # type: ignore[no-untyped-call]
        Draft7Validator,
        {name: keyword(check) for name, check in _KEYWORDS.items()}
        | {"patternProperties": pattern_properties, "additionalProperties": additional},
    )


def _extraneous(schema: Mapping[str, Any], value: Mapping[str, Any]) -> _Faults:
    known, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
    for key in value:
        if key not in known and not any(matches(pattern, key) for pattern in patterns):
            yield f"extraneous key [{key}] is not permitted"


# --- wording --------------------------------------------------------------------------------------

_TYPE_NAMES = {
    "string": "String",
    "integer": "Integer",
    "number": "Number",
    "boolean": "Boolean",
    "array": "JSONArray",
    "object": "JSONObject",
    "null": "Null",
}


def describe(error: Any) -> Iterator[str]:
    place = "/".join(("#", *(str(part) for part in error.absolute_path)))
    for text in _WORDING.get(error.validator, _as_said)(error):
        yield f"{place}: {text}"
    for cause in error.context or ():
        yield from describe(cause)


def _as_said(error: Any) -> Iterable[str]:
    yield error.message


def _type_name(value: Any) -> str:
    return next((name for kind, name in _TYPE_NAMES.items() if is_a(value, kind)), type(value).__name__)


def _missing(error: Any) -> Iterable[str]:
    return (
        f"required key [{name}] not found" for name in error.validator_value if name not in error.instance
    )


def _wrong_type(error: Any) -> Iterable[str]:
    kinds = error.validator_value
    wanted = [_TYPE_NAMES.get(kind, kind) for kind in ([kinds] if isinstance(kinds, str) else kinds)]
    yield f"expected type: {' or '.join(wanted)}, found: {_type_name(error.instance)}"


def _constraint(error: Any) -> Iterable[str]:
    allowed = error.validator_value
    stated = ", ".join(map(str, allowed)) if isinstance(allowed, list) else allowed
    yield f"failed validation constraint for keyword [{error.validator}] (allowed: {stated})"


def _one_of(error: Any) -> Iterable[str]:
    yield f"{0 if error.context else 'more than one'} subschemas matched instead of one"


def _any_of(error: Any) -> Iterable[str]:
    yield f"no subschema matched out of the total {len(error.validator_value)} subschemas"


def _size(text: str) -> Callable[[Any], Iterable[str]]:
    def describe(error: Any) -> Iterable[str]:
        yield text.format(error.validator_value, len(error.instance))

    return describe


_WORDING: Mapping[str, Callable[[Any], Iterable[str]]] = {
    "required": _missing,
    "type": _wrong_type,
    "enum": _constraint,
    "const": _constraint,
    "minimum": _constraint,
    "maximum": _constraint,
    "exclusiveMinimum": _constraint,
    "exclusiveMaximum": _constraint,
    "multipleOf": _constraint,
    "minLength": _size("expected minLength: {}, actual: {}"),
    "maxLength": _size("expected maxLength: {}, actual: {}"),
    "minItems": _size("expected minimum item count: {}, found: {}"),
    "maxItems": _size("expected maximum item count: {}, found: {}"),
    "minProperties": _size("minimum size: [{}], found: [{}]"),
    "maxProperties": _size("maximum size: [{}], found: [{}]"),
    "uniqueItems": lambda _error: ("array items are not unique",),
    "oneOf": _one_of,
    "anyOf": _any_of,
}
