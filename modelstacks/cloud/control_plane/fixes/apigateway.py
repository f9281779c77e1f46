"""API Gateway: integrations that remember their connection and their limits."""

from __future__ import annotations

import json
from typing import Any

from moto.apigateway.models import Integration
from moto.apigateway.responses import APIGatewayResponse

from modelstacks.cloud.control_plane.fixes import afterwards

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
    def keep_connection(self: Any, answer: Any) -> Any:
        _, _, api, _, resource, _, method, *_ = self.path.split("/")
        integration = self.backend.get_integration(api, resource, method)
        integration.kept = {
            name: self._get_param(name) for name in _KEPT if self._get_param(name) is not None
        }
        integration.cache_key_parameters = self._get_param("cacheKeyParameters") or []
        return 201, {"status": 201}, json.dumps(integration.to_json())
