"""From a REST API over Lambda and an interface endpoint to SageMaker: what passes, what is refused, why."""

from __future__ import annotations

import concurrent.futures
import json
import socket
from typing import Any

import boto3
import httpx
import pytest
from botocore.exceptions import ClientError

from modelstacks.cloud import api
from modelstacks.cloud.services.lambda_ import runtime as lambda_
from modelstacks.cloud.services.lambda_.runtime import Functions
from modelstacks.cloud.services.sagemaker.runtime import Endpoints


def post(cloud: Any, body: str, path: str = "/anything", **headers: str) -> httpx.Response:
    with cloud.http("managed") as http:
        return http.post(path, content=body, headers={"content-type": "text/plain", **headers})


@pytest.fixture
def runtime(cloud: Any, managed: dict[str, str]) -> Any:
    del managed
    return cloud.client("sagemaker-runtime")


@pytest.mark.usefixtures("managed")
class TestTheLambda:
    def test_gets_the_proxy_event(self, cloud: Any) -> None:
        with cloud.http("managed") as http:
            seen = http.put("/v2/models/churn?x=1&x=2", content=b"body", headers={"x-a": "1"}).json()
        event = seen["event"]
        assert (event["httpMethod"], event["path"], event["resource"]) == (
            "PUT",
            "/v2/models/churn",
            "/{proxy+}",
        )
        assert event["pathParameters"] == {"proxy": "v2/models/churn"}
        assert event["queryStringParameters"] == {"x": "2"}
        assert event["multiValueQueryStringParameters"] == {"x": ["1", "2"]}
        assert (event["body"], event["isBase64Encoded"]) == ("body", False)
        assert event["headers"]["x-a"] == "1"
        assert event["requestContext"]["path"] == "/live/v2/models/churn"
        assert event["requestContext"]["stage"] == "live"

    def test_gets_binary_types_as_base64_and_answers_with_them(self, cloud: Any) -> None:
        with cloud.http("managed") as http:
            seen = http.post("/x", content=b"\x00\xff", headers={"content-type": "image/png"}).json()
            answer = http.post("/x", content="binary", headers={"accept": "image/png"})
        assert (seen["event"]["body"], seen["event"]["isBase64Encoded"]) == ("AP8=", True)
        assert (answer.content, answer.headers["content-type"]) == (b"\x89PNG", "image/png")

    def test_sees_no_file_of_the_account_and_reaches_no_other_port(self, cloud: Any) -> None:
        if cloud.plane.context.registry.sandbox.kind == "none":
            pytest.skip("this machine has no sandbox")
        secret = cloud.state.root / "secret"
        secret.write_text("the account's keys")
        with socket.create_server(("127.0.0.1", 0)) as elsewhere:
            found = post(cloud, f"look {secret} {elsewhere.getsockname()[1]}").json()
        assert set(found) == {"file", "port", "datagrams"}
        assert not [what for what, came_of_it in found.items() if came_of_it == "done"]

    def test_runs_the_deployed_zip_with_the_functions_environment_and_deadline(self, cloud: Any) -> None:
        seen = post(cloud, "").json()
        assert seen["function"] == cloud.workload("managed", "lambda-function").name
        assert 0 < seen["remaining"] <= 3000
        assert {"GREETING", "AWS_LAMBDA_FUNCTION_NAME", "AWS_SESSION_TOKEN"} <= set(seen["environment"])
        assert "VIRTUAL_ENV" not in seen["environment"]

    def test_stays_warm(self, cloud: Any) -> None:
        assert post(cloud, "").json()["calls"] < post(cloud, "").json()["calls"]

    @pytest.mark.parametrize(
        ("order", "status", "reason"),
        [
            ("raise", 502, "the handler raised"),
            ("malformed", 502, "malformed Lambda proxy response"),
            ("crash", 502, "Runtime exited with error: exit status 7"),
            ("sleep", 502, "Task timed out after 3.00 seconds"),
        ],
    )
    def test_fails_as_lambda_fails(self, cloud: Any, order: str, status: int, reason: str) -> None:
        answer = post(cloud, order)
        assert (answer.status_code, answer.json()["message"]) == (status, "Internal server error")
        assert reason in answer.json()["reason"]
        assert post(cloud, "").status_code == 200

    def test_that_cannot_be_imported_says_so(self, cloud: Any, managed: dict[str, str]) -> None:
        client = cloud.client("lambda")
        client.update_function_configuration(FunctionName=managed["Function"], Handler="nowhere.handler")
        cloud.settle()
        try:
            answer = post(cloud, "")
        finally:
            client.update_function_configuration(FunctionName=managed["Function"], Handler="handler.handler")
            cloud.settle()
        assert answer.status_code == 502
        assert "Unable to import module 'nowhere'" in answer.json()["reason"]
        assert post(cloud, "").status_code == 200

    def test_starts_cold_under_a_burst(self, cloud: Any, managed: dict[str, str]) -> None:
        cloud.client("lambda").update_function_configuration(FunctionName=managed["Function"], MemorySize=512)
        cloud.plane.runtimes[Functions].packages.forget()
        cloud.settle()
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            answers = list(pool.map(lambda _: post(cloud, ""), range(2)))
        assert [one.status_code for one in answers] == [200, 200]

    def test_is_invoked_by_boto3_too(self, cloud: Any, managed: dict[str, str]) -> None:
        client = cloud.client("lambda")
        answer = client.invoke(FunctionName=managed["Function"], Payload=json.dumps({"body": "raise"}))
        assert answer["FunctionError"] == "Unhandled"
        assert json.loads(answer["Payload"].read())["errorMessage"] == "the handler raised"
        assert "FunctionError" not in client.invoke(FunctionName=managed["Function"], Payload=b"{}")
        with pytest.raises(client.exceptions.ResourceNotFoundException):
            client.invoke(FunctionName="nobody")

    def test_is_throttled_beyond_its_reserved_concurrency(self, cloud: Any) -> None:
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(lambda _: post(cloud, "sleep"), range(4)))
        throttled = [one for one in answers if one.status_code == 500]
        assert len(throttled) == 2
        assert all("reserved concurrency" in one.json()["reason"] for one in throttled)

    def test_is_throttled_beyond_the_accounts_concurrency_and_never_waits(
        self, cloud: Any, managed: dict[str, str]
    ) -> None:
        client = cloud.client("lambda")
        client.delete_function_concurrency(FunctionName=managed["Function"])
        cloud.settle()
        state = cloud.plane.runtimes[Functions]._functions[managed["Function"]]
        state.running += lambda_.MOST_ENVIRONMENTS
        try:
            refused = post(cloud, "")
        finally:
            state.running -= lambda_.MOST_ENVIRONMENTS
            client.put_function_concurrency(FunctionName=managed["Function"], ReservedConcurrentExecutions=2)
            cloud.settle()
        assert refused.status_code == 500
        assert "the account's concurrency is used up" in refused.json()["reason"]

    def test_never_runs_where_nothing_is_reserved_for_it(self, cloud: Any, managed: dict[str, str]) -> None:
        client, name = cloud.client("lambda"), managed["Function"]
        before = client.get_function_concurrency(FunctionName=name)["ReservedConcurrentExecutions"]
        client.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=0)
        cloud.settle()
        try:
            assert client.get_function(FunctionName=name)["Concurrency"]["ReservedConcurrentExecutions"] == 0
            answer = post(cloud, "")
            with pytest.raises(client.exceptions.TooManyRequestsException):
                client.invoke(FunctionName=name, Payload=b"{}")
        finally:
            client.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=before)
            cloud.settle()
        assert "reserved concurrency" in answer.json()["reason"]
        assert post(cloud, "").status_code == 200

    def test_needs_a_permission_for_api_gateway(self, cloud: Any, managed: dict[str, str]) -> None:
        client = cloud.client("lambda")
        policy = json.loads(client.get_policy(FunctionName=managed["Function"])["Policy"])
        statement = policy["Statement"][0]
        client.remove_permission(FunctionName=managed["Function"], StatementId=statement["Sid"])
        cloud.settle()
        try:
            answer = post(cloud, "")
        finally:
            client.add_permission(
                FunctionName=managed["Function"],
                StatementId="again",
                Action="lambda:InvokeFunction",
                Principal="apigateway.amazonaws.com",
                SourceArn=statement["Condition"]["ArnLike"]["AWS:SourceArn"],
            )
            cloud.settle()
        assert answer.status_code == 500
        assert "lets apigateway.amazonaws.com invoke it" in answer.json()["reason"]
        assert post(cloud, "").status_code == 200


