"""Application Load Balancers: listeners, rules, health checks, targets.

An internal load balancer has no port on this machine: what reaches it comes through a VPC link, in this
process. Health checks run as the target group says, but SPEEDUP times as often. As in AWS, a target needs
one good check to start with, a target group without any healthy target fails open, and one without targets
answers 503.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import re
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from modelstacks.cloud.account.channel import Report
from modelstacks.cloud.clock import SPEEDUP
from modelstacks.cloud.context import Context
from modelstacks.cloud.host.replicas import Replica
from modelstacks.cloud.host.wire import ConnectionLost, Request, Response, without
from modelstacks.cloud.network import Refused, security_groups
from modelstacks.cloud.runtime import Runtime, Runtimes
from modelstacks.cloud.services.ec2.snapshot import Ec2Snapshot, NetworkInterface
from modelstacks.cloud.services.elbv2 import desync
from modelstacks.cloud.services.elbv2.answers import forwarded_headers, matches, page
from modelstacks.cloud.services.elbv2.kinds import out_of_zone, unemulated, unemulated_targets, unusable
from modelstacks.cloud.services.elbv2.rules import applies, forwarded_to, redirect, transformed
from modelstacks.cloud.services.elbv2.snapshot import (
    ElbSnapshot,
    Listener,
    ListenerRule,
    LoadBalancer,
    TargetGroup,
)

__all__ = ["LoadBalancers", "Target"]

CONNECT_SECONDS = 10.0
SHORTEST_INTERVAL = 0.1  # seconds, after the speed-up


@dataclass(eq=False)
class Target:
    """A replica in a target group, at the port that the template names."""

    replica: Replica
    workload: str
    interface: NetworkInterface
    port: int
    latency: Callable[[], float]
    grace: float = 0.0  # seconds that the service gives a task to come up, as deployed
    since: float = field(default_factory=time.monotonic)
    state: Literal["initial", "healthy", "unhealthy", "draining"] = "initial"
    why: str = "no health check was answered yet"
    lasting: bool = False  # it failed its last health check for a reason that waiting does not change
    in_flight: int = 0
    good: int = 0
    bad: int = 0
    refused: Refused | None = None  # what stops the load balancer from reaching it
    checker: asyncio.Task[None] | None = field(default=None, repr=False)


class _UnhealthyError(Exception):
    """A health check failed. `lasting`: for a reason that time does not mend."""

    def __init__(self, why: str, *, lasting: bool = False) -> None:
        super().__init__(why)
        self.lasting = lasting


class LoadBalancers(Runtime):
    """Every load balancer of the account, and who stands behind it."""

    def __init__(self, context: Context, runtimes: Runtimes) -> None:
        super().__init__(context, runtimes)
        self._targets: dict[str, list[Target]] = {}  # by target group ARN
        self._turn = itertools.count()
        self._absences: dict[
            tuple[str, str], str
        ] = {}  # (target group, who would fill it) -> why it is empty

    async def reconcile(self) -> None:
        """Report the load balancers: they are ready as soon as they are known."""
        for one in self._context.account[ElbSnapshot].load_balancers.values():
            self._context.report(Report("load-balancer", one.arn, one.created, "stable"))

    # --- targets ----------------------------------------------------------------------------------

    def register(self, group_arn: str, target: Target) -> None:
        """Put a target into its group and start checking its health."""
        self._targets.setdefault(group_arn, []).append(target)
        target.checker = asyncio.create_task(self._check_health(group_arn, target))

    async def deregister(self, group_arn: str, target: Target) -> None:
        """No new requests; return when those in flight are done or the deregistration delay is over."""
        if target.state != "draining":
            target.state = "draining"
            if target.checker is not None:
                target.checker.cancel()
            group = self._context.account[ElbSnapshot].target_groups.get(group_arn)
            delay = group.deregistration_delay if group else 0.0
            deadline = time.monotonic() + max(delay, 0.05)
            while target.in_flight and time.monotonic() < deadline:  # noqa: ASYNC110  rare and short
                await asyncio.sleep(0.01)
        with contextlib.suppress(ValueError):
            self._targets.get(group_arn, []).remove(target)

    def explain_absence(self, group_arns: Iterable[str], who: str, why: str) -> None:
        """Say why target groups that `who` would fill may be empty; an empty reason takes that back."""
        for arn in group_arns:
            self._absences.pop((arn, who), None)
            if why:
                self._absences[arn, who] = why

    def _absence(self, group_arn: str) -> str:
        return next((why for (arn, _), why in self._absences.items() if arn == group_arn), "")

    async def close(self) -> None:
        """Stop checking."""
        targets = itertools.chain(*self._targets.values())
        checkers = [target.checker for target in targets if target.checker is not None]
        for checker in checkers:
            checker.cancel()
        await asyncio.gather(*checkers, return_exceptions=True)

    def seen(self, group_arns: Sequence[str]) -> tuple[int, float]:
        """How many requests target groups have been given, and the seconds that these took."""
        groups = [self._context.account[ElbSnapshot].target_groups.get(arn) for arn in group_arns]
        counted = [self._context.traffic.seen(f"target group {group.name}") for group in groups if group]
        return sum(requests for requests, _ in counted), sum(seconds for _, seconds in counted)

    async def _check_health(self, group_arn: str, target: Target) -> None:
        while target.state != "draining":
            group = self._context.account[ElbSnapshot].target_groups.get(group_arn)
            if group is None:
                return
            before = target.state
            try:
                await self._probe(group, target)
            except _UnhealthyError as error:
                target.why, target.good, target.bad = str(error), 0, target.bad + 1
                target.lasting = error.lasting
                target.replica.observed(target.why)
                # Loading a model takes as long here as in AWS, so a target that is coming up has its time
                # unscaled, unless it failed for a reason that time does not mend.
                patience = target.grace + group.unhealthy_count * group.health_interval
                coming_up = target.state == "initial" and time.monotonic() - target.since < patience
                if target.bad >= group.unhealthy_count and (error.lasting or not coming_up):
                    target.state = "unhealthy"
            else:
                target.good, target.bad = target.good + 1, 0
                if target.state == "initial" or target.good >= group.healthy_count:
                    target.state, target.why = "healthy", ""
                    target.replica.observed(None)
            if target.replica.alive and target.replica.state in ("starting", "healthy", "unhealthy"):
                target.replica.state = "starting" if target.state == "initial" else target.state
            if target.state != before:
                self._context.changed()
            interval = group.health_interval / SPEEDUP
            # A target that is coming up is looked at more often: nobody likes to wait.
            pause = interval if target.state != "initial" else min(interval, 0.25)
            await asyncio.sleep(max(pause, SHORTEST_INTERVAL))

    async def _probe(self, group: TargetGroup, target: Target) -> None:
        """One health check. Raises _UnhealthyError."""
        port = target.port if group.health_port == "traffic-port" else int(group.health_port)
        target.refused = self._refused_way(group, target, port)
        if target.refused is not None:
            self._context.refuse(target.refused)
            raise _UnhealthyError(target.refused.reason, lasting=True)
        if self._context.faults.fails_health_checks(target.replica.id):
            raise _UnhealthyError(f"GET {group.health_path} answered 503 (an injected fault)", lasting=True)
        listens = target.replica.container_port
        if port != listens:
            raise _UnhealthyError(
                f"connection refused on port {port}: the container listens on {listens}", lasting=True
            )
        path, _, query = group.health_path.partition("?")
        addresses = self._context.account[Ec2Snapshot].addresses_of(target.interface)
        headers = [("Host", addresses[0] if addresses else "target"), ("User-Agent", "ELB-HealthChecker/2.0")]
        try:
            async with asyncio.timeout(group.health_timeout):
                answer = await self._context.pool.send(
                    Request("GET", path, query, headers),
                    target.replica.port or 0,
                    timeout=group.health_timeout,
                )
                await answer.read()
        except TimeoutError as error:
            text = f"GET {group.health_path} timed out after {group.health_timeout:g} s"
            raise _UnhealthyError(text) from error
        except ConnectionLost as error:
            raise _UnhealthyError(f"GET {group.health_path}: {error}") from error
        if not matches(group.matcher, answer.status):
            text = (
                f"GET {group.health_path} answered {answer.status}, the target group expects {group.matcher}"
            )
            raise _UnhealthyError(text, lasting=answer.status < 500)

    def _refused_way(self, group: TargetGroup, target: Target, port: int) -> Refused | None:
        """Why the target group cannot have the target, or which load balancer in front cannot reach it."""
        account = self._context.account
        if why := unusable(account[Ec2Snapshot], group, target.interface):
            return Refused(f"target group {group.name} -> {target.interface.what}", why, "network")
        for listener in account[ElbSnapshot].listeners.values():
            if any(group.arn in forwarded_to(rule) for rule in listener.rules):
                balancer = account[ElbSnapshot].load_balancers[listener.load_balancer_arn]
                source = self._interface(balancer)
                if why := out_of_zone(account[Ec2Snapshot], source, target.interface):
                    return Refused(f"{source.what} -> {target.interface.what}", why, "network")
                if refused := security_groups.connect(account, source, target.interface, port):
                    return refused
        return None

    def _interface(self, balancer: LoadBalancer) -> NetworkInterface:
        return NetworkInterface(
            f"load balancer {balancer.name}", balancer.subnet_ids, balancer.security_group_ids, index=1
        )

    def unemulated(self) -> list[tuple[str, str]]:
        """Load balancers and target groups of kinds that nothing here acts as."""
        found = self._context.account[ElbSnapshot]
        gaps = {arn: unemulated(one) for arn, one in found.load_balancers.items()}
        gaps |= {arn: unemulated_targets(one) for arn, one in found.target_groups.items()}
        return [(arn, what) for arn, what in gaps.items() if what]

    # --- requests ---------------------------------------------------------------------------------

    async def serve(self, listener: Listener, request: Request) -> Response:
        """Answer a request that has reached a listener."""
        balancer = self._context.account[ElbSnapshot].load_balancers[listener.load_balancer_arn]
        hop = f"load balancer {balancer.name}"
        with self._context.traffic.passing(hop) as counter:
            if why := unemulated(balancer):
                counter.errors += 1
                return page(501, "Not Implemented", f"the embedded cloud does not emulate {why}")
            if why := desync.refusal(balancer.desync_mode, request):
                self._context.refuse(Refused(hop, why))
                return page(400, "Bad Request", why)
            try:
                response = await self._obey(balancer, listener, request)
            except re.error as error:
                counter.errors += 1
                why = f"a rule of the listener on port {listener.port} has an invalid pattern: {error}"
                return page(500, "Internal Server Error", why)
            counter.errors += response.status >= 500
            return response

    async def _obey(self, balancer: LoadBalancer, listener: Listener, request: Request) -> Response:
        rule = next((one for one in listener.rules if applies(one, request)), None)
        if rule is None:
            why = f"the listener on port {listener.port} has no rule for {request.path}"
            return page(503, "Service Temporarily Unavailable", why)
        return await self._act(balancer, rule, request)

    async def _act(self, balancer: LoadBalancer, rule: ListenerRule, request: Request) -> Response:
        for action in sorted(rule.actions, key=lambda one: int(one.get("Order", 1))):
            match action["Type"]:
                case "fixed-response":
                    fixed = action["FixedResponseConfig"]
                    kind = fixed.get("ContentType", "text/plain")
                    body = str(fixed.get("MessageBody", "")).encode()
                    return Response(int(fixed["StatusCode"]), [("content-type", kind)], body)
                case "redirect":
                    return redirect(action["RedirectConfig"], request)
                case "forward":
                    arns = forwarded_to(rule)
                    group = self._context.account[ElbSnapshot].target_groups.get(arns[0]) if arns else None
                    if group is None:
                        why = "the rule's target group does not exist, or has no weight"
                        return page(503, "Service Temporarily Unavailable", why)
                    return await self._forward(balancer, group, transformed(rule, request))
                case other:
                    message = f"the embedded cloud's load balancer has no {other} action"
                    return Response(501, [("content-type", "text/plain")], message.encode())
        return page(503, "Service Temporarily Unavailable", "the rule has no action that answers")

    async def _forward(self, balancer: LoadBalancer, group: TargetGroup, request: Request) -> Response:
        with self._context.traffic.passing(f"target group {group.name}") as counter:
            target = self._choose(group)
            if target is None:
                why = self._absence(group.arn) or f"target group {group.name} has no registered targets"
                counter.errors += 1
                return page(503, "Service Temporarily Unavailable", why)
            hop = f"load balancer {balancer.name} -> {target.interface.what}"
            if refused := security_groups.connect(
                self._context.account, self._interface(balancer), target.interface, target.port
            ):
                self._context.refuse(refused)
                return page(504, "Gateway Time-out", str(refused))
            if target.port != target.replica.container_port:
                listens = target.replica.container_port
                why = f"{hop}: connection refused on port {target.port}: the container listens on {listens}"
                return page(502, "Bad Gateway", why)
            return await self._send(balancer, target, request)

    def _choose(self, group: TargetGroup) -> Target | None:
        registered = [one for one in self._targets.get(group.arn, ()) if one.state != "draining"]
        healthy = [one for one in registered if one.state == "healthy"]
        choice = healthy or registered  # nobody is healthy: fail open, as ALB does
        if not choice:
            return None
        if group.least_outstanding:
            return min(choice, key=lambda one: one.in_flight)
        return choice[next(self._turn) % len(choice)]

    async def _send(self, balancer: LoadBalancer, target: Target, request: Request) -> Response:
        forwarded = Request(
            request.method, request.path, request.query, forwarded_headers(request), request.body
        )
        target.in_flight += 1
        try:
            if delay := target.latency():
                await asyncio.sleep(delay)
            answer = await self._context.pool.send(
                forwarded,
                target.replica.port or 0,
                connect_timeout=CONNECT_SECONDS,
                timeout=balancer.idle_timeout,
            )
        except TimeoutError:
            target.in_flight -= 1
            why = f"{target.interface.what} did not answer within {balancer.idle_timeout:g} s"
            return page(504, "Gateway Time-out", why)
        except ConnectionLost as error:
            target.in_flight -= 1
            return page(502, "Bad Gateway", f"{target.interface.what} ({target.replica.id}): {error}")
        except BaseException:
            target.in_flight -= 1
            raise
        return Response(answer.status, without(answer.headers), _counted(answer.body, target))


def _counted(body: Any, target: Target) -> Any:
    """The body's pieces; the request counts as in flight until the last of them."""

    async def pieces() -> Any:
        try:
            async for piece in body:
                yield piece
        finally:
            target.in_flight -= 1

    return pieces()
