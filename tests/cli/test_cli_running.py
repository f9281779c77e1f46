"""status, invoke, logs, env, down, doctor, deploy: what asks or stops something that runs."""

from __future__ import annotations

import io
import json
from pathlib import Path

import boto3
import pytest
from moto import mock_aws
from support.command_line import FakeCdk, FakeCloud, Server, api, both, replica, sandbox, status_of, workload

from modelstacks.cli.console.terminal import Terminal
from modelstacks.cli.context import CommandContext
from modelstacks.cli.main import main
from modelstacks.cloud.api import LogLine, Refusal, Stack
from modelstacks.core.errors import EnvironmentFault

# status ----------------------------------------------------------------------------------------


def test_status_shows_apis_and_replicas(cli, cloud: FakeCloud) -> None:
    cloud.running = True
    out = cli("status").out
    for words in ("churn-self-hosted", "the-key", "churn-managed-2", "healthy", "2 of 2 ready", "50001"):
        assert words in out


def test_status_as_json_is_the_daemons_own_status(cli, cloud: FakeCloud) -> None:
    cloud.running = True
    report = cli("status", "--json").json()
    assert report.pop("running") is True
    assert report == cloud.current.model_dump(mode="json")


def test_that_nothing_runs_is_an_answer(cli) -> None:
    assert cli("status").code == 0
    assert cli("status", "--json").json() == {"running": False}


# invoke ----------------------------------------------------------------------------------------


@pytest.fixture
def serving(cloud: FakeCloud, server: Server) -> Server:
    cloud.running = True
    cloud.current = both(server.url)
    return server


def data(project: Path, name: str = "rows.json", content: str = '{"instances": [[1]]}') -> str:
    (project / name).write_text(content)
    return name


def test_invoke_sends_the_file_with_the_key_and_prints_the_answer(
    cli, serving: Server, project: Path
) -> None:
    ran = cli("invoke", "churn", "--data", data(project))
    assert (ran.code, json.loads(ran.out)) == (0, {"predictions": [[0.25, 0.75]]})
    [(method, path, headers, body)] = serving.seen
    assert (method, path, body) == ("POST", "/live/invocations", b'{"instances": [[1]]}')
    assert (headers["x-api-key"], headers["content-type"]) == ("the-key", "application/json")
    assert "asking churn-self-hosted" in ran.err


@pytest.mark.parametrize(
    ("name", "content_type"),
    [
        ("rows.csv", "text/csv"),
        ("rows.jsonl", "application/jsonlines"),
        ("rows.npy", "application/x-npy"),
        ("digit.png", "application/octet-stream"),
        ("rows.unknown", "application/json"),
    ],
)
def test_the_content_type_follows_the_files_name(cli, serving, project, name: str, content_type: str) -> None:
    cli("invoke", "churn", "--data", data(project, name))
    cli("invoke", "churn", "--data", name, "--content-type", "text/x-mine", "--accept", "text/csv")
    assert [request[2]["content-type"] for request in serving.seen] == [content_type, "text/x-mine"]
    assert serving.seen[1][2]["accept"] == "text/csv"


def test_invoke_reads_stdin_and_chooses_the_architecture(cli, serving, project, monkeypatch) -> None:
    data(project, "in", "1,2,3")
    with (project / "in").open() as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        ran = cli("invoke", "churn", "--data", "-", "-a", "managed")
    assert (ran.code, ran.err, serving.seen[0][3]) == (0, "", b"1,2,3")


def test_invoke_reaches_any_route_and_fills_in_the_model(cli, serving: Server) -> None:
    assert cli("invoke", "churn", "--route", "GET /v2/models/{model}").code == 0
    assert serving.seen[0][:2] == ("GET", "/live/v2/models/churn")
    ran = cli("invoke", "churn", "--route", "/v2")
    assert ran.code == 2
    assert 'a route is a method and a path; got "/v2"; allowed: "GET /ping"' in ran.err


def test_invoke_as_json_wraps_the_answer(cli, serving: Server, project: Path) -> None:
    report = cli("invoke", "churn", "--data", data(project), "--json").json()
    assert (report["status"], report["body"]) == (200, {"predictions": [[0.25, 0.75]]})
    assert report["seconds"] > 0


