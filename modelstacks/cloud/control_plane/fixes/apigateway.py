"""API Gateway: APIs that remember their binary media types, integrations their connection and limits."""

from __future__ import annotations

import json
from typing import Any

from moto.apigateway.models import Integration, UsagePlan
from moto.apigateway.responses import APIGatewayResponse

from modelstacks.cloud.control_plane.fixes import afterwards

#: PutIntegration's members that moto drops.
_KEPT = ("connectionId", "integrationTarget", "responseTransferMode")


def install() -> None:
    """Change moto's API Gateway."""
    to_json = Integration.to_json

    def complete(self: Integration) -> dict[str, Any]:
        # An integration that is not told otherwise is given 29 s and a namespace of its own, as AWS does.
        return {"timeoutInMillis": 29_000} | {
            k: v for k, v in {**to_json(self), **getattr(self, "kept", {})}.items() if v is not None
        }

    Integration.to_json = complete

    @afterwards(APIGatewayResponse, "put_integration")
    def keep_connection(self: Any, _answer: Any) -> Any:
        _, _, api, _, resource, _, method, *_ = self.path.split("/")
        integration = self.backend.get_integration(api, resource, method)
        integration.kept = {
            name: self._get_param(name) for name in _KEPT if self._get_param(name) is not None
        }
        integration.cache_key_parameters = self._get_param("cacheKeyParameters") or []
        return 201, {"status": 201}, json.dumps(integration.to_json())

    @afterwards(APIGatewayResponse, "create_rest_api")
    def keep_media_types(self: Any, answer: Any) -> Any:
        if answer[0] == 200 and (types := self._get_param("binaryMediaTypes")):
            api = self.backend.get_rest_api(json.loads(answer[2])["id"])
            api.binaryMediaTypes = types
            return *answer[:2], json.dumps(api.to_dict())
        return answer

    UsagePlan.apply_patch_operations = _patch_usage_plan


def _patch_usage_plan(self: UsagePlan, operations: list[dict[str, Any]]) -> None:
    """UpdateUsagePlan. moto finds a stage only where it has no throttle of its own, and rounds rates."""
    for operation in operations:
        _, part, *member = operation["path"].split("/")
        value = operation.get("value", "")
        if part == "apiStages":
            api, _, stage = value.partition(":")
            kept = [one for one in self.api_stages if (one["apiId"], one["stage"]) != (api, stage)]
            self.api_stages = [*kept, {"apiId": api, "stage": stage}] if operation["op"] == "add" else kept
        elif part in ("throttle", "quota"):
            limits = getattr(self, part)
            if operation["op"] == "remove":
                limits.clear()
            else:
                kinds: dict[str, Any] = {"rateLimit": float, "burstLimit": int, "limit": int, "offset": int}
                limits[member[0]] = kinds.get(member[0], str)(value)
        elif part in ("name", "description", "productCode"):
            setattr(self, "product_code" if part == "productCode" else part, value or None)
