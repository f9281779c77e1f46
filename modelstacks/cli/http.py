"""The APIs of the embedded cloud, ready to be called: with the key or the signature that each asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from modelstacks.adapters.deployed_api import DeployedApi, Signer

if TYPE_CHECKING:
    from modelstacks.cloud.api import Api, Status

__all__ = ["callable_api"]


def callable_api(api: Api, status: Status) -> DeployedApi:
    """An API as a caller with the account's own credentials reaches it."""
    signed = any(route.authorization == "AWS_IAM" for route in api.routes)
    keys = status.credentials
    return DeployedApi(
        url=api.url,
        api_key=api.api_keys[0].value if api.api_keys else None,
        signer=Signer(keys.access_key_id, keys.secret_access_key, status.region) if signed else None,
    )