def test_a_refused_request_is_exit_code_6_with_the_apis_own_reason(cli, serving, project) -> None:
    problem = {
        "title": "Unprocessable Content",
        "detail": "30 columns are expected",
        "errors": [{"field": "instances", "row": 0, "message": "got 1"}],
    }
    serving.answer = (422, "application/problem+json", json.dumps(problem).encode())
    ran = cli("invoke", "churn", "--data", data(project))
    assert (ran.code, ran.out) == (6, "")
    assert "churn-self-hosted answered 422 to POST /invocations: 30 columns are expected; " in ran.err
    assert "field instances, row 0, message got 1" in ran.err


def test_a_request_that_the_embedded_cloud_stopped_names_the_missing_rule(
    cli, cloud, serving, project
) -> None:
    reason = "no egress rule of sg-1 allows tcp 8080 to sg-2"
    refusal = Refusal(time="2026-01-01T00:00:00Z", hop="load balancer -> task", reason=reason)

    def refuse_meanwhile(cloud: FakeCloud) -> None:
        if cloud.asked > 1:
            cloud.current = cloud.current.model_copy(update={"refusals": (refusal,)})

    cloud.on_status = refuse_meanwhile
    serving.answer = (504, "application/json", b'{"message": "Endpoint request timed out"}')
    ran = cli("invoke", "churn", "--data", data(project))
    assert ran.code == 6
    assert (
        f"answered 504 to POST /invocations: Endpoint request timed out; load balancer -> task: {reason}"
        in (ran.err)
    )


def test_an_api_that_does_not_answer_is_exit_code_6(cli, cloud: FakeCloud, project: Path) -> None:
    cloud.running = True  # its URL is a port on which nobody listens
    ran = cli("invoke", "churn", "--data", data(project))
    assert ran.code == 6
    assert "http://127.0.0.1:1/live did not answer POST /invocations" in ran.err


def test_an_unreadable_data_file_is_exit_code_2(cli, serving) -> None:
    ran = cli("invoke", "churn", "--data", "nowhere.json")
    assert ran.code == 2
    assert "the data file cannot be read: no such file or directory; got nowhere.json" in ran.err


def test_a_deployment_that_does_not_run_is_exit_code_2(cli, serving, project) -> None:
    ran = cli("invoke", "chrun", "--data", data(project))
    assert ran.code == 2
    assert (
        'no such deployment in the embedded cloud; got chrun; allowed: churn; fix: did you mean "churn"?'
        in ran.err
    )


def test_an_architecture_that_does_not_run_is_exit_code_2(cli, cloud, serving, project) -> None:
    cloud.current = status_of(
        Stack(name="churn-managed", status="CREATE_COMPLETE", outputs={}), apis=[api("churn-managed")]
    )
    ran = cli("invoke", "churn", "--data", data(project), "-a", "self-hosted")
    assert ran.code == 2
    assert "churn does not run as this architecture; got self-hosted; allowed: managed" in ran.err


@pytest.mark.parametrize("command", [["invoke", "churn", "--data", "-"], ["logs", "churn"], ["env"]])
def test_a_command_that_needs_the_embedded_cloud_says_how_to_start_it(
    cli, monkeypatch, project, command
) -> None:
    data(project, "in")
    with (project / "in").open() as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        ran = cli(*command)
    assert ran.code == 4
    assert "the embedded cloud is not running; fix: modelstacks up --detach" in ran.err


def test_an_api_with_iam_is_signed(cli, cloud: FakeCloud, server: Server, project: Path) -> None:
    cloud.running = True
    name = "churn-self-hosted"
    cloud.current = status_of(
        Stack(name=name, status="CREATE_COMPLETE", outputs={}), apis=[api(name, server.url, "AWS_IAM")]
    )
    cli("invoke", "churn", "--data", data(project))
    headers = server.seen[0][2]
    assert headers["authorization"].startswith("AWS4-HMAC-SHA256 Credential=AKIA/")
    assert "/us-east-1/execute-api/aws4_request" in headers["authorization"]
    assert "x-api-key" not in headers


# logs ------------------------------------------------------------------------------------------


