"""May a service use a role or a key? What AWS checks when a setting names one."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

__all__ = ["denied_to_role", "denied_to_service", "mentions"]


def denied_to_service(
    document: str | Mapping[str, Any],
    service: str,
    actions: Iterable[str],
    resource: str,
    context: Mapping[str, str],
) -> list[str]:
    """Those of the actions that a resource's policy (a key's, a role's trust) does not allow to a service."""
    return [action for action in actions if not _allowed([document], action, resource, context, service)]


def denied_to_role(
    documents: Iterable[str | Mapping[str, Any]], actions: Iterable[str], resource: str
) -> list[str]:
    """Those of the actions that a role's own policies do not allow on a resource."""
    given = list(documents)
    return [action for action in actions if not _allowed(given, action, resource, {}, "")]


def mentions(document: str | Mapping[str, Any], action: str) -> bool:
    """Whether a policy allows the action on something, under some condition."""
    return any(
        fnmatchcase(action.lower(), pattern.lower())
        for statement in _listed(_parsed(document)["Statement"])
        if statement["Effect"] == "Allow"
        for pattern in _listed(statement.get("Action", []))
    )


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _allowed(
    documents: Iterable[str | Mapping[str, Any]],
    action: str,
    resource: str,
    context: Mapping[str, str],
    service: str,
) -> bool:
    # Imported here: it takes a tenth of the control plane's start, and most stacks ask late.
    from modelstacks.cloud.network.policies import (
        Call,
        Decision,
        UnsupportedError,
        evaluate,
        service_principal,
    )
    from modelstacks.cloud.services.iam.snapshot import Policy

    policies = [Policy("the policy", _parsed(document)) for document in documents]
    principal = service_principal(service) if service else None
    try:
        return evaluate(policies, Call(action, resource, context), principal).decision is Decision.ALLOW
    except UnsupportedError:
        return False


def _parsed(document: str | Mapping[str, Any]) -> Mapping[str, Any]:
    parsed: Mapping[str, Any] = json.loads(document) if isinstance(document, str) else document
    return parsed
