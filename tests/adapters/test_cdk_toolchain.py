"""The CDK CLI's surroundings and its words. The CLI here is a small program of ours, run by the real Node."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest

from modelstacks.adapters.cdk_events import ResourceEvent, resource_event
from modelstacks.adapters.cdk_toolchain import CdkToolchain, EmulatedAccount, stack_names
from modelstacks.core.errors import DeploymentFailed, EnvironmentFault

ACCOUNT = EmulatedAccount("http://localhost:4566", "AKIAUNIQUE", "secret")


def program(tmp_path: Path, body: str) -> CdkToolchain:
    """A toolchain whose CDK CLI is this JavaScript."""
    package = tmp_path / "project" / "node_modules" / "aws-cdk"
    (package / "bin").mkdir(parents=True)
    (package / "package.json").write_text('{"name": "aws-cdk", "version": "2.1148.1"}')
    (package / "bin" / "cdk").write_text(body)
    state = tmp_path / "project" / ".modelstacks"
    return CdkToolchain(tmp_path / "project", state, state / "bin/docker", state / "images")


def told(tmp_path: Path) -> dict[str, object]:
    """What the program wrote down of how it was called."""
    found: dict[str, object] = json.loads((tmp_path / "project" / "told.json").read_text())
    return found


REPORT = """
const fs = require("fs"), path = require("path");
const project = path.join(__dirname, "../../..");
fs.writeFileSync(path.join(project, "told.json"),
  JSON.stringify({args: process.argv.slice(2), env: process.env, cwd: fs.realpathSync(process.cwd())}));
