"""An embedded account for the data plane's tests: a control plane, a data plane, small templates."""

from __future__ import annotations

import asyncio
import functools
import io
import sys
import tarfile
import threading
import time
import zipfile
from collections.abc import Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest

from modelstacks.cloud import api
from modelstacks.cloud.account import process as control_plane
from modelstacks.cloud.clients import Clients
from modelstacks.cloud.daemon.plane import DataPlane, assemble
from modelstacks.cloud.daemon.state import StateDirectory
from modelstacks.cloud.host.listener import listen
from modelstacks.cloud.host.replicas import Registry

FIXTURES = Path(__file__).parent / "fixtures"
IMAGE = "example/container:1"
BUCKET = "artifacts"
PATIENCE = 60.0


@dataclass(frozen=True)
class Image:
    """The test container as an installed image."""

    root: Path = FIXTURES
    python: Path = Path(sys.executable)
    entrypoint: tuple[str, ...] = ("python", str(FIXTURES / "container.py"))
    cmd: tuple[str, ...] = ("unused",)
    env: Mapping[str, str] = field(default_factory=dict)
    exposed_port: int | None = 8080
    user: str = ""


class Cloud:
    """The embedded account, seen by a test."""

    def __init__(self, directory: Path, plane: control_plane.ControlPlane) -> None:
        self.state = StateDirectory(directory)
        self.credentials = api.Credentials(access_key_id="AKIATEST", secret_access_key="secret")
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._clients: dict[str, Any] = {}
        clients = Clients(plane.connection, self.credentials)

        async def build() -> tuple[DataPlane, Any]:
            data_plane = assemble(
                state=self.state,
                clients=clients,
                control_plane=plane.socket,
                images=lambda uri: Image(user="1000:1000" if "unprivileged" in uri else ""),
                registry=Registry(self.state.logs, lambda: None),
                changed=lambda: None,
            )
            await data_plane.follow()
            return data_plane, await listen(data_plane.front_door.handle, localhost=True)

        self.plane, self._front = self.run(build())
        self.endpoint_url = f"http://localhost:{self._front.port}"

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run on the data plane's loop and wait."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE)

    def client(self, service: str) -> Any:
        """A boto3 client of the account, through its front door."""
        if service not in self._clients:
            self._clients[service] = boto3.client(
                service,
                endpoint_url=self.endpoint_url,
                region_name="us-east-1",
                aws_access_key_id=self.credentials.access_key_id,
                aws_secret_access_key=self.credentials.secret_access_key,
            )
        return self._clients[service]

    def deploy(self, stack: str, template: str, **parameters: str) -> dict[str, str]:
        """Create or update a stack and wait until it is complete; its outputs."""
        cloudformation = self.client("cloudformation")
        self.begin(stack, template, **parameters)
        self.until(lambda: self._complete(stack))
        self.settle()
        found = cloudformation.describe_stacks(StackName=stack)["Stacks"][0]
        return {one["OutputKey"]: one["OutputValue"] for one in found.get("Outputs", [])}

    def fail(self, stack: str, template: str, *, keep: bool = False, **parameters: str) -> dict[str, str]:
        """Create or update a stack that fails, and wait until it is rolled back; logical id -> reason."""
        begun = time.time()
        self.begin(stack, template, keep=keep, **parameters)
        ended = "_FAILED" if keep else "ROLLBACK_COMPLETE"
        self.until(lambda: self.status(stack).endswith(("COMPLETE", "FAILED")))
        assert self.status(stack).endswith(ended), self.status(stack)
        self.settle()
        events = self.client("cloudformation").describe_stack_events(StackName=stack)["StackEvents"]
        return {
            one["LogicalResourceId"]: one.get("ResourceStatusReason", "")
            for one in events
            if one["ResourceStatus"].endswith("_FAILED") and one["Timestamp"].timestamp() >= begun - 1
        }

    def start(self, stack: str, template: str, **parameters: str) -> None:
        """Let a stack be created or updated, without waiting for the answer to the call."""
        work = functools.partial(self.begin, stack, template, **parameters)
        threading.Thread(target=work, daemon=True).start()

    def begin(self, stack: str, template: str, *, keep: bool = False, **parameters: str) -> None:
        """Create or update a stack; the call answers when that is done, or after some seconds."""
        cloudformation = self.client("cloudformation")
        arguments = {
            "StackName": stack,
            "TemplateBody": (FIXTURES / template).read_text(),
            "Capabilities": ["CAPABILITY_IAM", "CAPABILITY_NAMED_IAM"],
            "Parameters": [
                {"ParameterKey": key, "ParameterValue": value}
                for key, value in {"Image": IMAGE, "Bucket": BUCKET, **parameters}.items()
            ],
        }
        names = {one["StackName"] for one in cloudformation.describe_stacks()["Stacks"]}
        getattr(cloudformation, "update_stack" if stack in names else "create_stack")(
            **arguments, DisableRollback=keep
        )

    def status(self, stack: str) -> str:
        """A stack's status."""
        found = self.client("cloudformation").describe_stacks(StackName=stack)["Stacks"][0]
        return str(found["StackStatus"])

    def delete(self, stack: str) -> None:
        """Delete a stack and wait until it is gone."""
        self.client("cloudformation").delete_stack(StackName=stack)
        self.settle()

    def _complete(self, stack: str) -> bool:
        status = self.status(stack)
        if "ROLLBACK" in status or "FAILED" in status:
            events = self.client("cloudformation").describe_stack_events(StackName=stack)["StackEvents"]
            raise AssertionError(
                [one.get("ResourceStatusReason") for one in events if "FAILED" in one["ResourceStatus"]]
            )
        return bool(status.endswith("_COMPLETE"))

    def settle(self) -> None:
        """Read the account back and wait until nothing is starting."""
        self.run(self.plane.reconcile())
        self.until(lambda: all(one.state != "starting" for one in self.plane.workloads()))

    def until(self, true: Callable[[], bool]) -> None:
        """Wait for something to become true."""
        deadline = time.monotonic() + PATIENCE
        while not true():
            assert time.monotonic() < deadline, "it did not become true in time"
            time.sleep(0.02)

    def workload(self, stack: str, kind: str) -> api.Workload:
        """A stack's service, endpoint or function."""
        return next(one for one in self.plane.workloads() if one.stack == stack and one.kind == kind)

    def api(self, stack: str) -> api.Api:
        """A stack's REST API."""
        return next(one for one in self.plane.apis() if one.name == stack)

    def http(self, stack: str) -> httpx.Client:
        """A client of a stack's API, with its key if it has one."""
        found = self.api(stack)
        headers = {"x-api-key": found.api_keys[0].value} if found.api_keys else {}
        return httpx.Client(base_url=found.url, headers=headers, timeout=PATIENCE, trust_env=False)

    def close(self) -> None:
        """Stop everything."""
        self.run(self.plane.close())
        self.run(self._front.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()


def _archive() -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        content = b"{}"
        info = tarfile.TarInfo("model.json")
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))
    return packed.getvalue()


