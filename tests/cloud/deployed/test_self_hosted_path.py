"""From a REST API over a VPC link and a load balancer to tasks: what passes, and what is refused, and why."""

from __future__ import annotations

import concurrent.futures
from typing import Any

import httpx
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from modelstacks.cloud import api

JSON = {"content-type": "application/json"}


def post(cloud: Any, body: str = "{}", **headers: str) -> httpx.Response:
    with cloud.http("hosted") as http:
        return http.post("/invocations", content=body, headers={**JSON, **headers})


def tasks(cloud: Any) -> tuple[api.Replica, ...]:
    replicas: tuple[api.Replica, ...] = cloud.workload("hosted", "ecs-service").replicas
    return replicas


@pytest.mark.usefixtures("self_hosted")
class TestAnOrdinaryRequest:
    def test_reaches_a_task_without_the_stages_name(self, cloud: Any) -> None:
        answer = post(cloud, '{"a": 1}', **{"x-request-id": "r-1"})
        assert answer.status_code == 200, answer.text
        seen = answer.json()
        assert (seen["method"], seen["path"], seen["body"]) == ("POST", "/invocations", '{"a": 1}')
        assert seen["headers"]["x-request-id"] == "r-1"
        assert seen["headers"]["x-amzn-trace-id"] == answer.headers["x-amzn-trace-id"]
        assert seen["headers"]["x-forwarded-for"].startswith("127.0.0.1")

    @pytest.mark.parametrize("stage_in_path", [True, False])
    def test_arrives_whether_or_not_the_stage_is_sent(self, cloud: Any, stage_in_path: bool) -> None:
        cloud.plane.context.settings = api.Settings(stage_in_path=stage_in_path)
        try:
            assert post(cloud).json()["path"] == "/invocations"
        finally:
            cloud.plane.context.settings = api.Settings()

    def test_has_at_most_10240_bytes_of_request_line_and_header_values(self, cloud: Any) -> None:
        assert post(cloud, **{"x-long": "v" * 9_000}).status_code == 200
        assert post(cloud, **{"x-long": "v" * 10_240}).status_code == 431

    def test_is_for_this_machines_own_names(self, cloud: Any) -> None:
        answer = post(cloud, host="evil.example")
        assert (answer.status_code, answer.json()) == (403, {"message": "Forbidden"})

    def test_may_come_from_a_page_where_the_api_decides(self, cloud: Any) -> None:
        answer = post(cloud, origin="https://app.example")
        assert answer.status_code == 200
        assert "access-control-allow-origin" not in answer.headers

    def test_finds_the_api_as_it_was_deployed(self, cloud: Any) -> None:
        gateway = cloud.client("apigateway")
        [found] = [one for one in gateway.get_rest_apis()["items"] if one["name"] == "hosted"]
        existing = gateway.get_resources(restApiId=found["id"])["items"]
        paths = {one["path"]: one["id"] for one in existing}
        like = gateway.get_integration(
            restApiId=found["id"], resourceId=paths["/invocations"], httpMethod="POST"
        )
        new = gateway.create_resource(restApiId=found["id"], parentId=paths["/"], pathPart="later")["id"]
        method = {"restApiId": found["id"], "resourceId": new, "httpMethod": "GET"}

        def status() -> int:
            cloud.settle()
            with cloud.http("hosted") as http:
                return http.get("/later").status_code

        try:
            gateway.put_method(**method, authorizationType="NONE")
            gateway.put_integration(
                **method,
                type="HTTP_PROXY",
                integrationHttpMethod="GET",
                uri=like["uri"],
                connectionType="VPC_LINK",
                connectionId=like["connectionId"],
                integrationTarget=like["integrationTarget"],
            )
            assert status() == 403, "no deployment has it yet"
            gateway.create_deployment(restApiId=found["id"], stageName="live")
            assert status() != 403
        finally:
            gateway.delete_resource(restApiId=found["id"], resourceId=new)
        assert status() != 403, "the deployment still has it"
        gateway.create_deployment(restApiId=found["id"], stageName="live")
        assert status() == 403

    def test_has_awss_own_headers(self, cloud: Any) -> None:
        answer = post(cloud)
        assert answer.headers["x-amzn-requestid"]
        assert answer.headers["x-amz-apigw-id"]
        assert answer.headers["x-amzn-remapped-date"]

    def test_goes_to_the_tasks_in_turn(self, cloud: Any) -> None:
        assert len({post(cloud).json()["port"] for _ in range(4)}) == 2

    def test_finds_the_containers_environment_and_nothing_of_ours(self, cloud: Any) -> None:
        seen = post(cloud).json()
        assert seen["greeting"] == "hello"
        assert "VIRTUAL_ENV" not in seen["environment"]
        assert "AWS_ACCESS_KEY_ID" not in seen["environment"]
        assert "AWS_CONTAINER_CREDENTIALS_FULL_URI" in seen["environment"]

    def test_is_served_from_the_object_that_the_task_fetched(self, cloud: Any) -> None:
        assert post(cloud).json()["model"] == ["fetched"]

    def test_is_counted_at_every_hop(self, cloud: Any) -> None:
        before = cloud.plane.context.traffic.requests("api hosted")
        post(cloud)
        assert cloud.plane.context.traffic.requests("api hosted") == before + 1


