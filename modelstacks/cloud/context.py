"""What the rooms of the data plane share: the account's snapshot, connections, replicas, faults, counters."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modelstacks.cloud import api
from modelstacks.cloud.account.channel import Report
from modelstacks.cloud.account.credentials import AccessKey
from modelstacks.cloud.clients import Clients
from modelstacks.cloud.clock import SPEEDUP
from modelstacks.cloud.daemon.state import StateDirectory
from modelstacks.cloud.host.replicas import ImageEnvironment, Registry
from modelstacks.cloud.host.wire import Pool, Request, Response
from modelstacks.cloud.network import Refused
from modelstacks.cloud.snapshot import Account
from modelstacks.cloud.workloads.faults import Faults, Traffic

__all__ = ["SPEEDUP", "Context", "Issued", "Outcome", "Reasons", "trace_root"]

MOST_SESSIONS = 1_000  # STS sessions remembered; the control plane knows them all


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a Lambda invocation came to. `error` is Lambda's FunctionError; a throttled one never ran."""

    payload: bytes
    error: bool = False
    throttled: bool = False


class Reasons:
    """Why calls that a function made to AWS were refused, by the trace of the request that it served.

    AWS gives a function no more than an error code; the embedded cloud names the rule in its API's answer.
    """

    _MOST = 1_000

    def __init__(self) -> None:
        self._by_trace: dict[str, str] = {}

    def note(self, trace: str | None, reason: str | None) -> None:
        """Keep the reason of a refusal until the request is answered."""
        if (root := trace_root(trace)) and reason:
            if len(self._by_trace) >= self._MOST:
                self._by_trace.clear()
            self._by_trace[root] = reason

    def take(self, trace: str) -> str:
        """The last reason that was kept for a request, if any."""
        return self._by_trace.pop(trace_root(trace), "")


def trace_root(trace: str | None) -> str:
    """The root of an X-Ray trace header; empty for anything else."""
    found = re.search(r"(?:^|;)\s*Root=(1-[0-9a-fA-F]{8}-[0-9a-fA-F]{24})(?:;|$)", trace or "")
    return found[1] if found else ""


@dataclass(frozen=True, slots=True)
class Issued:
    """Temporary credentials of a role."""

    access_key_id: str
    secret_access_key: str
    session_token: str
    expires: str  # ISO 8601
    role_arn: str

    @property
    def key(self) -> AccessKey:
        """As a signature is verified with it. It has no end: a workload here is not handed a second one."""
        return AccessKey(
            self.access_key_id, self.secret_access_key, self.session_token, role_arn=self.role_arn
        )


def _nobody_to_tell(report: Report) -> None:
    """Nobody waits for the workloads of a data plane without a control plane."""


async def _no_endpoint(request: Request, name: str) -> Response:
    raise NotImplementedError(f"{request.method} {name}: the SageMaker runtime is not plugged in")


async def _no_function(name: str, payload: bytes) -> Outcome:
    raise NotImplementedError(f"{name}: Lambda is not plugged in ({len(payload)} bytes)")


@dataclass
class Context:
    """Shared by every room; `account` is replaced whole at each reconcile."""

    state: StateDirectory
    clients: Clients
    control_plane: Path  # its Unix socket
    images: Callable[[str], ImageEnvironment]
    registry: Registry
    changed: Callable[[], None]  # something that `status` shows is different now
    account: Account = field(default_factory=Account)
    pool: Pool = field(default_factory=Pool)
    faults: Faults = field(default_factory=Faults)
    traffic: Traffic = field(default_factory=Traffic)
    settings: api.Settings = field(default_factory=api.Settings)
    reasons: Reasons = field(default_factory=Reasons)
    report: Callable[[Report], None] = _nobody_to_tell
    invoke_endpoint: Callable[[Request, str], Awaitable[Response]] = _no_endpoint
    invoke_function: Callable[[str, bytes], Awaitable[Outcome]] = _no_function
    # Custom resources' functions that are asked: the secret part of the response URL -> what they answer.
    responses: dict[str, asyncio.Future[bytes]] = field(default_factory=dict)
    _issued: dict[str, Issued] = field(default_factory=dict)
    _sessions: dict[str, AccessKey] = field(default_factory=dict)

    async def blocking(self, work: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """Run boto3 and other blocking work off the event loop."""
        return await asyncio.to_thread(work, *arguments, **options)

    async def issue(self, role_arn: str, session: str) -> Issued:
        """Temporary credentials from STS for a role; the data plane remembers whose they are."""
        sts = self.clients.client("sts")
        found = await self.blocking(
            sts.assume_role, RoleArn=role_arn, RoleSessionName=session[:64], DurationSeconds=43200
        )
        given = found["Credentials"]
        issued = Issued(
            given["AccessKeyId"],
            given["SecretAccessKey"],
            given["SessionToken"],
            given["Expiration"].isoformat(),
            role_arn,
        )
        self._issued[issued.access_key_id] = issued
        return issued

    def issued(self, access_key_id: str) -> Issued | None:
        """Whose credentials these are."""
        return self._issued.get(access_key_id)

    async def access_key(self, access_key_id: str) -> AccessKey | None:
        """The key pair that is known by this id: the administrator's, a workload's, or one of IAM or STS."""
        admin = self.clients.credentials
        if access_key_id == admin.access_key_id:
            return AccessKey(admin.access_key_id, admin.secret_access_key)
        if (own := self.issued(access_key_id)) is not None:
            return own.key
        if (known := self._sessions.get(access_key_id)) is not None:
            return known
        key: AccessKey | None = await self.blocking(self.clients.access_key, access_key_id)
        if key is not None and key.session_token is not None:  # a user's key can be withdrawn: ask each time
            if len(self._sessions) >= MOST_SESSIONS:
                self._sessions.clear()
            self._sessions[access_key_id] = key
        return key

    def refuse(self, refused: Refused) -> Refused:
        """Keep a refusal where `status` shows it."""
        self.traffic.refused(refused)
        return refused