@pytest.fixture
def dead(cloud: FakeCloud) -> FakeCloud:
    """churn as both; one self-hosted replica has died."""
    cloud.running = True
    cause = "the model archive's sha256 is not what was expected"
    cloud.current = both().model_copy(
        update={
            "workloads": (
                workload(
                    "churn-self-hosted",
                    replica("r1"),
                    replica("r2", "failed", cause),
                    state="failed",
                    reason=cause,
                ),
                workload("churn-managed", replica("m1")),
            )
        }
    )
    cloud.log_lines = [
        ("churn-self-hosted-workload", LogLine(group="/ecs/churn", stream="r1", text="ready")),
        ("churn-self-hosted-workload", LogLine(group="/ecs/churn", stream="r2", text="dying")),
        ("churn-managed-workload", LogLine(group="/sagemaker/churn", stream="m1", text="loading")),
    ]
    return cloud


def test_logs_prints_the_replicas_own_lines_and_the_root_cause_once(cli, dead) -> None:
    ran = cli("logs", "churn")
    assert ran.out.splitlines() == ["r1  ready", "r2  dying", "m1  loading"]
    died = "churn-self-hosted-workload: replica r2 died: the model archive's sha256 is not what was expected"
    assert ran.err == f"modelstacks: {died}\n"


def test_logs_names_the_root_cause_of_a_replica_that_has_been_replaced_since(cli, cloud) -> None:
    cloud.running = True
    replaced = workload(
        "churn-self-hosted", replica("r2"), died=(replica("r1", "failed", "killed by SIGKILL"),)
    )
    cloud.current = cloud.current.model_copy(update={"workloads": (replaced,)})
    assert "replica r1 died: killed by SIGKILL" in cli("logs", "churn").err
    assert cli("logs", "churn", "--replica", "r1").code == 0


def test_logs_of_one_replica_or_one_architecture(cli, dead) -> None:
    assert cli("logs", "churn", "--replica", "r1").out == "r1  ready\n"
    assert cli("logs", "churn", "-a", "managed").out == "m1  loading\n"
    ran = cli("logs", "churn", "--replica", "r9")
    assert ran.code == 2
    assert "no such replica; got r9; allowed: r1, r2, m1" in ran.err


def test_logs_as_json_is_one_document_a_line(cli, dead) -> None:
    lines = [json.loads(line) for line in cli("logs", "churn", "--json").out.splitlines()]
    assert lines[0] == {"group": "/ecs/churn", "stream": "r1", "text": "ready"}


def test_logs_follows_what_is_written_next(cli, dead) -> None:
    dead.followed = [
        LogLine(group="/ecs/churn", stream="r1", text="next"),
        LogLine(group="/ecs/other", stream="x", text="of another deployment"),
    ]
    assert cli("logs", "churn", "--follow").out.splitlines()[-1] == "r1  next"


# env, down, doctor, deploy -------------------------------------------------------------------------


def test_env_prints_export_lines_that_a_shell_reads(cli, cloud) -> None:
    cloud.running = True
    out = cli("env").out
    assert out.splitlines() == [
        "unset AWS_PROFILE AWS_DEFAULT_PROFILE AWS_SESSION_TOKEN AWS_SECURITY_TOKEN",
        "export AWS_ENDPOINT_URL=http://localhost:4566",
        "export AWS_SECRET_ACCESS_KEY='it'\"'\"'s'",
    ]


def test_down_stops_what_runs_and_is_idempotent(cli, cloud) -> None:
    cloud.running = True
    assert cli("down").out == "stopped the embedded cloud and everything in it\n"
    assert cloud.shutdowns == 1
    assert cli("down").out == "nothing was running\n"
    cloud.leftovers = (11, 12)
    assert cli("down").out == "cleaned up after a run that crashed: ended 2 processes\n"
    assert cli("down", "--json").json() == {"stopped": False, "ended_pids": [11, 12], "purged": False}


def test_down_purge_deletes_the_state_folder(cli, project: Path) -> None:
    assert (project / ".modelstacks").is_dir()
    assert "deleted .modelstacks" in cli("down", "--purge").out
    assert not (project / ".modelstacks").exists()


def test_doctor_reports_each_check_and_fails_with_the_first_fix(cli, cdk: FakeCdk) -> None:
    fine = cli("doctor", "--json")
    assert fine.code == 0, fine.err
    states = {check["name"]: check["state"] for check in fine.json()["checks"]}
    assert states["python"] == states["cdk CLI"] == states["packages for modelstacks up"] == "ok"
    cdk.fails["node"] = EnvironmentFault("no Node that jsii supports", fix="make setup")
    ran = cli("doctor")
    assert ran.code == 4
    assert "1 check failed: node; fix: make setup" in ran.err


