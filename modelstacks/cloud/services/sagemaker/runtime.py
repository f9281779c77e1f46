"""SageMaker endpoints: each is a workload of the rollout machine, and the runtime API that invokes them.

A new endpoint configuration is started beside the old one and takes over when it is healthy; one that does
not become healthy leaves the old one in service. The replicas are instances (instances.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace

from botocore.exceptions import BotoCoreError, ClientError

from modelstacks.cloud import api
from modelstacks.cloud.account.aws_errors import refusal
from modelstacks.cloud.account.channel import Report
from modelstacks.cloud.context import Context
from modelstacks.cloud.host.replicas import Replica
from modelstacks.cloud.host.wire import ConnectionLost, Headers, Request, Response
from modelstacks.cloud.runtime import Runtime, Runtimes
from modelstacks.cloud.services.application_autoscaling.snapshot import ScalingSnapshot
from modelstacks.cloud.services.cloudformation.snapshot import CloudFormationSnapshot
from modelstacks.cloud.services.sagemaker.instances import Instances
from modelstacks.cloud.services.sagemaker.snapshot import Endpoint, SageMakerSnapshot
from modelstacks.cloud.snapshot import Account
from modelstacks.cloud.workloads.departures import Departures
from modelstacks.cloud.workloads.kind import Budget, Goal, Outcome, Share, Terms, Unit
from modelstacks.cloud.workloads.machine import Workload
from modelstacks.cloud.workloads.policies import Bounds, Counters, Policy
from modelstacks.cloud.workloads.revision import Group

__all__ = ["Endpoints"]

INVOCATION_SECONDS = 60.0
TIMED_OUT = (
    "Your invocation timed out while waiting for a response from container primary. Review the latency "
    "metrics for each container in Amazon CloudWatch, resolve the issue, and try again."
)
BODY_LIMIT = 25 * 1024 * 1024
FAILURES = 3  # instances of one variant that may fail before it is in service
INVOCATION = re.compile(r"/endpoints/([^/]+)/invocations")
FORWARDED = {
    "content-type": "Content-Type",
    "accept": "Accept",
    "x-amzn-sagemaker-custom-attributes": "X-Amzn-SageMaker-Custom-Attributes",
    "x-amzn-sagemaker-inference-id": "X-Amzn-SageMaker-Inference-Id",
}
ATTRIBUTES = "x-amzn-sagemaker-custom-attributes"


class Endpoints(Runtime):
    """Every endpoint of the account."""

    def __init__(self, context: Context, runtimes: Runtimes) -> None:
        super().__init__(context, runtimes)
        self._endpoints: dict[str, _Endpoint] = {}
        self._departures = Departures()

    async def reconcile(self) -> None:
        """Start, replace and stop instances until they are what the account's endpoints ask for."""
        wanted = self._context.account[SageMakerSnapshot].endpoints
        for name in [name for name in self._endpoints if name not in wanted]:
            self._departures.begin(self._endpoints.pop(name))
        for name, endpoint in wanted.items():
            if name not in self._endpoints:
                self._endpoints[name] = _Endpoint(self._context, self._runtimes, endpoint)
            await self._endpoints[name].follow(endpoint)

    async def close(self) -> None:
        """Stop every instance."""
        for one in self._endpoints.values():
            self._departures.begin(one)
        self._endpoints.clear()
        await self._departures.finish()

    def workloads(self) -> list[api.Workload]:
        """For `status`."""
        return [one.describe() for one in self._endpoints.values()]

    async def answer(self, request: Request, service: str) -> Response | None:
        """Answer the calls of SageMaker's runtime API."""
        if service != "sagemaker" or not request.path.startswith("/endpoints/"):
            return None
        invocation = INVOCATION.fullmatch(request.path)
        if invocation is None:
            return _validation(f"the embedded cloud serves InvokeEndpoint, not {request.path}")
        return await self.invoke(request, invocation[1])

    async def invoke(self, request: Request, name: str) -> Response:
        """InvokeEndpoint."""
        with self._context.traffic.passing(f"endpoint {name}") as counter:
            endpoint = self._endpoints.get(name)
            if endpoint is None:
                account = self._context.account.id
                response = _validation(f"Endpoint {name} of account {account} not found.")
            else:
                response = await endpoint.invoke(request)
            counter.errors += response.status >= 500
            return response


