"""Calls the APIs of the embedded cloud, with the API key or the signature that each requires."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from modelstacks.adapters.deployed_api import Answer, DeployedApi, Signer

if TYPE_CHECKING:
    from modelstacks.cloud.api import Api, Status

__all__ = ["callable_api", "explanation"]


def callable_api(api: Api, status: Status) -> DeployedApi:
    """Return an API with what a caller of this account sends along: its key, or a SigV4 signature."""
    signed = any(route.authorization == "AWS_IAM" for route in api.routes)
    keys = status.credentials
    return DeployedApi(
        url=api.url,
        api_key=api.api_keys[0].value if api.api_keys else None,
        signer=Signer(keys.access_key_id, keys.secret_access_key, status.region) if signed else None,
    )


def explanation(answer: Answer) -> str:
    """Return why the API refused: the detail of a problem document, or API Gateway's message."""
    try:
        problem = json.loads(answer.body)
    except ValueError:
        return answer.text.strip()[:500] or "an empty body"
    if not isinstance(problem, dict):
        return answer.text[:500]
    text = str(problem.get("detail") or problem.get("message") or problem.get("Message") or answer.text[:500])
    errors = problem.get("errors")
    for error in errors[:5] if isinstance(errors, list) else []:
        text += "; " + ", ".join(f"{key} {value}" for key, value in error.items() if value is not None)
    return text
