"""Ready-to-paste requests: what a caller of a deployed API would type, with a body that its model accepts."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modelstacks.cloud.api import Api, Credentials
    from modelstacks.core.plan import Plan
    from modelstacks.core.signature import Signature, Tensor

__all__ = ["curl_lines", "example_body"]

EXAMPLE_TEXT = "It was a pleasure."


def example_body(signature: Signature) -> dict[str, Any]:
    """The smallest JSON body that POST /invocations accepts: one row of zeros, or one text."""
    first = signature.inputs[0]
    if first.datatype == "BYTES":
        return {"inputs": [EXAMPLE_TEXT]}
    return {"instances": [_zeros(first, first.shape[1:])]}


def _zeros(tensor: Tensor, shape: tuple[int, ...]) -> Any:
    if not shape:
        return False if tensor.datatype == "BOOL" else 0.0 if tensor.datatype.startswith("FP") else 0
    return [_zeros(tensor, shape[1:]) for _ in range(max(shape[0], 1))]


def curl_lines(
    api: Api, plan: Plan, credentials: Credentials, region: str, body: dict[str, Any] | None = None
) -> list[str]:
    """A prediction, the model's metadata, and its readiness, each as one shell line."""
    auth: tuple[str, ...] = ()
    if plan.api.auth == "iam":
        auth = (
            "--aws-sigv4",
            f"aws:amz:{region}:execute-api",
            "--user",
            f"{credentials.access_key_id}:{credentials.secret_access_key}",
        )
    elif api.api_keys:
        auth = ("-H", f"x-api-key: {api.api_keys[0].value}")
    payload = json.dumps(body or example_body(plan.model.signature), separators=(",", ":"))
    json_type = ("-H", "content-type: application/json")
    return [
        shlex.join(["curl", *auth, *json_type, "-d", payload, f"{api.url}/invocations"]),
        shlex.join(["curl", *auth, f"{api.url}/v2/models/{plan.name}"]),
        shlex.join(["curl", *auth, f"{api.url}/ping"]),
    ]
