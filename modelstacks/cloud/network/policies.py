"""IAM: may this principal do this action on this resource?

An explicit deny anywhere wins; then the endpoint's policy and the permissions boundary must allow; then the
role's own policies or the resource's policy must. A condition operator that is not known refuses, saying so.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from functools import lru_cache
from typing import Any

from modelstacks.cloud.network import Refused
from modelstacks.cloud.services.iam.snapshot import Policy, Role

__all__ = ["Call", "Decision", "UnsupportedError", "Verdict", "authorize", "evaluate", "trusts"]


class UnsupportedError(ValueError):
    """A policy uses something that this evaluator does not know."""


@dataclass(frozen=True, slots=True)
class Call:
    """One action on one resource. `context` holds condition keys, written as IAM writes them."""

    action: str  # "s3:GetObject"
    resource: str  # an ARN, or "*" for actions that take none
    context: Mapping[str, str | tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Principal:
    """Who calls: a role (its `account` is "" where naming the account is not to count), or a service."""

    arn: str
    account: str
    service: str = ""


class Decision(Enum):
    ALLOW = "allow"
    DENY = "explicit deny"
    SILENT = "no statement applies"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one set of policies says. `by` names the policy that decided."""

    decision: Decision
    by: str = ""


def role_principal(role: Role, account: str) -> Principal:
    """A role's session, as policies name it."""
    return Principal(arn=role.arn, account=account)


def service_principal(service: str) -> Principal:
    """An AWS service: "apigateway.amazonaws.com"."""
    return Principal(arn="", account="", service=service)


def evaluate(policies: Iterable[Policy], call: Call, principal: Principal | None = None) -> Verdict:
    """The verdict of these policies taken together.

    `principal` is given for resource policies, whose statements name one, and left out for identity policies.
    Raises UnsupportedError for a condition operator that is not known.
    """
    allowed = ""
    for policy in policies:
        for statement in _list(policy.document.get("Statement", [])):
            if not _applies(statement, call, principal):
                continue
            if statement.get("Effect") == "Deny":
                return Verdict(Decision.DENY, policy.name)
            allowed = allowed or policy.name
    return Verdict(Decision.ALLOW, allowed) if allowed else Verdict(Decision.SILENT)


def authorize(
    role: Role,
    call: Call,
    *,
    account: str,
    endpoint: Policy | None = None,
    resource: Policy | None = None,
) -> Refused | None:
    """Whether a role's session may make a call, given the policies of the endpoint and the resource it meets.

    A resource policy that names the whole account leaves the decision to the role's own policies. A KMS key's
    policy must allow in any case. The refusal is worded as AWS words AccessDenied.
    """
    principal = role_principal(role, account)
    hop = f"role {role.name} -> {call.action}"

    def refuse(why: str) -> Refused:
        session = f"arn:aws:sts::{account}:assumed-role/{role.name}/session"
        return Refused(
            hop,
            f"User: {session} is not authorized to perform: {call.action} on resource: {call.resource} {why}",
        )

    try:
        identity = evaluate(role.policies, call)
        at_resource = evaluate([resource] if resource else [], call, principal)
        by_name = evaluate([resource] if resource else [], call, Principal(role.arn, account=""))
        at_endpoint = evaluate([endpoint] if endpoint else [], call, principal)
        boundary = evaluate([role.boundary] if role.boundary else [], call)
    except UnsupportedError as error:
        return refuse(f"because the embedded cloud cannot evaluate {error}")
    for verdict in (identity, at_resource, at_endpoint, boundary):
        if verdict.decision is Decision.DENY:
            return refuse(f"with an explicit deny in {verdict.by}")
    if endpoint is not None and at_endpoint.decision is not Decision.ALLOW:
        return refuse(f"because {endpoint.name} does not allow the {call.action} action")
    if role.boundary is not None and boundary.decision is not Decision.ALLOW:
        return refuse(f"because no permissions boundary allows the {call.action} action")
    if call.action.startswith("kms:") and at_resource.decision is not Decision.ALLOW:
        return refuse(f"because no resource-based policy allows the {call.action} action")
    if identity.decision is Decision.ALLOW or by_name.decision is Decision.ALLOW:
        return None
    return refuse(f"because no identity-based policy allows the {call.action} action")


