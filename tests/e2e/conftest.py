"""One embedded cloud for all end-to-end tests: every example, both architectures, the real CDK CLI."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import boto3
import pytest
from support.local_hub import LocalHub
from support.tiny_models import GENERATOR

from modelstacks.adapters.deployed_api import Answer
from modelstacks.cli.embedded_api import callable_api
from modelstacks.cloud import client
from modelstacks.cloud.api import Api, Settings, Status, Workload

REPOSITORY = Path(__file__).resolve().parents[2]
FOLDERS = ("deployments", "lambda", "model_artifacts", "modelstacks", "serving", "stacks")
FILES = ("app.py", "cdk.json", "package.json")
EXAMPLES = sorted(path.stem for path in (REPOSITORY / "deployments").glob("*.yaml"))
ARCHITECTURES = ("self-hosted", "managed")
HUB_MODEL = "writer"  # a deployment whose model comes from a hub; test_hub_model.py asks it


def make_project(folder: Path) -> Path:
    """A project of its own to deploy from: a copy that shares this one's tools and installed images."""
    folder.mkdir(parents=True, exist_ok=True)
    ignored = shutil.ignore_patterns("__pycache__", "*.pyc")
    for name in FOLDERS:
        shutil.copytree(REPOSITORY / name, folder / name, ignore=ignored)
    for name in FILES:
        shutil.copy2(REPOSITORY / name, folder / name)
    (folder / "node_modules").symlink_to(REPOSITORY / "node_modules")
    images = REPOSITORY / ".modelstacks" / "images"
    images.mkdir(parents=True, exist_ok=True)
    (folder / ".modelstacks").mkdir()
    (folder / ".modelstacks" / "images").symlink_to(images)
    return folder


def add_hub_model(project: Path) -> None:
    """One more spec, locked from a hub that is gone when the model is deployed."""
    with LocalHub() as hub:
        hub.add("acme/writer", GENERATOR)
        spec = project / "deployments" / f"{HUB_MODEL}.yaml"
        spec.write_text(
            f"name: {HUB_MODEL}\nmodel: {{source: huggingface, id: acme/writer}}\narchitecture: managed\n"
        )
        variables = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(project / ".cache")}
        lock = modelstacks(project, "lock", str(spec), variables=variables)
    assert lock.returncode == 0, lock.stderr