@pytest.mark.usefixtures("self_hosted")
class TestTheApiAnswersAsAwsDoes:
    @pytest.mark.parametrize(
        ("path", "message", "kind"),
        [
            ("/../dev/invocations", "Forbidden", "ForbiddenException"),
            ("/nowhere", "Missing Authentication Token", "MissingAuthenticationTokenException"),
        ],
        ids=["unknown stage", "unknown route"],
    )
    def test_unknown_places(self, cloud: Any, path: str, message: str, kind: str) -> None:
        url = cloud.api("hosted").url.removesuffix("/live") + path.replace("/..", "")
        url = url if "/dev/" in path else cloud.api("hosted").url + path
        answer = httpx.post(url, headers=JSON, content="{}", trust_env=False)
        assert (answer.status_code, answer.json()) == (403, {"message": message})
        assert answer.headers["x-amzn-errortype"] == kind

    @pytest.mark.parametrize("key", ["", "wrong"])
    def test_a_missing_or_unknown_api_key(self, cloud: Any, key: str) -> None:
        answer = post(cloud, **{"x-api-key": key})
        assert (answer.status_code, answer.json()) == (403, {"message": "Forbidden"})

    def test_a_missing_required_header(self, cloud: Any) -> None:
        with cloud.http("hosted") as http:
            answer = http.post("/invocations", content=b"{}")
        assert answer.status_code == 400
        assert answer.json() == {"message": "Missing required request parameters: [Content-Type]"}

    def test_a_body_over_ten_megabytes(self, cloud: Any) -> None:
        answer = post(cloud, "x" * (10 * 1024 * 1024 + 1))
        assert (answer.status_code, answer.json()) == (413, {"message": "Request Too Long"})

    def test_an_integration_that_takes_too_long(self, cloud: Any) -> None:
        answer = post(cloud, "slow")
        assert answer.status_code == 504
        assert answer.json()["message"] == "Endpoint request timed out"

    def test_a_burst_beyond_the_usage_plan(self, cloud: Any, self_hosted: dict[str, str]) -> None:
        gateway = cloud.client("apigateway")

        def throttle(rate: str, burst: str) -> None:
            gateway.update_usage_plan(
                usagePlanId=self_hosted["Plan"],
                patchOperations=[
                    {"op": "replace", "path": "/throttle/rateLimit", "value": rate},
                    {"op": "replace", "path": "/throttle/burstLimit", "value": burst},
                ],
            )
            cloud.settle()

        throttle("0.001", "2")
        try:
            answers = [post(cloud) for _ in range(3)]
        finally:
            throttle("1000", "1000")
        assert [one.status_code for one in answers] == [200, 200, 429]
        assert answers[2].json() == {"message": "Too Many Requests"}