@pytest.mark.usefixtures("managed")
class TestTheWayToTheEndpoint:
    def test_leads_through_the_interface_endpoint(self, cloud: Any) -> None:
        answer = post(cloud, "invoke managed")
        assert answer.status_code == 200, answer.text
        assert answer.json()["greeting"] == "managed"

    def test_is_closed_without_the_security_groups_rule(self, cloud: Any, managed: dict[str, str]) -> None:
        ec2 = cloud.client("ec2")
        pairs = [{"GroupId": managed["CallerGroup"]}]
        rule = {"IpProtocol": "tcp", "FromPort": 443, "ToPort": 443, "UserIdGroupPairs": pairs}
        change = {"GroupId": managed["EndpointGroup"], "IpPermissions": [rule]}
        ec2.revoke_security_group_ingress(**change)
        cloud.settle()
        try:
            answer = post(cloud, "invoke managed")
        finally:
            ec2.authorize_security_group_ingress(**change)
            cloud.settle()
        assert answer.status_code == 502
        assert "has no ingress rule for tcp 443 from lambda" in answer.headers["x-modelstacks-reason"]

    def test_is_closed_without_the_interface_endpoint(self, cloud: Any, managed: dict[str, str]) -> None:
        ec2 = cloud.client("ec2")
        endpoint = ec2.describe_vpc_endpoints(VpcEndpointIds=[managed["Runtime"]])["VpcEndpoints"][0]
        ec2.delete_vpc_endpoints(VpcEndpointIds=[managed["Runtime"]])
        cloud.settle()
        try:
            answer = post(cloud, "invoke managed")
        finally:
            ec2.create_vpc_endpoint(
                VpcId=endpoint["VpcId"],
                ServiceName=endpoint["ServiceName"],
                VpcEndpointType="Interface",
                PrivateDnsEnabled=True,
                SubnetIds=endpoint["SubnetIds"],
                SecurityGroupIds=[managed["EndpointGroup"]],
            )
            cloud.settle()
        assert "no route to sagemaker.runtime" in answer.headers["x-modelstacks-reason"]
        assert post(cloud, "invoke managed").status_code == 200

    def test_is_closed_to_a_role_without_the_permission(self, cloud: Any, managed: dict[str, str]) -> None:
        iam = cloud.client("iam")
        role = {"RoleName": managed["FunctionRole"], "PolicyName": "invoke"}
        document = iam.get_role_policy(**role)["PolicyDocument"]
        rest = {**document, "Statement": document["Statement"][1:]}
        iam.put_role_policy(**role, PolicyDocument=json.dumps(rest))
        cloud.settle()
        try:
            answer = post(cloud, "invoke managed")
        finally:
            iam.put_role_policy(**role, PolicyDocument=json.dumps(document))
            cloud.settle()
        reason = "is not authorized to perform: sagemaker:InvokeEndpoint"
        assert reason in answer.headers["x-modelstacks-reason"]

    def test_names_no_reason_where_nothing_was_refused(self, cloud: Any) -> None:
        assert "x-modelstacks-reason" not in post(cloud, "invoke managed").headers

    def test_ends_at_an_unknown_endpoint_as_aws_says(self, cloud: Any) -> None:
        assert "not authorized to perform: sagemaker:InvokeEndpoint" in post(cloud, "invoke other").text


