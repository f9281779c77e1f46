"""A permission for one route opens that route: no header and no path leads from it to another."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

import pytest
from e2e.conftest import ARCHITECTURES, Cloud
from e2e.holdout import holdout

from modelstacks.adapters.deployed_api import Answer, DeployedApi, Signer
from modelstacks.core.contract import CUSTOM_ATTRIBUTES_HEADER, ROUTE_ATTRIBUTE

pytestmark = [pytest.mark.e2e, pytest.mark.parametrize("architecture", ARCHITECTURES)]

DEPLOYMENT = "breast-cancer"  # its callers sign
ROLE = "asks-one-route"
JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def role(cloud: Cloud) -> Iterator[Signer]:
    """A caller that may POST /invocations on every API, and nothing else."""
    iam, status = cloud.boto3("iam"), cloud.status()
    anyone = {"Effect": "Allow", "Principal": {"AWS": f"arn:aws:iam::{status.account}:root"}}
    trust = {"Version": "2012-10-17", "Statement": [anyone | {"Action": "sts:AssumeRole"}]}
    may = {
        "Effect": "Allow",
        "Action": "execute-api:Invoke",
        "Resource": f"arn:aws:execute-api:{status.region}:{status.account}:*/live/POST/invocations",
    }
    made = iam.create_role(RoleName=ROLE, AssumeRolePolicyDocument=json.dumps(trust))["Role"]
    policy = {"Version": "2012-10-17", "Statement": [may]}
    iam.put_role_policy(RoleName=ROLE, PolicyName="one-route", PolicyDocument=json.dumps(policy))
    try:
        for _ in cloud.session.reconcile():
            pass
        given = cloud.boto3("sts").assume_role(RoleArn=made["Arn"], RoleSessionName="test")["Credentials"]
        yield Signer(given["AccessKeyId"], given["SecretAccessKey"], status.region, given["SessionToken"])
    finally:
        iam.delete_role_policy(RoleName=ROLE, PolicyName="one-route")
        iam.delete_role(RoleName=ROLE)
        for _ in cloud.session.reconcile():
            pass


def ask(
    cloud: Cloud, role: Signer, architecture: str, method: str, path: str, headers: Mapping[str, str] = JSON
) -> Answer:
    api = DeployedApi(cloud.api(DEPLOYMENT, architecture).url, signer=role)
    body = json.dumps(holdout(DEPLOYMENT).body).encode() if method == "POST" else None
    return api.send(method, path, body=body, headers=headers)


def test_the_route_that_is_allowed_answers(cloud: Cloud, role: Signer, architecture: str) -> None:
    assert ask(cloud, role, architecture, "POST", "/invocations").status == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/ping"),
        ("GET", "/v2"),
        ("GET", f"/v2/models/{DEPLOYMENT}"),
        ("POST", f"/v2/models/{DEPLOYMENT}/infer"),
        ("GET", "/openapi.json"),
    ],
)
def test_every_other_route_is_refused(
    cloud: Cloud, role: Signer, architecture: str, method: str, path: str
) -> None:
    answer = ask(cloud, role, architecture, method, path)
    assert answer.status == 403
    assert "execute-api:Invoke" in answer.headers["x-modelstacks-reason"]


@pytest.mark.parametrize("route", [f"POST /v2/models/{DEPLOYMENT}/infer", "GET /openapi.json", "GET /v2"])
def test_a_header_does_not_lead_to_another_route(
    cloud: Cloud, role: Signer, architecture: str, route: str
) -> None:
    plain = ask(cloud, role, architecture, "POST", "/invocations")
    headers = JSON | {CUSTOM_ATTRIBUTES_HEADER: f"{ROUTE_ATTRIBUTE}={route}"}
    assert ask(cloud, role, architecture, "POST", "/invocations", headers).body == plain.body