@pytest.mark.usefixtures("self_hosted")
class TestIamAuthorization:
    def get(self, cloud: Any, key: str, secret: str) -> httpx.Response:
        request = AWSRequest("GET", cloud.api("hosted").url + "/models/a%20b?x=1&a=2")
        SigV4Auth(Credentials(key, secret), "execute-api", "us-east-1").add_auth(request)
        return httpx.get(request.url, headers=dict(request.headers), trust_env=False)

    def test_a_good_signature_passes_and_the_path_parameter_arrives(self, cloud: Any) -> None:
        answer = self.get(cloud, "AKIATEST", "secret")
        assert answer.status_code == 200, answer.text
        assert answer.json()["path"] == "/models/a%20b?x=1&a=2"
        assert "authorization" not in answer.json()["headers"]

    def test_a_get_does_not_pass_a_load_balancer_in_strictest_mode(
        self, cloud: Any, self_hosted: dict[str, str]
    ) -> None:
        balancing = cloud.client("elbv2")
        balancers = balancing.describe_load_balancers()["LoadBalancers"]
        arn = next(one for one in balancers if self_hosted["BalancerGroup"] in one["SecurityGroups"])[
            "LoadBalancerArn"
        ]

        def mode(name: str) -> None:
            attribute = {"Key": "routing.http.desync_mitigation_mode", "Value": name}
            balancing.modify_load_balancer_attributes(LoadBalancerArn=arn, Attributes=[attribute])
            cloud.settle()

        mode("strictest")
        try:
            answer, posted = self.get(cloud, "AKIATEST", "secret"), post(cloud)
        finally:
            mode("defensive")
        assert answer.status_code == 400
        assert (
            "strictest blocks acceptable requests: GetHeadZeroContentLength"
            in str(dict(answer.headers)) + answer.text
        )
        assert posted.status_code == 200
        assert self.get(cloud, "AKIATEST", "secret").status_code == 200

    def test_a_wrong_secret_is_refused(self, cloud: Any) -> None:
        answer = self.get(cloud, "AKIATEST", "guessed")
        assert answer.status_code == 403
        assert answer.headers["x-amzn-errortype"] == "InvalidSignatureException"

    def test_an_unknown_key_is_refused(self, cloud: Any) -> None:
        answer = self.get(cloud, "AKIANOBODY", "secret")
        assert answer.json() == {"message": "The security token included in the request is invalid."}

    def test_no_signature_is_refused(self, cloud: Any) -> None:
        answer = httpx.get(cloud.api("hosted").url + "/models/a", trust_env=False)
        assert answer.json() == {"message": "Missing Authentication Token"}


class TestSecurityGroupsHopByHop:
    @pytest.mark.parametrize(
        ("group", "direction", "port", "peer", "status", "reason"),
        [
            ("LinkGroup", "egress", 80, "10.0.0.0/16", 504, "of vpc link link has no egress rule for tcp 80"),
            (
                "BalancerGroup",
                "ingress",
                80,
                "LinkGroup",
                504,
                "has no ingress rule for tcp 80 from vpc link link",
            ),
            (
                "BalancerGroup",
                "egress",
                8080,
                "10.0.0.0/16",
                504,
                "has no egress rule for tcp 8080 to service",
            ),
            (
                "TaskGroup",
                "ingress",
                8080,
                "BalancerGroup",
                504,
                "has no ingress rule for tcp 8080 from load balancer",
            ),
        ],
        ids=["out of the link", "into the balancer", "out of the balancer", "into the tasks"],
    )
    def test_a_rule_that_is_taken_away_stops_the_request_and_is_named(
        self,
        cloud: Any,
        self_hosted: dict[str, str],
        group: str,
        direction: str,
        port: int,
        peer: str,
        status: int,
        reason: str,
    ) -> None:
        ec2 = cloud.client("ec2")
        rule: dict[str, Any] = {
            "IpProtocol": "tcp",
            "FromPort": port,
            "ToPort": 9090 if port == 8080 else port,
        }
        if "/" in peer:
            rule["IpRanges"] = [{"CidrIp": peer}]
        else:
            rule["UserIdGroupPairs"] = [{"GroupId": self_hosted[peer]}]
        change = {"GroupId": self_hosted[group], "IpPermissions": [rule]}
        getattr(ec2, f"revoke_security_group_{direction}")(**change)
        cloud.run(cloud.plane.reconcile())
        try:
            answer = post(cloud)
        finally:
            getattr(ec2, f"authorize_security_group_{direction}")(**change)
            cloud.settle()
            cloud.until(lambda: sum(one.state == "healthy" for one in tasks(cloud)) == 2)
        assert answer.status_code == status
        assert self_hosted[group] in answer.headers["x-modelstacks-reason"]
        assert reason in answer.headers["x-modelstacks-reason"]
        assert any(reason in one.reason for one in cloud.plane.context.traffic.refusals)
        assert post(cloud).status_code == 200