def trusts(role: Role, service: str, *, source: str) -> Refused | None:
    """Whether a service ("ecs-tasks.amazonaws.com") may assume the role on behalf of resource `source`."""
    context = {
        "aws:SourceArn": source,
        "aws:SourceAccount": source.split(":")[4],
        "aws:SecureTransport": "true",
    }
    call = Call("sts:AssumeRole", role.arn, context)
    hop = f"{service} -> role {role.name}"
    try:
        verdict = evaluate([role.trust], call, service_principal(service))
    except UnsupportedError as error:
        return Refused(hop, f"the embedded cloud cannot evaluate {error}")
    if verdict.decision is Decision.ALLOW:
        return None
    return Refused(hop, f"{role.trust.name} does not let {service} assume it")


def _applies(statement: Mapping[str, Any], call: Call, principal: Principal | None) -> bool:
    return (
        _names_principal(statement, principal)
        and _names_action(statement, call.action)
        and _names_resource(statement, call, optional=principal is not None)
        and _conditions_hold(statement.get("Condition") or {}, call.context)
    )


def _names_action(statement: Mapping[str, Any], action: str) -> bool:
    # A trust policy has no NotAction in practice, but the grammar is one.
    if "NotAction" in statement:
        return not any(_glob(pattern.lower(), action.lower()) for pattern in _list(statement["NotAction"]))
    return any(_glob(pattern.lower(), action.lower()) for pattern in _list(statement.get("Action", [])))


def _names_resource(statement: Mapping[str, Any], call: Call, *, optional: bool) -> bool:
    if "NotResource" in statement:
        patterns = _list(statement["NotResource"])
        return not any(_glob(_filled(one, call.context), call.resource) for one in patterns)
    if "Resource" not in statement:
        return optional  # trust policies name none
    return any(_glob(_filled(one, call.context), call.resource) for one in _list(statement["Resource"]))


def _names_principal(statement: Mapping[str, Any], principal: Principal | None) -> bool:
    if principal is None:
        return True
    if "NotPrincipal" in statement:
        return not _is_named(statement["NotPrincipal"], principal)
    return _is_named(statement.get("Principal", {}), principal)


def _is_named(named: object, principal: Principal) -> bool:
    if named == "*":
        return True
    if not isinstance(named, Mapping):
        return False
    if principal.service:
        return principal.service in _list(named.get("Service", [])) or "*" in _list(named.get("AWS", []))
    names = {"*", principal.arn}
    if principal.account:
        names |= {principal.account, f"arn:aws:iam::{principal.account}:root"}
    return any(name in names for name in _list(named.get("AWS", [])))


def _list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


@lru_cache(maxsize=4096)
def _pattern(pattern: str) -> re.Pattern[str]:
    parts = (".*" if char == "*" else "." if char == "?" else re.escape(char) for char in pattern)
    return re.compile("".join(parts), re.DOTALL)


def _glob(pattern: str, value: str) -> bool:
    return pattern == "*" or _pattern(pattern).fullmatch(value) is not None


def _filled(pattern: str, context: Mapping[str, str | tuple[str, ...]]) -> str:
    """Put policy variables in: ${aws:PrincipalArn}. One without a value matches nothing."""

    def value(match: re.Match[str]) -> str:
        name = match[1]
        if name in ("*", "?", "$"):
            return name
        found = _lookup(context, name)
        return found[0] if found else "\0"

    return re.sub(r"\$\{([^}]+)\}", value, pattern) if "${" in pattern else pattern


# --- conditions -----------------------------------------------------------------------------------


def _number(compare: Callable[[float, float], bool]) -> Callable[[str, str], bool]:
    return lambda got, wanted: compare(float(got), float(wanted))


def _moment(text: str) -> float:
    return float(text) if re.fullmatch(r"\d+(\.\d+)?", text) else datetime.fromisoformat(text).timestamp()


def _date(compare: Callable[[float, float], bool]) -> Callable[[str, str], bool]:
    return lambda got, wanted: compare(_moment(got), _moment(wanted))


