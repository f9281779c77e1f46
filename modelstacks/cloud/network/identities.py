"""Whose an access key is: the administrator's, a workload's, or one that IAM or STS made."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from modelstacks.cloud.account.credentials import AccessKey
from modelstacks.cloud.clients import Clients

__all__ = ["Identities", "Issued"]

MOST_SESSIONS = 1_000  # STS sessions remembered; the control plane knows them all


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
        """The key that verifies a signature. It does not expire: a workload here is given no second one."""
        return AccessKey(
            self.access_key_id, self.secret_access_key, self.session_token, role_arn=self.role_arn
        )


class Identities:
    """The access keys of the account, and the temporary ones that its workloads were given."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients
        self._issued: dict[str, Issued] = {}
        self._sessions: dict[str, AccessKey] = {}

    async def issue(self, role_arn: str, session: str) -> Issued:
        """Ask STS for temporary credentials of a role, and remember whose they are."""
        sts = self._clients.client("sts")
        found = await asyncio.to_thread(
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
        """The workload's credentials with this access key id."""
        return self._issued.get(access_key_id)

    def administrator(self, access_key_id: str) -> bool:
        """Whether the key is the administrator's."""
        return access_key_id == self._clients.credentials.access_key_id

    async def key(self, access_key_id: str) -> AccessKey | None:
        """The key pair that is known by this id. Raises EnvironmentFault."""
        if self.administrator(access_key_id):
            return AccessKey(access_key_id, self._clients.credentials.secret_access_key)
        if (own := self.issued(access_key_id)) is not None:
            return own.key
        if (known := self._sessions.get(access_key_id)) is not None:
            return known
        key = await asyncio.to_thread(self._clients.access_key, access_key_id)
        if key is not None and key.session_token is not None:  # a user's key can be withdrawn: ask each time
            if len(self._sessions) >= MOST_SESSIONS:
                self._sessions.clear()
            self._sessions[access_key_id] = key
        return key
