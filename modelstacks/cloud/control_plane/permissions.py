"""May a service use a role or a key? What AWS checks when a setting names one."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from modelstacks.cloud.data_plane.hops.policies import (
    Call,
    Decision,
    UnsupportedError,
    evaluate,
    service_principal,
)
from modelstacks.cloud.data_plane.topology import Policy

__all__ = ["denied_to_role", "denied_to_service"]


def denied_to_service(
    document: str | Mapping[str, Any],
    service: str,
    actions: Iterable[str],
    resource: str,
    context: Mapping[str, str],
) -> list[str]:
    """Those of the actions that a resource's policy (a key's, a role's trust) does not allow to a service."""
    policy = Policy("the policy", _parsed(document))
    principal = service_principal(service)
    return [action for action in actions if not _allowed([policy], action, resource, context, principal)]


def denied_to_role(
    documents: Iterable[str | Mapping[str, Any]], actions: Iterable[str], resource: str
) -> list[str]:
    """Those of the actions that a role's own policies do not allow on a resource."""
    policies = [Policy("the role's policies", _parsed(document)) for document in documents]
    return [action for action in actions if not _allowed(policies, action, resource, {}, None)]


def _allowed(
    policies: list[Policy], action: str, resource: str, context: Mapping[str, str], principal: Any
) -> bool:
    try:
        return evaluate(policies, Call(action, resource, context), principal).decision is Decision.ALLOW
    except UnsupportedError:
        return False


def _parsed(document: str | Mapping[str, Any]) -> Mapping[str, Any]:
    parsed: Mapping[str, Any] = json.loads(document) if isinstance(document, str) else document
    return parsed
