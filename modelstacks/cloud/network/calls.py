"""An AWS API call on its way: which action on which resource it is, and whether it may pass.

`describe` reads the call off the HTTP request as the service would; `may_call` walks the way that it has to
go: network isolation, route, security groups, endpoint policy, identity and resource policies. What differs
from service to service is in services/<service>/calls.py, one `ServiceCalls` each; a service without one is
read by its protocol, and its resources are not told apart.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

from modelstacks.cloud.host.wire import Request, Response
from modelstacks.cloud.network import Refused, policies, routes
from modelstacks.cloud.services import service_modules
from modelstacks.cloud.services.ec2.snapshot import Ec2Snapshot, NetworkInterface
from modelstacks.cloud.services.iam.snapshot import IamSnapshot, Policy
from modelstacks.cloud.snapshot import Account

__all__ = ["ApiCall", "Caller", "ServiceCalls", "calls_of", "describe", "may_call"]


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls AWS from inside: where it is plugged in, and the role that it has.

    `network` is None outside a VPC. `isolated` is SageMaker's network isolation: nothing passes.
    """

    what: str  # "service churn"
    role_arn: str
    network: NetworkInterface | None = None
    public_address: bool = False
    isolated: bool = False


@dataclass(frozen=True, slots=True)
class ApiCall:
    """One call. `network_service` is the name in endpoint services, `service` the one in signatures."""

    service: str
    network_service: str
    action: str  # "s3:GetObject"; "" for calls that need no permission
    resource: str
    context: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ServiceCalls:
    """How the calls of one service are read and checked.

    Args:
        service: its name in signatures.
        network: its name in com.amazonaws.REGION.NAME, where that is another one.
        prefix: of its IAM actions, where that is another one.
        unchecked: operations that need no permission.
        account_key: the service's own condition key for the resource's account.
        read: what a REST request asks for; where it gives None, the JSON, query and RPC protocols are tried.
        resource: the ARN of the resource that an operation's input names.
        policy: a resource's own policy.
        on_behalf: what the service asks another one in the caller's name before it hands out an answer.
    """

    service: str
    network: str = ""
    prefix: str = ""
    unchecked: frozenset[str] = frozenset()
    account_key: str = ""
    read: Callable[[Request, Account], ApiCall | None] | None = None
    resource: Callable[[Mapping[str, Any], Account], str] | None = None
    policy: Callable[[Account, str], Policy | None] | None = None
    on_behalf: Callable[[ApiCall, Response, Account], ApiCall | None] | None = None


@functools.cache
def _known() -> Mapping[str, ServiceCalls]:
    found = [module.CALLS for module in service_modules("calls")]
    return {one.service: one for one in found}


def calls_of(service: str) -> ServiceCalls:
    """How the calls of a service are read, by its name in signatures."""
    return _known().get(service) or ServiceCalls(service)


def describe(service: str, request: Request, account: Account) -> ApiCall | None:
    """What a request asks for; None where the embedded cloud cannot tell."""
    calls = calls_of(service)
    if calls.read is not None and (call := calls.read(request, account)) is not None:
        return call
    operation, fields = _operation(request)
    if not operation:
        return None
    action = "" if operation in calls.unchecked else f"{calls.prefix or service}:{operation}"
    resource = calls.resource(fields, account) if calls.resource is not None else "*"
    return ApiCall(service, calls.network or service, action, resource)


def _operation(request: Request) -> tuple[str, Mapping[str, Any]]:
    """The operation's name and its input, in the JSON, query and RPC protocols."""
    if target := request.header("x-amz-target"):
        try:
            fields = json.loads(request.body or b"{}")
        except ValueError:
            fields = {}
        return target.rpartition(".")[2], fields if isinstance(fields, dict) else {}
    if "x-www-form-urlencoded" in (request.header("content-type") or ""):
        form = {key: values[0] for key, values in parse_qs(request.body.decode("utf-8", "replace")).items()}
        return form.get("Action", ""), form
    rpc = re.fullmatch(r"/service/[^/]+/operation/([^/]+)", request.path)
    return (rpc[1], {}) if rpc else ("", {})


def may_call(account: Account, caller: Caller, call: ApiCall) -> Refused | None:
    """Whether a call passes every hop between the caller and the service."""
    hop = f"{caller.what} -> {call.network_service}"
    if caller.isolated:
        why = f"{caller.what} has network isolation enabled, so nothing leaves its container"
        return Refused(hop, why, "network")
    path = routes.reach(account, caller.network, call.network_service, public_address=caller.public_address)
    if isinstance(path, Refused):
        return path
    if not call.action:
        return None
    role = account[IamSnapshot].roles.get(caller.role_arn)
    if role is None:
        return Refused(hop, f"{caller.what} has no role, so it has no credentials for {call.action}")
    context: dict[str, str] = {
        **call.context,
        "aws:SecureTransport": "true",  # what stands here for the service's endpoint is TLS in AWS
        "aws:PrincipalArn": role.arn,
        "aws:PrincipalAccount": account.id,
        "aws:ResourceAccount": account.id,
        "aws:RequestedRegion": account.region,
        "aws:PrincipalType": "AssumedRole",
        "aws:PrincipalIsAWSService": "false",
        "aws:ViaAWSService": "false",
    }
    calls = calls_of(call.service)
    if calls.account_key:
        context[calls.account_key] = account.id
    endpoint: Policy | None = None
    if path.endpoint is not None:
        context |= {"aws:SourceVpce": path.endpoint.id, "aws:SourceVpc": path.endpoint.vpc_id}
        endpoint = path.endpoint.policy
        if caller.network is not None and (addresses := account[Ec2Snapshot].addresses_of(caller.network)):
            context["aws:VpcSourceIp"] = addresses[0]
    refused = policies.authorize(
        role,
        policies.Call(call.action, call.resource, context),
        account=account.id,
        endpoint=endpoint,
        resource=calls.policy(account, call.resource) if calls.policy is not None else None,
    )
    return Refused(hop, refused.reason) if refused else None