def _code() -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as zipped:
        zipped.write(FIXTURES / "handler.py", "handler.py")
    return packed.getvalue()


@pytest.fixture(scope="session")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """An account with a bucket that holds a model and a function's code."""
    directory = tmp_path_factory.mktemp("cloud")
    state = StateDirectory(directory)
    state.prepare()
    with control_plane.start(state.sockets, log=directory / "control-plane.log") as plane:
        made = Cloud(directory, plane)
        s3 = made.client("s3")
        s3.create_bucket(Bucket=BUCKET)
        s3.put_object(Bucket=BUCKET, Key="models/model", Body=b"weights")
        s3.put_object(Bucket=BUCKET, Key="models/model.tar.gz", Body=_archive())
        s3.put_object(Bucket=BUCKET, Key="code/handler.zip", Body=_code())
        try:
            yield made
        finally:
            made.close()


@pytest.fixture(scope="session")
def self_hosted(cloud: Cloud) -> dict[str, str]:
    """The stack `hosted`: REST API, VPC link, load balancer, two tasks. Tests put back what they change."""
    return cloud.deploy("hosted", "self_hosted.yaml")


@pytest.fixture(scope="session")
def managed(cloud: Cloud) -> dict[str, str]:
    """The stack `managed`: REST API, Lambda, interface endpoint, a SageMaker endpoint of two instances."""
    return cloud.deploy("managed", "managed.yaml")