class TestTheRuntimeApi:
    def test_boto3_invokes_the_endpoint(self, runtime: Any) -> None:
        answer = runtime.invoke_endpoint(
            EndpointName="managed",
            Body=b'{"a": 1}',
            ContentType="application/json",
            Accept="text/csv",
            CustomAttributes="modelstacks-route=GET /v2",
        )
        seen = json.loads(answer["Body"].read())
        assert (seen["method"], seen["path"], seen["body"]) == ("POST", "/invocations", '{"a": 1}')
        assert seen["headers"]["accept"] == "text/csv"
        assert answer["CustomAttributes"] == "modelstacks-route=GET /v2"
        assert answer["InvokedProductionVariant"] == "main"
        assert seen["model"] == ["model.json"]

    def test_an_unknown_endpoint(self, runtime: Any) -> None:
        with pytest.raises(ClientError) as caught:
            runtime.invoke_endpoint(EndpointName="nobody", Body=b"{}")
        assert caught.value.response["Error"] == {
            "Code": "ValidationError",
            "Message": "Endpoint nobody of account 123456789012 not found.",
        }

    def test_an_unknown_variant(self, runtime: Any) -> None:
        with pytest.raises(ClientError, match="Variant shadow not found"):
            runtime.invoke_endpoint(EndpointName="managed", Body=b"{}", TargetVariant="shadow")

    def test_the_models_own_error(self, runtime: Any) -> None:
        with pytest.raises(runtime.exceptions.ModelError) as caught:
            runtime.invoke_endpoint(EndpointName="managed", Body=b"wrong")
        assert caught.value.response["OriginalStatusCode"] == 400
        assert caught.value.response["OriginalMessage"] == '{"detail": "the model does not like it"}'
        assert caught.value.response["Error"]["Message"].startswith(
            'Received client error (400) from primary with message "{"detail": "the model does'
        )

    def test_nothing_leaves_a_container_in_network_isolation(self, cloud: Any, runtime: Any) -> None:
        del runtime
        active = cloud.plane.runtimes[Endpoints]._endpoints["managed"].workload.active
        gateway = active.maker.gateway("main")
        issued = gateway.credentials
        client = boto3.client(
            "s3",
            endpoint_url=gateway.url,
            region_name="us-east-1",
            aws_access_key_id=issued.access_key_id,
            aws_secret_access_key=issued.secret_access_key,
            aws_session_token=issued.session_token,
        )
        with pytest.raises(ClientError, match="network isolation"):
            client.get_object(Bucket="artifacts", Key="models/model")

    def test_a_killed_instance_is_replaced(self, cloud: Any, runtime: Any) -> None:
        def instances() -> tuple[api.Replica, ...]:
            replicas: tuple[api.Replica, ...] = cloud.workload("managed", "sagemaker-endpoint").replicas
            return replicas

        victim = instances()[0]
        cloud.plane.inject(api.KillReplica(replica=victim.id))
        cloud.until(
            lambda: (
                victim.id not in {one.id for one in instances()}
                and sum(one.state == "healthy" for one in instances()) == 2
            )
        )
        assert runtime.invoke_endpoint(EndpointName="managed", Body=b"{}")["Body"].read()