"""


@pytest.mark.parametrize(
    ("line", "event"),
    [
        (
            "churn | 41/42 | 3:31:12 AM | CREATE_COMPLETE      | AWS::IAM::Role      | Api/Role (ApiRole12) ",
            ResourceEvent("churn", "CREATE_COMPLETE", "AWS::IAM::Role", "ApiRole12", "", 41, 42),
        ),
        (
            "churn | 3:31:12 AM | UPDATE_FAILED | AWS::ECS::Service | Service (Service9) it did not settle",
            ResourceEvent("churn", "UPDATE_FAILED", "AWS::ECS::Service", "Service9", "it did not settle"),
        ),
        (
            "churn |  28 | 3:34:13 AM | DELETE_SKIPPED | AWS::KMS::Key | Key",
            ResourceEvent("churn", "DELETE_SKIPPED", "AWS::KMS::Key", "Key", "", 28),
        ),
        ("churn: creating CloudFormation changeset...", None),
        ("", None),
    ],
)
def test_a_line_of_progress_is_an_event(line: str, event: ResourceEvent | None) -> None:
    assert resource_event(line) == event


def test_a_consequence_is_no_failure_of_its_own() -> None:
    assert ResourceEvent("s", "CREATE_FAILED", "T", "A", "no such role").failed
    assert not ResourceEvent("s", "CREATE_FAILED", "T", "B", "Resource creation cancelled").failed
    assert not ResourceEvent("s", "CREATE_COMPLETE", "T", "C").failed


def test_the_embedded_account_is_the_only_one_that_the_cli_sees(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "production")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "somebody's")
    monkeypatch.setenv("CDK_DOCKER", "/usr/bin/docker")
    toolchain = program(tmp_path, REPORT)
    toolchain.deploy(tmp_path / "out", ACCOUNT, lambda _: None)
    environment = told(tmp_path)["env"]
    assert isinstance(environment, dict)
    assert environment["AWS_ENDPOINT_URL"] == environment["AWS_ENDPOINT_URL_S3"] == "http://localhost:4566"
    assert environment["AWS_ACCESS_KEY_ID"] == "AKIAUNIQUE"
    assert environment["CDK_DOCKER"] == str(toolchain.docker)
    assert Path(environment["CDK_HOME"]).is_relative_to(toolchain.state)
    assert not {"AWS_PROFILE", "AWS_SESSION_TOKEN"} & set(environment)
    assert toolchain.environment(ACCOUNT).items() <= environment.items()


def test_no_proxy_and_no_profile_is_between_the_cli_and_the_account(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.example:3128")
    monkeypatch.setenv("AWS_PROFILE", "work")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "token")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("NO_PROXY", "example.com")
    toolchain = program(tmp_path, REPORT)
    toolchain.deploy(tmp_path / "out", ACCOUNT, lambda _: None)
    environment = told(tmp_path)["env"]
    assert isinstance(environment, dict)
    for name in ("NO_PROXY", "no_proxy"):
        assert environment[name] == "example.com,localhost,.localhost,127.0.0.1,::1"
    assert environment["HTTP_PROXY"] == "http://proxy.example:3128"  # an image's build may need it
    assert environment["AWS_CONFIG_FILE"] == environment["AWS_SHARED_CREDENTIALS_FILE"] == os.devnull
    assert not {"AWS_PROFILE", "AWS_SESSION_TOKEN"} & environment.keys()


def test_a_deploy_runs_where_its_assets_are_made_and_a_bootstrap_where_no_app_is(tmp_path: Path) -> None:
    toolchain = program(tmp_path, REPORT)
    toolchain.deploy(tmp_path / "out", ACCOUNT, lambda _: None)
    assert told(tmp_path)["cwd"] == str(toolchain.project.resolve())
    toolchain.bootstrap(ACCOUNT, lambda _: None)
    assert told(tmp_path)["cwd"] == str(toolchain.state.resolve())
    assert told(tmp_path)["args"][:2] == ["bootstrap", "aws://123456789012/us-east-1"]  # type: ignore[index]


def test_synth_passes_the_context_on_and_names_the_stacks(tmp_path: Path) -> None:
    output = tmp_path / "out"
    output.mkdir()
    stack = {"type": "aws:cloudformation:stack", "properties": {"stackName": "churn-managed"}}
    manifest = {"artifacts": {"churn-managed.assets": {"type": "cdk:asset-manifest"}, "A": stack}}
    (output / "manifest.json").write_text(json.dumps(manifest))
    toolchain = program(tmp_path, REPORT)
    names = toolchain.synth({"deployment": "a.yaml", "architecture": "both"}, output, lambda _: None)
    assert names == ("churn-managed",)
    words = " ".join(told(tmp_path)["args"])  # type: ignore[arg-type]
    assert "--context deployment=a.yaml --context architecture=both" in words


def test_a_folder_without_an_assembly_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DeploymentFailed, match="contains no cloud assembly"):
        stack_names(tmp_path)


EVENTS = """
console.error("s: start: Building Image");
console.error("s | 1/3 | 3:31:12 AM | CREATE_IN_PROGRESS | AWS::IAM::Role | Role (Role1) ");
console.error("s | 1/3 | 3:31:12 AM | CREATE_FAILED | AWS::KMS::Key | Key (Key1) it locks us out");
console.error("s | 1/3 | 3:31:12 AM | CREATE_FAILED | AWS::IAM::Role | R (R1) Resource creation cancelled");
console.error("\\u274c  s failed: and much more");
process.exit(1);
"""


def test_progress_is_told_as_it_happens_and_a_failure_by_its_first_cause(tmp_path: Path) -> None:
    notes: list[str] = []
    events: list[ResourceEvent] = []
    toolchain = program(tmp_path, EVENTS)
    with pytest.raises(DeploymentFailed) as failure:
        toolchain.deploy(tmp_path / "out", ACCOUNT, notes.append, on_event=events.append)
    assert str(failure.value) == "cdk deploy failed: s: AWS::KMS::Key (Key1): it locks us out"
    assert [event.status for event in events] == ["CREATE_IN_PROGRESS", "CREATE_FAILED", "CREATE_FAILED"]
    assert notes[:2] == ["s Building Image", "s 1/3 create in progress AWS::IAM::Role Role1"]


def test_an_asset_that_cannot_be_made_is_the_cause(tmp_path: Path) -> None:
    body = 'console.log("s: fail: package ended with code 3: no lock file"); process.exit(1);'
    with pytest.raises(
        DeploymentFailed, match="cdk deploy failed: s: package ended with code 3: no lock file"
    ):
        program(tmp_path, body).deploy(tmp_path / "out", ACCOUNT, lambda _: None)


def test_a_failure_without_events_carries_the_last_words(tmp_path: Path) -> None:
    body = 'console.error("app.py: no such spec"); process.exit(2);'
    with pytest.raises(DeploymentFailed, match=r"cdk synth ended with exit code 2: app\.py: no such spec"):
        program(tmp_path, body).synth({}, tmp_path / "out", lambda _: None)


def test_stopping_ends_the_program_and_the_call(tmp_path: Path) -> None:
    toolchain = program(tmp_path, 'console.log("s: start: Waiting"); setInterval(() => {}, 1000);')
    started = threading.Event()
    failures: list[BaseException] = []

    def deploy() -> None:
        try:
            toolchain.deploy(tmp_path / "out", ACCOUNT, lambda _: started.set())
        except DeploymentFailed as error:
            failures.append(error)

    thread = threading.Thread(target=deploy)
    thread.start()
    assert started.wait(30)
    toolchain.stop()
    thread.join(30)
    assert [str(error) for error in failures] == ["cdk deploy was stopped"]


def test_a_missing_cli_says_how_to_install_it(tmp_path: Path) -> None:
    toolchain = CdkToolchain(tmp_path, tmp_path / "state", tmp_path / "docker", tmp_path / "images")
    with pytest.raises(EnvironmentFault, match="the CDK CLI is not installed"):
        toolchain.cli()


def test_an_old_node_on_the_path_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = tmp_path / "node"
    old.write_text("#!/bin/sh\necho v20.9.0\n")
    old.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert int(program(tmp_path, "").node().version.lstrip("v").split(".")[0]) >= 22
