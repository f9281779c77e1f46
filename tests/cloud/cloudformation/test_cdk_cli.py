"""The real CDK CLI against the control plane: bootstrap, both ways to deploy, failure, diff, destroy.

The cloud assembly is written by hand, so that nothing has to be synthesized; it has every kind of asset.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.control_plane import Account, Endpoint

from modelstacks.adapters.cdk_events import ResourceEvent
from modelstacks.adapters.cdk_toolchain import CdkToolchain, EmulatedAccount
from modelstacks.adapters.serving_environment import ImageStore
from modelstacks.cloud.account.process import ControlPlane
from modelstacks.cloud.host.docker import write_launcher
from modelstacks.core.errors import DeploymentFailed

pytestmark = pytest.mark.e2e

PROJECT = Path(__file__).parents[3]
REGION = "us-east-1"  # where no other test of this folder works: the bootstrap stack is made once
SUFFIX = "${AWS::AccountId}-${AWS::Region}"
DOCKERFILE = """\
FROM python
ARG ENGINE
COPY install.sh ./
RUN sh install.sh /opt/server "$ENGINE"
ENTRYPOINT ["python", "-m", "server"]
"""
INSTALL = 'mkdir -p "$1/venv/bin" && ln -s "$PYTHON" "$1/venv/bin/python"\n'


def role(kind: str) -> str:
    return f"arn:${{AWS::Partition}}:iam::${{AWS::AccountId}}:role/cdk-hnb659fds-{kind}-role-{SUFFIX}"


def assembly(folder: Path, group: str, **more: Any) -> Path:
    """A cloud assembly of one stack with a log group, an image and a file made by a program."""
    folder.mkdir()
    resources = {"Group": {"Type": "AWS::Logs::LogGroup", "Properties": {"LogGroupName": group}}, **more}
    outputs = {"Name": {"Value": {"Ref": "Group"}}}
    template = json.dumps({"Resources": resources, "Outputs": outputs})
    (folder / "byhand.template.json").write_text(template)
    digest = hashlib.sha256(template.encode()).hexdigest()
    image = folder / "image"
    image.mkdir()
    (image / "Dockerfile").write_text(DOCKERFILE)
    (image / "install.sh").write_text(INSTALL)
    (folder / "made.tar.gz").write_bytes(b"weights")
    make = ["sh", "-c", f"echo {folder / 'made.tar.gz'}"]

    def file(key: str, source: dict[str, Any]) -> dict[str, Any]:
        bucket = f"cdk-hnb659fds-assets-{SUFFIX}"
        place = {"bucketName": bucket, "objectKey": key, "assumeRoleArn": role("file-publishing")}
        return {"source": source, "destinations": {"here": place}}

    repository = f"cdk-hnb659fds-container-assets-{SUFFIX}"
    pushed = {"repositoryName": repository, "imageTag": "abc", "assumeRoleArn": role("image-publishing")}
    assets = {
        "version": "36.0.0",
        "files": {
            digest: file(f"{digest}.json", {"path": "byhand.template.json", "packaging": "file"}),
            "made": file("made.tar.gz", {"executable": make}),
        },
        "dockerImages": {
            "abc": {
                "source": {"directory": "image", "dockerBuildArgs": {"ENGINE": "xgboost"}},
                "destinations": {"here": pushed},
            }
        },
    }
    (folder / "byhand.assets.json").write_text(json.dumps(assets))
    bootstrapped = {
        "requiresBootstrapStackVersion": 6,
        "bootstrapStackVersionSsmParameter": "/cdk-bootstrap/hnb659fds/version",
    }
    stack = {
        "templateFile": "byhand.template.json",
        "assumeRoleArn": role("deploy"),
        "cloudFormationExecutionRoleArn": role("cfn-exec"),
        "stackTemplateAssetObjectUrl": f"s3://cdk-hnb659fds-assets-{SUFFIX}/{digest}.json",
        **bootstrapped,
    }
    artifacts = {
        "byhand.assets": {
            "type": "cdk:asset-manifest",
            "properties": {"file": "byhand.assets.json", **bootstrapped},
        },
        "byhand": {
            "type": "aws:cloudformation:stack",
            "environment": "aws://unknown-account/unknown-region",
            "properties": stack,
            "dependencies": ["byhand.assets"],
        },
    }
    (folder / "manifest.json").write_text(json.dumps({"version": "36.0.0", "artifacts": artifacts}))
    return folder


@pytest.fixture(scope="module")
def emulated(plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatedAccount]:
    endpoint = Endpoint(plane, tmp_path_factory.mktemp("endpoint"), REGION)
    keys = endpoint.credentials
    yield EmulatedAccount(endpoint.url, keys.access_key_id, keys.secret_access_key, region=REGION)
    endpoint.close()


@pytest.fixture(scope="module")
def toolchain(emulated: EmulatedAccount, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CdkToolchain]:
    state = tmp_path_factory.mktemp("state")
    docker = write_launcher(state / "bin" / "docker")
    toolchain = CdkToolchain(PROJECT, state, docker, state / "images")
    toolchain.bootstrap(emulated, lambda _: None)
    yield toolchain
    toolchain.stop()


def plain_deploy(toolchain: CdkToolchain, folder: Path, emulated: EmulatedAccount) -> None:
    """What a person runs: the CLI's own way, which is a change set."""
    words = ["deploy", "--all", "--app", str(folder), "--require-approval", "never"]
    toolchain._run_there("cdk deploy", words, emulated, lambda _: None)


