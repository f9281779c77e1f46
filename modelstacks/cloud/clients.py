"""boto3 clients of the embedded account: the only way in which the data plane reads it."""

from __future__ import annotations

import os
import threading
from typing import Any

import boto3
import botocore.session
from botocore.config import Config

from modelstacks.cloud.account.client import ENDPOINT, Connection, Unemulated
from modelstacks.cloud.account.credentials import AccessKey
from modelstacks.cloud.api import Credentials

__all__ = ["Clients"]

# botocore session variables that ignore the user's profile, config file and credentials file.
NO_CONFIGURATION = {
    "profile": (None, None, None, None),
    "config_file": (None, None, os.devnull, None),
    "credentials_file": (None, None, os.devnull, None),
}


class Clients:
    """boto3 clients of the embedded account, made once: making one costs more than calling it.

    Their calls go over the control plane's socket. They read neither the user's AWS configuration nor its
    profiles, and no proxy is in their way.
    """

    def __init__(
        self, control_plane: Connection, credentials: Credentials, region: str = "us-east-1"
    ) -> None:
        self.region = region
        self.credentials = credentials
        self._control_plane = control_plane
        self._session = boto3.Session(
            aws_access_key_id=credentials.access_key_id,
            aws_secret_access_key=credentials.secret_access_key,
            region_name=region,
            botocore_session=botocore.session.Session(session_vars=NO_CONFIGURATION),
        )
        self._config = Config(retries={"max_attempts": 1}, s3={"addressing_style": "path"})
        self._clients: dict[str, Any] = {}
        self._making = threading.Lock()

    def client(self, service: str) -> Any:
        """A thread-safe client of one service."""
        with self._making:  # a session makes one client at a time
            if service not in self._clients:
                made = self._session.client(service, endpoint_url=ENDPOINT, config=self._config)
                self._clients[service] = self._control_plane.carry(made)
            return self._clients[service]

    def account_id(self) -> str:
        """The account's number."""
        return str(self.client("sts").get_caller_identity()["Account"])

    def unemulated(self) -> list[Unemulated]:
        """What was deployed in this region and nothing emulates. Raises EnvironmentFault."""
        return self._control_plane.unemulated(self.region)

    def access_key(self, access_key_id: str) -> AccessKey | None:
        """An access key that the account's IAM or STS made. Raises EnvironmentFault."""
        return self._control_plane.access_key(access_key_id)

    def pages(self, service: str, operation: str, key: str, **parameters: Any) -> list[dict[str, Any]]:
        """Every item of a list operation."""
        client = self.client(service)
        if not client.can_paginate(operation):
            items: list[dict[str, Any]] = getattr(client, operation)(**parameters).get(key, [])
            return items
        pages = client.get_paginator(operation).paginate(**parameters)
        return [item for page in pages for item in page.get(key, [])]

    def close(self) -> None:
        """Release the connections."""
        for client in self._clients.values():
            client.close()
