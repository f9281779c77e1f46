"""What stays of a deleted stack."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from modelstacks.core.leftovers import leftovers

SNAPSHOTS = Path(__file__).parents[1] / "stacks" / "snapshots"


@pytest.mark.parametrize(
    ("stack", "kinds"),
    [
        (
            "churn-self-hosted",
            [
                "AWS::ApiGateway::Account",
                "AWS::ECS::Cluster",
                "AWS::IAM::Role",
                "AWS::KMS::Key",
                "AWS::S3::Bucket",
            ],
        ),
        ("churn-managed", ["AWS::ApiGateway::Account", "AWS::IAM::Role", "AWS::KMS::Key"]),
    ],
)
def test_everything_that_a_template_keeps_is_named(stack: str, kinds: list[str]) -> None:
    template = json.loads((SNAPSHOTS / f"{stack}.json").read_text())
    found = leftovers(template)
    resources = template["Resources"]
    assert sorted({resources[one.logical_id]["Type"] for one in found}) == kinds
    kept = {name for name, resource in resources.items() if resource.get("DeletionPolicy") == "Retain"}
    policies = {name for name in kept if resources[name]["Type"] == "AWS::S3::BucketPolicy"}
    assert kept - policies <= {one.logical_id for one in found}, "a policy goes with its bucket"


def test_a_command_names_the_resource_of_the_account() -> None:
    template = {"Resources": {"Logs": {"Type": "AWS::S3::Bucket", "DeletionPolicy": "Retain"}}}
    [bucket] = leftovers(template, {"Logs": "churn-logs-1x2y"})
    assert bucket.remove == "aws s3 rb --force s3://churn-logs-1x2y"


def test_what_is_deleted_is_not_named() -> None:
    assert leftovers({"Resources": {"Bucket": {"Type": "AWS::S3::Bucket"}}}) == []