def test_a_stack_with_every_kind_of_asset_comes_changes_and_goes(
    toolchain: CdkToolchain, emulated: EmulatedAccount, plane: ControlPlane, tmp_path: Path
) -> None:
    account = Account(plane.connection, region=REGION)
    events: list[ResourceEvent] = []
    first = assembly(tmp_path / "first", "/first")
    toolchain.deploy(first, emulated, lambda _: None, on_event=events.append)
    assert account.outputs("byhand") == {"Name": "/first"}
    assert ("Group", "CREATE_COMPLETE") in {(event.logical_id, event.status) for event in events}
    bucket = f"cdk-hnb659fds-assets-{emulated.account}-{REGION}"
    assert account.client("s3").get_object(Bucket=bucket, Key="made.tar.gz")["Body"].read() == b"weights"
    registry = f"{emulated.account}.dkr.ecr.{REGION}.amazonaws.com"
    uri = f"{registry}/cdk-hnb659fds-container-assets-{emulated.account}-{REGION}:abc"
    assert ImageStore(toolchain.images).resolve(uri).entrypoint == ("python", "-m", "server")

    second = assembly(tmp_path / "second", "/second")
    assert "/second" in toolchain.diff(second, emulated, lambda _: None)
    plain_deploy(toolchain, second, emulated)
    assert account.status("byhand") == "UPDATE_COMPLETE"
    assert account.outputs("byhand") == {"Name": "/second"}

    bad = {"Type": "AWS::KMS::Alias", "Properties": {"AliasName": "no-prefix", "TargetKeyId": "none"}}
    third = assembly(tmp_path / "third", "/second", Bad=bad)
    with pytest.raises(DeploymentFailed, match=r"cdk deploy failed: byhand: AWS::KMS::Alias \(Bad\): "):
        toolchain.deploy(third, emulated, lambda _: None)
    assert account.status("byhand") == "UPDATE_ROLLBACK_COMPLETE"

    toolchain.destroy(second, emulated, lambda _: None)
    names = {stack["StackName"] for stack in account.client("cloudformation").describe_stacks()["Stacks"]}
    assert "byhand" not in names


def test_a_first_deploy_by_change_set_that_fails_leaves_nothing(
    toolchain: CdkToolchain, emulated: EmulatedAccount, plane: ControlPlane, tmp_path: Path
) -> None:
    account = Account(plane.connection, region=REGION)
    bad = {"Type": "AWS::Logs::LogGroup", "Properties": {"LogGroupName": "/ok", "RetentionInDays": "never"}}
    with pytest.raises(DeploymentFailed, match=r"AWS::Logs::LogGroup \(Bad\)"):
        plain_deploy(toolchain, assembly(tmp_path / "bad", "/new", Bad=bad), emulated)
    assert account.status("byhand") == "ROLLBACK_COMPLETE"
    assert account.client("logs").describe_log_groups(logGroupNamePrefix="/new")["logGroups"] == []


def test_a_wrong_secret_is_named_by_the_account(toolchain: CdkToolchain, emulated: EmulatedAccount) -> None:
    wrong = replace(emulated, secret_access_key="wrong")
    with pytest.raises(DeploymentFailed, match="signature we calculated does not match the signature"):
        toolchain.bootstrap(wrong, lambda _: None)


def test_a_key_that_the_account_does_not_know_deploys_nothing(
    toolchain: CdkToolchain, emulated: EmulatedAccount
) -> None:
    """The CLI asks STS who it is, and says in its own words that it could not find out."""
    wrong = replace(emulated, access_key_id="AKIAWRONG")
    with pytest.raises(DeploymentFailed, match="Need to perform AWS calls for account"):
        toolchain.bootstrap(wrong, lambda _: None)