class _Endpoint:
    """One endpoint: what the machine asks about it, what it tells, and how its instances are invoked."""

    def __init__(self, context: Context, runtimes: Runtimes, endpoint: Endpoint) -> None:
        self._context, self._runtimes, self._endpoint = context, runtimes, endpoint
        self.workload = Workload(endpoint.name, self, runtimes.following)

    async def follow(self, endpoint: Endpoint) -> None:
        """Make the machine follow what the account says of the endpoint."""
        self._endpoint = endpoint
        if endpoint.status == "Failed":  # SageMaker lets it be deleted and nothing else
            return
        goal = Goal(
            generation=endpoint.config,
            blueprint=_blueprint(self._context.account, endpoint),
            groups={
                variant.name: Share(
                    variant.count, Budget(FAILURES, seconds=variant.startup_timeout, resets=False)
                )
                for variant in endpoint.variants
            },
            terms=Terms(drain=INVOCATION_SECONDS),
        )
        await self.workload.follow(goal, lambda: Instances(self._context, self._runtimes, endpoint))

    def hurry(self) -> None:
        """Wait for no request any more."""
        self.workload.hurry()

    async def close(self) -> None:
        """Stop its instances."""
        await self.workload.close()

    def describe(self) -> api.Workload:
        """For `status`."""
        workload, endpoint = self.workload, self._endpoint
        return api.Workload(
            kind="sagemaker-endpoint",
            name=endpoint.name,
            stack=self._context.account[CloudFormationSnapshot].owner(endpoint.name, endpoint.arn),
            desired=workload.wanted(),
            state=workload.state,
            reason=workload.reason,
            unemulated=workload.unemulated(),
            replicas=tuple(one.describe() for one in workload.replicas()),
        )

    # --- what the machine tells and asks ----------------------------------------------------------

    def changed(self) -> None:
        """Something that `status` shows is different."""
        self._context.changed()

    def report(self, outcome: Outcome) -> None:
        """Report to the account, which waits where the endpoint is being created or updated."""
        report = Report(
            "sagemaker-endpoint",
            self._endpoint.arn,
            outcome.generation,
            outcome.state,
            outcome.running,
            outcome.reason,
        )
        self._context.report(report)

    def _resource_id(self, variant: str) -> str:
        return f"endpoint/{self._endpoint.name}/variant/{variant}"

    def bounds(self, group: str) -> Bounds | None:
        """Those of the variant's scalable target."""
        return self._context.account[ScalingSnapshot].bounds_of("sagemaker", self._resource_id(group))

    def policies(self, group: str) -> Sequence[Policy]:
        """Those of the variant's scalable target."""
        return self._context.account[ScalingSnapshot].policies_of("sagemaker", self._resource_id(group))

    def counters(self, group: str, healthy: Sequence[Unit]) -> Counters:
        """The invocations of the variant."""
        load = self.workload.load(group)
        return Counters(
            at=asyncio.get_running_loop().time(),
            healthy=len(healthy),
            requests=load.requests,
            seconds=load.seconds(),
        )

    async def set_desired(self, group: str, count: int) -> None:
        """UpdateEndpointWeightsAndCapacities, as Application Auto Scaling calls it.

        SageMaker takes it only while the endpoint is in service.
        """
        if self._endpoint.status != "InService":
            return
        weight = next(one.weight for one in self._endpoint.variants if one.name == group)
        change = {"VariantName": group, "DesiredInstanceCount": count, "DesiredWeight": weight}
        sagemaker = self._context.clients.client("sagemaker")
        with contextlib.suppress(ClientError, BotoCoreError):  # it is being updated or deleted
            await self._context.blocking(
                sagemaker.update_endpoint_weights_and_capacities,
                EndpointName=self._endpoint.name,
                DesiredWeightsAndCapacities=[change],
            )

    # --- the runtime API ------------------------------------------------------------------------

    async def invoke(self, request: Request) -> Response:
        """InvokeEndpoint, once the endpoint is known."""
        account, name = self._context.account.id, self._endpoint.name
        active = self.workload.active
        if active is None or not isinstance(active.maker, Instances):
            return _validation(f"Endpoint {name} of account {account} not found.")
        if len(request.body) > BODY_LIMIT:
            return _validation(f"Request body must be at most {BODY_LIMIT} bytes.", 413)
        wanted = request.header("x-amzn-sagemaker-target-variant")
        variants = [one for one in active.maker.variants.values() if wanted in (None, one.name)]
        if not variants:
            return _validation(f"Variant {wanted} not found for endpoint {name} of account {account}.")
        group = active.groups[_by_weight({one.name: one.weight for one in variants})]
        member = group.least_busy()
        if member is None:
            why = f"no healthy instance of endpoint {name}: {group.why_unhealthy()}"
            return _error(503, "ServiceUnavailable", why)
        with group.serving(member):
            return await self._call(request, group, member.unit.replicas[0])

    async def _call(self, request: Request, group: Group, replica: Replica) -> Response:
        # SageMaker passes on the headers that its API names, and nothing else.
        headers: Headers = [
            (FORWARDED[key.lower()], value) for key, value in request.headers if key.lower() in FORWARDED
        ]
        headers.append(("Host", "localhost:8080"))
        try:
            async with asyncio.timeout(INVOCATION_SECONDS):
                if delay := self._context.faults.latency(self._endpoint.name):
                    await asyncio.sleep(delay)
                answer = await self._context.pool.send(
                    Request("POST", "/invocations", headers=headers, body=request.body),
                    replica.port or 0,
                    timeout=INVOCATION_SECONDS,
                )
                body = await answer.read()
        except TimeoutError:
            return self._model_error(replica, 0, TIMED_OUT, TIMED_OUT)
        except ConnectionLost as error:
            await asyncio.sleep(0)  # lets the replica's end be noticed, whose reason says more
            why = f"{error}; {replica.reason or 'the container closed it'}"
            return self._model_error(replica, 500, why, why)
        if not 200 <= answer.status < 300:
            return self._model_error(replica, answer.status, body.decode("utf-8", "replace"))
        passed = [
            ("x-Amzn-Invoked-Production-Variant", group.name),
            ("x-amzn-requestid", secrets.token_hex(16)),
        ]
        passed += [
            (key, value) for key, value in answer.headers if key.lower() in ("content-type", ATTRIBUTES)
        ]
        return Response(200, passed, body)

    def _model_error(self, replica: Replica, status: int, message: str, reason: str = "") -> Response:
        """The container's error; `reason` where it is not the container that answered."""
        account = self._context.account
        kind = "client error" if 400 <= status < 500 else "server error"
        group = f"/aws/sagemaker/Endpoints/{self._endpoint.name}"
        body = {
            "ErrorCode": "CLIENT_ERROR_FROM_MODEL" if kind == "client error" else "SERVER_ERROR_FROM_MODEL",
            "LogStreamArn": f"arn:aws:logs:{account.region}:{account.id}:log-group:{group}",
            "Message": f'Received {kind} ({status}) from primary with message "{message}". See {replica.log} '
            f"in account {account.id} for more information.",
            "OriginalMessage": message,
            "OriginalStatusCode": status,
        }
        return _error(424, "ModelError", reason, body)


def _blueprint(account: Account, endpoint: Endpoint) -> object:
    """What an endpoint's instances are made from; their number is not part of it."""
    variants = tuple(replace(variant, count=0) for variant in endpoint.variants)
    models = tuple(account[SageMakerSnapshot].models.get(variant.model) for variant in endpoint.variants)
    return endpoint.config, variants, repr(models)


def _by_weight(weights: Mapping[str, float]) -> str:
    """One of the variants, at random in proportion to their weights."""
    names = list(weights)
    if len(names) == 1 or not any(weights.values()):
        return names[0]
    return random.choices(names, list(weights.values()))[0]  # noqa: S311  traffic splitting


def _validation(message: str, status: int = 400) -> Response:
    return _error(status, "ValidationError", message)


def _error(status: int, code: str, message: str, body: Mapping[str, object] | None = None) -> Response:
    response = refusal("sagemaker", code, message, status)
    response.body = json.dumps(body or {"Message": message}).encode()
    response.headers = [
        ("content-type", "application/json") if key == "content-type" else (key, value)
        for key, value in response.headers
    ]
    return response