@pytest.mark.usefixtures("self_hosted")
class TestReplicas:
    def test_a_killed_task_is_replaced(self, cloud: Any) -> None:
        victim = tasks(cloud)[0]
        cloud.plane.inject(api.KillReplica(replica=victim.id))
        cloud.until(
            lambda: (
                victim.id not in {one.id for one in tasks(cloud)}
                and sum(one.state == "healthy" for one in tasks(cloud)) == 2
            )
        )
        assert post(cloud).status_code == 200

    def test_a_deployment_replaces_tasks_without_losing_a_request(self, cloud: Any) -> None:
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            deployed = pool.submit(cloud.deploy, "hosted", "self_hosted.yaml", Greeting="again")
            answers = [post(cloud)]
            while not deployed.done():
                answers.append(post(cloud))
            deployed.result()
        assert {one.status_code for one in answers} == {200}
        assert {post(cloud).json()["greeting"] for _ in range(4)} == {"again"}

    def test_a_revision_that_dies_is_rolled_back_and_its_last_words_are_kept(self, cloud: Any) -> None:
        reasons = cloud.fail("hosted", "self_hosted.yaml", Greeting="bad", DieOf="the model file is broken")
        assert "ECS Deployment Circuit Breaker was triggered" in reasons["Service"]
        assert "exited with code 3: the model file is broken" in reasons["Service"]
        assert cloud.status("hosted") == "UPDATE_ROLLBACK_COMPLETE"
        assert cloud.workload("hosted", "ecs-service").state == "stable"
        assert post(cloud).json()["greeting"] == "again"
        cloud.deploy("hosted", "self_hosted.yaml")
        assert cloud.workload("hosted", "ecs-service").state == "stable"
        assert post(cloud).json()["greeting"] == "hello"

    def test_a_health_check_that_fails_by_order_takes_the_task_away(self, cloud: Any) -> None:
        victim = tasks(cloud)[0]
        cloud.plane.inject(api.FailHealthChecks(replica=victim.id))
        cloud.until(lambda: victim.id not in {one.id for one in tasks(cloud)})
        cloud.plane.context.faults.clear()
        cloud.until(lambda: sum(one.state == "healthy" for one in tasks(cloud)) == 2)


def test_a_stack_without_its_tasks_answers_503_with_the_root_cause(cloud: Any) -> None:
    cloud.fail("lame", "self_hosted.yaml", keep=True, DieOf="no such engine", Tasks="1")
    with cloud.http("lame") as http:
        answer = http.post("/invocations", json={})
    assert cloud.status("lame") == "CREATE_FAILED"
    cloud.delete("lame")
    assert answer.status_code == 503
    assert "no such engine" in answer.headers["x-modelstacks-reason"]
    assert "lame" not in {one.name for one in cloud.plane.apis()}


@pytest.mark.parametrize(
    ("parameter", "value", "reason"),
    [
        ("HealthPath", "/healthz", "GET /healthz answered 404, the target group expects 200"),
        ("ContainerPort", "9090", "connection refused on port 9090: the container listens on 8080"),
    ],
)
def test_a_template_with_a_wrong_port_or_path_fails_as_in_aws(
    cloud: Any, parameter: str, value: str, reason: str
) -> None:
    reasons = cloud.fail("wrong", "self_hosted.yaml", **{parameter: value})
    assert cloud.status("wrong") == "ROLLBACK_COMPLETE"
    assert all(one.stack != "wrong" for one in cloud.plane.workloads())
    cloud.delete("wrong")
    assert reason in reasons["Service"]
