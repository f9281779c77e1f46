"""Deploys the spec into the embedded cloud, an AWS account in moto on this machine, and calls its API.

Needs no AWS account, no Docker and no GPU: the CDK CLI deploys the same template that AWS would get.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest

PROJECT = Path(__file__).resolve().parents[1]
MODEL = PROJECT / "models" / "churn"


def modelstacks(*arguments: str) -> str:
    command = [sys.executable, "-m", "modelstacks", *arguments]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module", autouse=True)
def deployment() -> Iterator[dict[str, str]]:
    (deployed,) = json.loads(modelstacks("up", "churn", "--detach", "--json"))["deployments"]
    yield deployed
    modelstacks("down")


def test_the_stack_is_complete(deployment: dict[str, str]) -> None:
    account = json.loads(modelstacks("env", "--json"))["environment"]
    cloudformation = boto3.client(
        "cloudformation",
        endpoint_url=account["AWS_ENDPOINT_URL"],
        region_name=account["AWS_REGION"],
        aws_access_key_id=account["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=account["AWS_SECRET_ACCESS_KEY"],
    )
    (stack,) = cloudformation.describe_stacks(StackName=deployment["stack"])["Stacks"]
    assert stack["StackStatus"] == "CREATE_COMPLETE"
    assert "ApiUrl" in {output["OutputKey"] for output in stack["Outputs"]}


def test_the_api_answers_as_the_model_did_in_training() -> None:
    rows = str(MODEL / "holdout.csv")
    answer = json.loads(modelstacks("invoke", "churn", "--data", rows, "--accept", "application/json"))
    expected = json.loads((MODEL / "predictions.json").read_text())["predictions"]
    assert answer["predictions"] == [pytest.approx(row, abs=1e-5) for row in expected]


def test_the_api_keeps_the_contract() -> None:
    modelstacks("verify", "churn", "--no-overload")
