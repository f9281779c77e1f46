"""Values as CloudFormation's schemas see them: coerced to a schema's types, and found by its paths."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

__all__ = ["coerced", "is_a", "matches", "values_at"]


def coerced(value: Any, schema: Any, root: Mapping[str, Any]) -> Any:
    """The value with its scalars converted to the schema's types.

    CloudFormation accepts "80" for 80 and 80 for "80".
    """
    schema = _resolved(schema, root)
    kinds = schema.get("type", ())
    value = _scalar(value, (kinds,) if isinstance(kinds, str) else tuple(kinds))
    if isinstance(value, dict):
        return {key: coerced(inner, _member(schema, key), root) for key, inner in value.items()}
    if isinstance(value, list):
        return [coerced(item, schema.get("items", {}), root) for item in value]
    return value


def _resolved(schema: Any, root: Mapping[str, Any]) -> Mapping[str, Any]:
    while isinstance(schema, Mapping) and "$ref" in schema:
        target: Any = root
        for part in schema["$ref"].removeprefix("#/").split("/"):
            target = target[part.replace("~1", "/").replace("~0", "~")]
        schema = target
    return schema if isinstance(schema, Mapping) else {}


def _member(schema: Mapping[str, Any], key: str) -> Any:
    if key in schema.get("properties", {}):
        return schema["properties"][key]
    for pattern, inner in schema.get("patternProperties", {}).items():
        if matches(pattern, key):
            return inner
    return schema.get("additionalProperties", {})


def _scalar(value: Any, kinds: tuple[str, ...]) -> Any:
    if not kinds or any(is_a(value, kind) for kind in kinds):
        return value
    for kind in kinds:
        converted = _convert(value, kind)
        if converted is not None:
            return converted
    return value


def is_a(value: Any, kind: str) -> bool:
    if kind in ("integer", "number"):
        allowed: tuple[type, ...] = (int,) if kind == "integer" else (int, float)
        return isinstance(value, allowed) and not isinstance(value, bool)
    types: dict[str, type] = {"string": str, "boolean": bool, "array": list, "object": dict}
    return isinstance(value, types[kind]) if kind in types else value is None


def _convert(value: Any, kind: str) -> Any:
    """The value as `kind`, or None where CloudFormation would not convert it."""
    match kind:
        case "string" if isinstance(value, bool):
            return str(value).lower()
        case "string" if isinstance(value, (int, float)):
            return str(value)
        case "integer" if isinstance(value, float) and value.is_integer():
            return int(value)
        case "integer" if isinstance(value, str) and re.fullmatch(r"[+-]?\d+", value):
            return int(value)
        case "number" if isinstance(value, str):
            return _float(value)
        case "boolean" if isinstance(value, str) and value.lower() in ("true", "false"):
            return value.lower() == "true"
        case "object" if isinstance(value, str):
            return _json_object(value)
    return None


def _float(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _json_object(text: str) -> dict[str, Any] | None:
    try:
        parsed = json.loads(text)
    except ValueError:
        return None
    return parsed if isinstance(parsed, dict) else None


def values_at(value: Any, path: tuple[str, ...]) -> Iterator[Any]:
    """The values at a schema's path; `*` stands for every item."""
    if not path:
        yield value
    elif isinstance(value, list) and path[0] in ("*", "items"):
        for item in value:
            yield from values_at(item, path[1:])
    elif isinstance(value, list):  # some schemas leave the `*` out
        for item in value:
            yield from values_at(item, path)
    elif isinstance(value, dict) and path[0] in value:
        yield from values_at(value[path[0]], path[1:])


@cache
def _compiled(pattern: str) -> Any:
    """A compiled ECMAScript pattern.

    Python's own `re` does not know \\p{L}. A pattern that cannot be compiled matches everything.
    """
    try:
        return re.compile(pattern)
    except re.error:
        import regex  # comes with cfn-lint; few schemas need it

        try:
            return regex.compile(pattern)
        except regex.error:
            return re.compile("")


def matches(pattern: str, text: str) -> bool:
    return _compiled(pattern).search(text) is not None