def test_doctor_names_what_a_first_deploy_into_an_account_lacks(cli, monkeypatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    with mock_aws():
        boto3.client("iam").create_role(RoleName="AWSServiceRoleForECS", AssumeRolePolicyDocument="{}")
        ran = cli("doctor", "--aws", "--json")
    checks = {check["name"]: check for check in ran.json()["checks"]}
    assert checks["AWS account"]["found"] == "123456789012 in eu-west-1"
    assert (ran.code, checks["CDK bootstrap"]["state"], checks["CDK bootstrap"]["fix"]) == (
        4,
        "failed",
        "cdk bootstrap",
    )
    assert checks["role AWSServiceRoleForECS"]["state"] == "ok"
    missing = checks["role AWSServiceRoleForElasticLoadBalancing"]
    assert (missing["state"], missing["fix"]) == (
        "warning",
        "aws iam create-service-linked-role --aws-service-name elasticloadbalancing.amazonaws.com",
    )


def test_a_package_that_a_base_install_lacks_is_one_clear_message(project: Path) -> None:
    def door() -> object:
        raise ModuleNotFoundError("No module named 'httpx'", name="httpx")

    out, err = io.StringIO(), io.StringIO()
    context = CommandContext(
        project,
        Terminal(out, err),
        open_cloud=door,
        open_cdk=lambda _: FakeCdk(),
        open_ports=lambda _: None,
        open_sandbox=sandbox,
    )
    assert main(["status"], context) == 4
    assert "needs the Python package that has httpx" in err.getvalue()
    assert 'pip install "modelstacks[synth,lock,cloud]"' in err.getvalue()
    assert main(["doctor", "--json"], context) == 4
    found = {check["name"]: check for check in json.loads(out.getvalue())["checks"]}
    assert found["embedded cloud"]["state"] == "failed"
    assert found["node"]["state"] == "ok"


def test_doctor_tells_of_a_damaged_state_file(cli, cloud) -> None:
    cloud.refuses = EnvironmentFault("the state file state.json is damaged", fix="rm state.json")
    ran = cli("doctor")
    assert (ran.code, "embedded cloud; fix: rm state.json" in ran.err) == (4, True)


def test_deploy_checks_and_hands_over_to_the_cdk_cli(cli, cdk: FakeCdk, project: Path) -> None:
    ran = cli("deploy", "churn", "-a", "both", "--", "--require-approval", "never")
    assert ran.code == 0, ran.err
    assert cdk.calls == ["deploy_into_aws"]
    assert cdk.arguments == [
        "churn-self-hosted",
        "churn-managed",
        "-c",
        f"deployment={project / 'deployments' / 'churn.yaml'}",
        "-c",
        "architecture=both",
        "--require-approval",
        "never",
    ]


def test_a_failed_deploy_is_exit_code_5(cli, cdk: FakeCdk) -> None:
    cdk.exit_code = 1
    ran = cli("deploy", "churn")
    assert ran.code == 5
    assert "cdk deploy failed with exit code 1" in ran.err


def test_deploy_does_not_mistake_an_emulator_for_aws(cli, cdk: FakeCdk, monkeypatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://localhost:4566")
    ran = cli("deploy", "churn")
    assert (ran.code, cdk.calls) == (4, [])
    assert "AWS_ENDPOINT_URL points to http://localhost:4566" in ran.err


def test_deploy_names_what_builds_the_images(cli) -> None:
    assert "images are built with docker 29.1.2 (/docker)\n" in cli("deploy", "churn").err


def test_deploy_refuses_a_builder_whose_images_sagemaker_refuses(cli, cdk: FakeCdk) -> None:
    cdk.fails["image_builder"] = EnvironmentFault("no BuildKit", fix="install docker-buildx-plugin")
    ran = cli("deploy", "churn")
    assert (ran.code, cdk.calls) == (4, [])
    assert ran.err.splitlines()[-1] == "modelstacks: no BuildKit; fix: install docker-buildx-plugin"


def test_doctor_warns_of_a_builder_that_only_a_deploy_needs(cli, cdk: FakeCdk) -> None:
    cdk.fails["image_builder"] = EnvironmentFault("no BuildKit", got="docker 20", fix="install it")
    checks = {check["name"]: check for check in cli("doctor", "--json").json()["checks"]}
    found = checks["image builder (AWS only)"]
    assert (found["state"], found["found"], found["fix"]) == (
        "warning",
        "no BuildKit: docker 20",
        "install it",
    )
