"""The embedded cloud refuses for the reasons AWS would, and names the rule."""

from __future__ import annotations

import json

import pytest
from botocore.exceptions import ClientError
from e2e.conftest import Cloud
from e2e.holdout import holdout

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("e2e")]


def test_an_unknown_endpoint_is_refused_in_sagemakers_words(cloud: Cloud) -> None:
    runtime = cloud.boto3("sagemaker-runtime")
    with pytest.raises(ClientError) as refusal:
        runtime.invoke_endpoint(EndpointName="nobody", Body=b"{}", ContentType="application/json")
    error = refusal.value.response["Error"]
    assert error["Code"] == "ValidationError"
    assert error["Message"] == f"Endpoint nobody of account {cloud.status().account} not found."


def test_boto3_invokes_the_endpoint_directly(cloud: Cloud) -> None:
    held_out = holdout("churn")
    endpoint = cloud.workload("churn-managed", "sagemaker-endpoint").name
    answer = cloud.boto3("sagemaker-runtime").invoke_endpoint(
        EndpointName=endpoint, Body=json.dumps(held_out.body), ContentType="application/json"
    )
    direct = json.loads(answer["Body"].read())
    through_the_api = json.loads(cloud.predict("churn", "managed", held_out.body).body)
    assert direct == through_the_api
