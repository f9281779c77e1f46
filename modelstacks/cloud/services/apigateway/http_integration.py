"""HTTP integrations: over a VPC link, or the internet, to the listener of a load balancer."""

from __future__ import annotations

from urllib.parse import quote, urlsplit

from modelstacks.cloud import api
from modelstacks.cloud.context import Context
from modelstacks.cloud.host.wire import ConnectionLost, Headers, Request, Response, without
from modelstacks.cloud.network import security_groups
from modelstacks.cloud.services.apigateway.call import BODY_LIMIT, Call, payload
from modelstacks.cloud.services.apigateway.gateway_responses import broken, timed_out
from modelstacks.cloud.services.apigateway.snapshot import Integration
from modelstacks.cloud.services.apigatewayv2.snapshot import ApiGatewayV2Snapshot
from modelstacks.cloud.services.ec2.snapshot import NetworkInterface
from modelstacks.cloud.services.elbv2.runtime import LoadBalancers
from modelstacks.cloud.services.elbv2.snapshot import ElbSnapshot, Listener
from modelstacks.cloud.snapshot import Account

__all__ = ["REMAPPED", "listener_of", "through_load_balancer", "whole"]

# Of a backend's answer; they belong to API Gateway's own connection with its caller.
REMAPPED = frozenset(
    {
        "authorization",
        "connection",
        "content-length",
        "content-md5",
        "date",
        "expect",
        "host",
        "max-forwards",
        "server",
        "user-agent",
        "www-authenticate",
    }
)


async def through_load_balancer(
    context: Context, balancers: LoadBalancers, call: Call, integration: Integration
) -> Response:
    """Send a request to the load balancer that the integration names. Raises GatewayError."""
    listener = listener_of(context.account, integration)
    if listener is None:
        raise broken(
            f"no load balancer {integration.target or integration.uri} with a listener on the port of "
            f"{integration.uri}"
        )
    _reach(context, integration, listener)
    response = await balancers.serve(listener, _outgoing(call, integration, context.settings))
    headers: Headers = [
        (f"x-amzn-Remapped-{key}" if key.lower() in REMAPPED else key, value)
        for key, value in without(response.headers)
    ]
    if integration.streams:
        return Response(response.status, headers, response.body)
    return Response(response.status, headers, await whole(response))


async def whole(response: Response) -> bytes:
    """The complete body of an answer. Raises GatewayError where it breaks off or is too large."""
    try:
        body = await response.read()
    except ConnectionLost as error:
        raise broken(f"the answer broke off: {error}") from error
    if len(body) > BODY_LIMIT:
        raise broken(f"the answer has {len(body)} bytes, API Gateway passes on {BODY_LIMIT}")
    return body


def _reach(context: Context, integration: Integration, listener: Listener) -> None:
    """Whether API Gateway gets to the load balancer: over the VPC link, or over the internet."""
    account = context.account
    balancer = account[ElbSnapshot].load_balancers[listener.load_balancer_arn]
    scheme = urlsplit(integration.uri).scheme
    if (scheme == "https") != (listener.protocol == "HTTPS"):
        raise broken(
            f"the URI says {scheme}, the listener on port {listener.port} speaks {listener.protocol}", 502
        )
    if integration.connection_type != "VPC_LINK":
        if balancer.scheme == "internet-facing":
            return
        raise timed_out(f"load balancer {balancer.name} is internal, and the integration has no VPC link")
    link = account[ApiGatewayV2Snapshot].vpc_links.get(integration.connection_id)
    if link is None:
        raise broken(f"VPC link {integration.connection_id} does not exist")
    source = NetworkInterface(f"vpc link {link.name}", link.subnet_ids, link.security_group_ids, index=2)
    target = NetworkInterface(
        f"load balancer {balancer.name}", balancer.subnet_ids, balancer.security_group_ids, index=1
    )
    if refused := security_groups.connect(account, source, target, listener.port):
        context.refuse(refused)
        raise timed_out(str(refused))


def listener_of(account: Account, integration: Integration) -> Listener | None:
    """The listener on the port of the integration's URI.

    The load balancer is the one that `integrationTarget` names by its ARN, or the URI's host without it.
    """
    parts = urlsplit(integration.uri)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    for listener in account[ElbSnapshot].listeners.values():
        balancer = account[ElbSnapshot].load_balancers[listener.load_balancer_arn]
        named = balancer.arn == integration.target or (
            not integration.target and balancer.dns_name.lower() == (parts.hostname or "").lower()
        )
        if named and listener.port == port:
            return listener
    return None


def _outgoing(call: Call, integration: Integration, settings: api.Settings) -> Request:
    """What API Gateway sends to an HTTP integration."""
    parts = urlsplit(integration.uri)
    path = parts.path or "/"
    body, _ = payload(call, integration)
    extra: Headers = []
    query = [call.request.query] if call.request.query else []
    for name, source in integration.parameters.items():
        value = call.value(source)
        where, _, key = name.removeprefix("integration.request.").partition(".")
        if value is None:
            continue
        if where == "path":
            path = path.replace(f"{{{key}}}", quote(value, safe="")).replace(f"{{{key}+}}", quote(value))
        elif where == "header":
            extra.append((key, value))
        elif where == "querystring":
            query.append(f"{quote(key)}={quote(value)}")
    if integration.connection_type == "VPC_LINK" and settings.stage_in_path:
        path = f"/{call.stage.name}{path}"
    dropped = ["host", "x-amzn-trace-id", "expect", "content-length", *(key.lower() for key, _ in extra)]
    if call.method.authorization == "AWS_IAM":
        dropped.append("authorization")
    forwarded_for = ", ".join(filter(None, (call.request.header("x-forwarded-for"), call.request.client)))
    headers = [
        ("Host", parts.netloc),
        *without(call.request.headers, "x-forwarded-for", "x-forwarded-proto", "x-forwarded-port", *dropped),
        *extra,
        ("X-Forwarded-For", forwarded_for),
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Port", "443"),
        ("X-Amzn-Trace-Id", call.trace),
        ("x-amzn-apigateway-api-id", call.api.id),
        ("Content-Length", str(len(body))),  # API Gateway sends one with a GET too
    ]
    method = call.request.method if integration.http_method == "ANY" else integration.http_method
    return Request(method, path, "&".join(query), headers, body, call.request.client)