@pytest.mark.parametrize(
    ("parameter", "value", "reason"),
    [
        ("Bucket", "elsewhere", "could not find model data"),
        ("ServerPort", "9000", "SageMaker calls port 8080, the container listens on 9000"),
        (
            "Image",
            "example/unprivileged:1",
            "has USER 1000:1000, and SageMaker runs hosting containers as root",
        ),
    ],
)
def test_an_endpoint_that_cannot_start_says_why(cloud: Any, parameter: str, value: str, reason: str) -> None:
    cloud.client("s3").create_bucket(Bucket="elsewhere")
    code = cloud.client("s3").get_object(Bucket="artifacts", Key="code/handler.zip")["Body"].read()
    cloud.client("s3").put_object(Bucket="elsewhere", Key="code/handler.zip", Body=code)
    reasons = cloud.fail("sick", "managed.yaml", **{parameter: value})
    assert cloud.status("sick") == "ROLLBACK_COMPLETE"
    cloud.delete("sick")
    assert reason in reasons["Endpoint"]


@pytest.mark.usefixtures("managed")
def test_the_sagemaker_sdk_reads_an_endpoint_that_captures_no_data(
    cloud: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its resource classes refuse an empty DataCaptureConfig; SageMaker leaves it out."""
    resources = pytest.importorskip("sagemaker.core.resources")
    monkeypatch.setenv("AWS_ENDPOINT_URL", cloud.endpoint_url)
    session = boto3.Session(
        aws_access_key_id=cloud.credentials.access_key_id,
        aws_secret_access_key=cloud.credentials.secret_access_key,
        region_name="us-east-1",
    )
    endpoint = resources.Endpoint.get("managed", session=session, region="us-east-1")
    config = resources.EndpointConfig.get(endpoint.endpoint_config_name, session=session, region="us-east-1")
    assert endpoint.endpoint_status == "InService"
    assert [variant.variant_name for variant in config.production_variants] == ["main"]
