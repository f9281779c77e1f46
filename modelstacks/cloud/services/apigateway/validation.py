"""What a method's request validator checks: required parameters, the body against its model."""

from __future__ import annotations

import json

from modelstacks.cloud.services.apigateway.call import JSON, Call
from modelstacks.cloud.services.apigateway.gateway_responses import GatewayError

__all__ = ["validate"]


def validate(call: Call) -> None:
    """Check a request. Raises GatewayError."""
    validator = call.method.validator
    if validator is None:
        return
    if validator.parameters:
        missing = [name for name in call.method.required_parameters if not call.value(name)]
        if missing:
            names = ", ".join(name.split(".", 3)[-1] for name in missing)
            raise GatewayError(400, "BadRequestException", f"Missing required request parameters: [{names}]")
    if validator.body and call.method.models:
        _validate_body(call)


def _validate_body(call: Call) -> None:
    import jsonschema  # most APIs have no body models

    kind = (call.request.header("content-type") or JSON).partition(";")[0].strip().lower()
    schema = call.method.models.get(kind) or call.method.models.get("$default")
    if schema is None:
        return
    try:
        jsonschema.validate(json.loads(call.request.body or b"null"), schema)
    except (ValueError, jsonschema.ValidationError) as error:
        raise GatewayError(400, "BadRequestException", "Invalid request body") from error
