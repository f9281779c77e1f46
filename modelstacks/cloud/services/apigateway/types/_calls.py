"""What the types of API Gateway share: tags and patch operations."""

from __future__ import annotations

from typing import Any

from modelstacks.cloud.cloudformation.resource import (
    Properties,
)

SERVICE = "apigateway"


GONE = ("NotFoundException",)


def tags_of(properties: Properties) -> dict[str, Any]:
    tags = {str(tag["Key"]): str(tag["Value"]) for tag in properties.get("Tags", [])}
    return {"tags": tags} if tags else {}


def replaced(path: str, value: Any) -> dict[str, str]:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return {"op": "replace", "path": path, "value": text}