def _arn(got: str, wanted: str) -> bool:
    """ARN patterns match part by part, so that a `*` does not cross a colon, except in the last part."""
    mine, theirs = got.split(":", 5), wanted.split(":", 5)
    return len(mine) == len(theirs) and all(_glob(w, g) for g, w in zip(mine, theirs, strict=True))


def _address(got: str, wanted: str) -> bool:
    return ipaddress.ip_address(got) in ipaddress.ip_network(wanted, strict=False)


POSITIVE: Mapping[str, Callable[[str, str], bool]] = {
    "StringEquals": lambda got, wanted: got == wanted,
    "StringEqualsIgnoreCase": lambda got, wanted: got.lower() == wanted.lower(),
    "StringLike": lambda got, wanted: _glob(wanted, got),
    "ArnEquals": _arn,
    "ArnLike": _arn,
    "Bool": lambda got, wanted: got.lower() == wanted.lower(),
    "BinaryEquals": lambda got, wanted: got == wanted,
    "IpAddress": _address,
    "NumericEquals": _number(lambda got, wanted: got == wanted),
    "NumericLessThan": _number(lambda got, wanted: got < wanted),
    "NumericLessThanEquals": _number(lambda got, wanted: got <= wanted),
    "NumericGreaterThan": _number(lambda got, wanted: got > wanted),
    "NumericGreaterThanEquals": _number(lambda got, wanted: got >= wanted),
    "DateEquals": _date(lambda got, wanted: got == wanted),
    "DateLessThan": _date(lambda got, wanted: got < wanted),
    "DateLessThanEquals": _date(lambda got, wanted: got <= wanted),
    "DateGreaterThan": _date(lambda got, wanted: got > wanted),
    "DateGreaterThanEquals": _date(lambda got, wanted: got >= wanted),
}
NEGATIVE: Mapping[str, str] = {
    "StringNotEquals": "StringEquals",
    "StringNotEqualsIgnoreCase": "StringEqualsIgnoreCase",
    "StringNotLike": "StringLike",
    "ArnNotEquals": "ArnEquals",
    "ArnNotLike": "ArnLike",
    "NotIpAddress": "IpAddress",
    "NumericNotEquals": "NumericEquals",
    "DateNotEquals": "DateEquals",
}


def _conditions_hold(
    conditions: Mapping[str, Mapping[str, Any]], context: Mapping[str, str | tuple[str, ...]]
) -> bool:
    return all(
        _condition(operator, _lookup(context, key), [_text(value) for value in _list(wanted)], context)
        for operator, keys in conditions.items()
        for key, wanted in keys.items()
    )


def _condition(
    operator: str,
    got: Sequence[str] | None,
    wanted: Sequence[str],
    context: Mapping[str, str | tuple[str, ...]],
) -> bool:
    quantifier, _, name = operator.rpartition(":")
    if quantifier not in ("", "ForAllValues", "ForAnyValue"):
        raise UnsupportedError(f'the condition operator "{operator}"')
    if name == "Null":
        return (got is None) == (wanted == ["true"])
    lenient = name.endswith("IfExists")
    name = name.removesuffix("IfExists")
    negative = name in NEGATIVE
    compare = POSITIVE.get(NEGATIVE.get(name, name))
    if compare is None:
        raise UnsupportedError(f'the condition operator "{operator}"')
    if got is None:
        return lenient or negative or quantifier == "ForAllValues"

    def holds(value: str) -> bool:
        try:
            matched = any(compare(value, _filled(one, context)) for one in wanted)
        except ValueError as error:  # a number, date or address that is none
            raise UnsupportedError(f'the value of the condition operator "{operator}" ({error})') from error
        return matched != negative

    return any(map(holds, got)) if quantifier == "ForAnyValue" else all(map(holds, got))


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _lookup(context: Mapping[str, str | tuple[str, ...]], key: str) -> Sequence[str] | None:
    """Condition keys are case-insensitive."""
    for name, value in context.items():
        if name.lower() == key.lower():
            return (value,) if isinstance(value, str) else value
    return None
