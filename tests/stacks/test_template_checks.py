"""cfn-lint, cdk-nag and the snapshots: the checks that look at a template as a whole."""

from __future__ import annotations

import difflib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.cdk import CONTEXT, PROJECT, use_own_node
from support.plans import make

CFN_LINT = str(Path(sys.executable).with_name("cfn-lint"))
SNAPSHOTS = Path(__file__).parent / "snapshots"
UPDATE = "UPDATE_SNAPSHOTS=1 .venv/bin/pytest tests/stacks/test_template_checks.py"


def test_cfn_lint_finds_nothing(assembly: Path) -> None:
    templates = sorted(map(str, assembly.glob("*.template.json")))
    assert len(templates) == 2
    linted = subprocess.run(
        [CFN_LINT, "--regions", "us-east-1", "eu-west-1", "--", *templates],
        capture_output=True,
        text=True,
        check=False,
    )
    assert linted.stdout + linted.stderr == ""
    assert linted.returncode == 0


def test_cfn_lint_would_have_found_a_fault(assembly: Path, tmp_path: Path) -> None:
    template = json.loads((assembly / "churn-managed.template.json").read_text())
    template["Resources"]["Endpoint"]["Properties"]["EndpointConfigName"] = {"Ref": "Nobody"}
    broken = tmp_path / "broken.template.json"
    broken.write_text(json.dumps(template))
    linted = subprocess.run([CFN_LINT, str(broken)], capture_output=True, text=True, check=False)
    assert "Nobody" in linted.stdout
    assert linted.returncode != 0


@pytest.fixture(scope="module")
def nagged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Assembly and report of both architectures, IAM auth too, and a canary: a bucket that is wide open."""
    use_own_node()
    from aws_cdk import Stack, Validations
    from aws_cdk import aws_s3 as s3
    from cdk_nag import AwsSolutionsChecks
    from modelstacks.cdk.synth import build_app

    from modelstacks.core.spec import Api
    from modelstacks.targets.sagemaker_endpoint import SagemakerEndpoint

    directory = tmp_path_factory.mktemp("nag")
    plans = [
        make("self-hosted"),
        make("managed"),
        make("self-hosted", name="iam", api=Api(auth="iam")),
        make("managed", name="nvme", managed=SagemakerEndpoint(instance_type="ml.g5.xlarge")),
    ]
    app = build_app(plans, outdir=str(directory), context=CONTEXT)
    s3.CfnBucket(Stack(app, "canary"), "Open")
    Validations.of(app).add_plugins(AwsSolutionsChecks(app))
    with pytest.raises(RuntimeError, match=r"Validation ?[Ff]ailed"):
        app.synth()
    report: dict[str, Any] = json.loads((directory / "validation-report.json").read_text())
    [pack] = [each for each in report["pluginReports"] if each["pluginName"] == "AwsSolutions"]
    return directory, pack


def test_cdk_nag_objects_to_the_canary_and_to_nothing_of_ours(nagged: tuple[Path, dict[str, Any]]) -> None:
    _, pack = nagged
    found = {
        (violation["ruleName"], construct["constructPath"])
        for violation in pack["violations"]
        for construct in violation["violatingConstructs"]
    }
    assert ("AwsSolutions-S1", "canary/Open") in found
    assert {path for _, path in found} == {"canary/Open"}


def test_every_acknowledgement_has_a_finding_and_a_reason(nagged: tuple[Path, dict[str, Any]]) -> None:
    directory, pack = nagged
    used = {(each["acknowledgedAt"], each["acknowledgedId"]) for each in pack["suppressedViolations"]}
    given = {
        (path.lstrip("/"), rule): reason
        for file in directory.glob("*.metadata.json")
        for path, entries in json.loads(file.read_text()).items()
        for entry in entries
        if entry["type"] == "aws:cdk:acknowledged-rules"
        for rule, reason in entry["data"].items()
    }
    assert set(given) == used
    assert all(len(reason) > 20 for reason in given.values())


def normalised(template: Path) -> str:
    """A template without the digests of assets: they change with every line of serving/ and lambda/."""
    text = re.sub(r"[0-9a-f]{64}", "<digest>", template.read_text())
    return json.dumps(json.loads(text), indent=1, sort_keys=True) + "\n"


@pytest.mark.parametrize("stack", ["churn-self-hosted", "churn-managed"])
def test_the_template_is_the_one_that_was_agreed_on(assembly: Path, stack: str) -> None:
    now = normalised(assembly / f"{stack}.template.json")
    snapshot = SNAPSHOTS / f"{stack}.json"
    if os.environ.get("UPDATE_SNAPSHOTS"):
        snapshot.parent.mkdir(exist_ok=True)
        snapshot.write_text(now)
    then = snapshot.read_text()
    changes = list(difflib.unified_diff(then.splitlines(), now.splitlines(), lineterm="", n=2))
    assert not changes, "\n".join([*changes[:60], f"if this is meant: {UPDATE}"])


SYNTHESIZE = """
import sys
sys.path[:0] = [{project!r}, {tests!r}]
from support.cdk import CONTEXT, use_own_node
use_own_node()
from support.plans import make
from modelstacks.cdk.synth import synthesize
synthesize([make("self-hosted"), make("managed")], outdir=sys.argv[1], context=CONTEXT)
"""


def test_synth_gives_the_same_bytes_in_another_process_and_another_folder(
    assembly: Path, tmp_path: Path
) -> None:
    script = SYNTHESIZE.format(project=str(PROJECT), tests=str(PROJECT / "tests"))
    quiet = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "CDK_"))}
    unreachable = "http://127.0.0.1:9"  # synth needs no network and no credentials
    subprocess.run(
        [sys.executable, "-O", "-c", script, str(tmp_path / "out")],
        cwd=tmp_path,
        env={
            **quiet,
            "PYTHONHASHSEED": "42",
            "HOME": str(tmp_path),
            "https_proxy": unreachable,
            "http_proxy": unreachable,
            "AWS_EC2_METADATA_DISABLED": "true",
            "TZ": "Asia/Tokyo",
        },
        check=True,
    )
    first = {path.relative_to(assembly): path for path in assembly.rglob("*") if path.is_file()}
    second = {
        path.relative_to(tmp_path / "out"): path for path in (tmp_path / "out").rglob("*") if path.is_file()
    }
    assert set(first) == set(second)
    assert [name for name in first if first[name].read_bytes() != second[name].read_bytes()] == []


def test_a_templates_size_leaves_room(assembly: Path) -> None:
    for template in assembly.glob("*.template.json"):
        document = json.loads(template.read_text())
        assert len(document["Resources"]) < 200, "CloudFormation takes 500 resources"
        assert template.stat().st_size < 500_000, "and a megabyte"
