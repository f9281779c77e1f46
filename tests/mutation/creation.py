"""What CloudFormation itself refuses: a resource's properties against its type's schema."""

from __future__ import annotations

from typing import Any

from modelstacks.cloud.cloudformation.schemas import schema_of

REGION = "us-east-1"


def violations(template: dict[str, Any]) -> set[str]:
    """One line for each property that CloudFormation would refuse."""
    return {
        f"{name}: {line}"
        for name, resource in template["Resources"].items()
        if (schema := schema_of(resource["Type"], REGION)) is not None
        for line in schema.violations(_resolved(resource.get("Properties", {})))
    }


def _resolved(value: Any) -> Any:
    """Properties with a text in place of each function: what only a deployment knows."""
    if isinstance(value, list):
        return [_resolved(item) for item in value]
    if isinstance(value, dict):
        if any(key == "Ref" or key.startswith("Fn::") for key in value):
            return "resolved"
        return {key: _resolved(item) for key, item in value.items()}
    return value
