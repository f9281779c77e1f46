"""Makes curl lines for a deployed API, with a body that its model accepts.

A body that is too long for a terminal is written to a file, which curl reads.
"""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelstacks.core.errors import EnvironmentFault, relative

if TYPE_CHECKING:
    from modelstacks.cloud.api import Api, Credentials
    from modelstacks.core.plan import Plan
    from modelstacks.core.signature import Signature, Tensor

__all__ = ["curl_lines", "example_body"]

EXAMPLE_TEXT = "It was a pleasure."
#: Characters of a body on a command line.
LONGEST_BODY = 1000


def example_body(signature: Signature) -> dict[str, Any]:
    """Return the smallest JSON body that POST /invocations accepts: one row of known values."""
    values = {tensor.name: _example(tensor, tensor.shape[1:]) for tensor in signature.inputs}
    if len(values) > 1:
        return {"inputs": {name: [value] for name, value in values.items()}}
    (only,) = signature.inputs
    return {"inputs" if only.datatype == "BYTES" else "instances": list(values.values())}


def _example(tensor: Tensor, shape: tuple[int, ...]) -> Any:
    if shape:
        return [_example(tensor, shape[1:]) for _ in range(max(shape[0], 1))]
    if tensor.datatype == "BYTES":
        return tensor.examples[0] if tensor.examples else EXAMPLE_TEXT
    if tensor.datatype == "BOOL":
        return False
    number = float(tensor.examples[0]) if tensor.examples else 0.0
    return number if tensor.datatype.startswith("FP") else int(number)


def curl_lines(
    api: Api,
    plan: Plan,
    credentials: Credentials,
    region: str,
    *,
    folder: Path,
    body: dict[str, Any] | None = None,
) -> list[str]:
    """Return a prediction, the model's metadata and its readiness, each as one shell line.

    Args:
        folder: where a body of more than LONGEST_BODY characters is written, as NAME.json.
        body: what to send; by default an example made from the signature.
    """
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
    ping = shlex.join(["curl", *auth, f"{api.url}/ping"])
    if body is None and plan.signature is not None:
        body = example_body(plan.signature)
    if body is None:
        return [ping]
    payload = json.dumps(body, separators=(",", ":"))
    if len(payload) > LONGEST_BODY:
        payload = f"@{_written(folder, plan.name, payload)}"
    json_type = ("-H", "content-type: application/json")
    return [
        shlex.join(["curl", *auth, *json_type, "--data-binary", payload, f"{api.url}/invocations"]),
        shlex.join(["curl", *auth, f"{api.url}/v2/models/{plan.name}"]),
        ping,
    ]


def _written(folder: Path, name: str, payload: str) -> str:
    """Write the body to a file and return its path, relative to the working directory if it is inside."""
    path = folder / f"{name}.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(payload, encoding="utf-8")
    except OSError as error:
        raise EnvironmentFault(f"{relative(path)} cannot be written: {error.strerror}") from None
    return relative(path)