def modelstacks(
    project: Path, *words: str, timeout: float = 600, variables: Mapping[str, str] = MappingProxyType({})
) -> subprocess.CompletedProcess[str]:
    """Run a command in a project, as a person would."""
    environment = {
        **os.environ,
        **variables,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "NO_COLOR": "1",
        "PYTHONPATH": str(project),  # the copy's toolkit, not the one that is installed
    }
    return subprocess.run(
        [sys.executable, "-m", "modelstacks", *words],
        cwd=project,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


@dataclass(frozen=True)
class Cloud:
    """The running embedded cloud of a project."""

    project: Path
    session: client.Session

    def status(self) -> Status:
        return self.session.status()

    def api(self, deployment: str, architecture: str) -> Api:
        """The REST API of one stack."""
        (found,) = (one for one in self.status().apis if one.stack == f"{deployment}-{architecture}")
        return found

    def workload(self, stack: str, kind: str) -> Workload:
        """The service, endpoint or function of a stack."""
        (found,) = (one for one in self.status().workloads if one.stack == stack and one.kind == kind)
        return found

    def call(
        self,
        deployment: str,
        architecture: str,
        method: str,
        path: str,
        *,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """One request through API Gateway, with the caller's key or signature."""
        status = self.status()
        (api,) = (one for one in status.apis if one.stack == f"{deployment}-{architecture}")
        return callable_api(api, status).send(method, path, body=body, headers=headers)

    def predict(self, deployment: str, architecture: str, body: Any) -> Answer:
        """POST /invocations with a JSON body."""
        return self.call(
            deployment,
            architecture,
            "POST",
            "/invocations",
            body=json.dumps(body).encode(),
            headers={"content-type": "application/json"},
        )

    def boto3(self, service: str) -> Any:
        """A client of the embedded account's administrator."""
        status = self.status()
        return boto3.client(
            service,
            endpoint_url=status.endpoint_url,
            region_name=status.region,
            aws_access_key_id=status.credentials.access_key_id,
            aws_secret_access_key=status.credentials.secret_access_key,
        )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each end-to-end test twice: with and without the stage's name in what API Gateway sends.

    It is not known which of the two AWS does (`api.Settings`): the self-hosted architecture has to work both
    ways.
    """
    if "stage_in_path" in metafunc.fixturenames:
        metafunc.parametrize(
            "stage_in_path", [False, True], ids=["stage not sent", "stage sent"], indirect=True
        )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The setting concerns VPC links alone: what asks only the managed architecture runs once."""
    twice = [item for item in items if _is_repetition(item)]
    items[:] = [item for item in items if item not in twice]
    if twice:
        config.hook.pytest_deselected(items=twice)


def _is_repetition(item: pytest.Item) -> bool:
    given = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
    only_managed = {"managed", "sagemaker-endpoint"} & {given.get("architecture"), given.get("kind")}
    return bool(given.get("stage_in_path")) and (
        bool(only_managed) or str(given.get("stack", "")).endswith("-managed")
    )


@pytest.fixture(autouse=True)
def stage_in_path(request: pytest.FixtureRequest, cloud: Cloud) -> None:
    """What API Gateway sends through a VPC link while the test runs."""
    cloud.session.configure(Settings(stage_in_path=request.param))


@pytest.fixture(scope="session")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """Every example spec, and a model from a hub, as both architectures."""
    project = make_project(tmp_path_factory.mktemp("e2e") / "project")
    add_hub_model(project)
    try:
        up = modelstacks(project, "up", "--architecture", "both", "--detach", "--json", timeout=800)
        assert up.returncode == 0, up.stderr
        session = client.attach(project)
        assert session is not None
        with session:
            yield Cloud(project, session)
    finally:
        down = modelstacks(project, "down")
        assert down.returncode == 0, down.stderr


Template = dict[str, Any]


def template_of(cloud: Cloud, stack: str) -> Template:
    """The template that `cdk synth` wrote and `cdk deploy` sent, byte for byte."""
    document: Template = json.loads(
        (cloud.project / ".modelstacks" / "cdk.out" / f"{stack}.template.json").read_bytes()
    )
    return document


def deploy(cloud: Cloud, stack: str, template: Template) -> None:
    """Update a stack to a template, and wait until the data plane has followed."""
    cloudformation = cloud.boto3("cloudformation")
    cloudformation.update_stack(
        StackName=stack, TemplateBody=json.dumps(template), Capabilities=["CAPABILITY_NAMED_IAM"]
    )
    cloudformation.get_waiter("stack_update_complete").wait(
        StackName=stack, WaiterConfig={"Delay": 1, "MaxAttempts": 60}
    )
    for _ in cloud.session.reconcile():
        pass


def failed_update(cloud: Cloud, stack: str, template: Template) -> str:
    """Update a stack to a template that fails, wait until it is rolled back; the reason of the failure."""
    cloudformation = cloud.boto3("cloudformation")
    cloudformation.update_stack(
        StackName=stack, TemplateBody=json.dumps(template), Capabilities=["CAPABILITY_NAMED_IAM"]
    )
    cloudformation.get_waiter("stack_rollback_complete").wait(
        StackName=stack, WaiterConfig={"Delay": 1, "MaxAttempts": 120}
    )
    events = cloudformation.describe_stack_events(StackName=stack)["StackEvents"]
    return next(
        one["ResourceStatusReason"]
        for one in events
        if one["ResourceStatus"] == "UPDATE_FAILED" and "cancelled" not in one["ResourceStatusReason"]
    )
