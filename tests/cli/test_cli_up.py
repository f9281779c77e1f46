"""up and demo: order, report, failure, interruption. The real thing is tested in tests/e2e."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.command_line import (
    ROOT,
    FakeCdk,
    FakeCloud,
    Server,
    both,
    ports,
    replica,
    stopped_answering,
    workload,
)

from modelstacks.cloud.api import Unemulated
from modelstacks.core.errors import DeploymentFailed, EnvironmentFault
from modelstacks.core.lock.locking import lock
from modelstacks.core.plan.deployments import find_specs, load_plans

ONNX = ROOT / "model_artifacts/digits-onnx/model.onnx"
SAFETENSORS = (2).to_bytes(8, "little") + b"{}"


def test_up_detached_deploys_reports_and_leaves_it_running(
    cli, cloud: FakeCloud, cdk: FakeCdk, project
) -> None:
    ran = cli("up", "churn", "-a", "both", "--detach")
    assert ran.code == 0, ran.err
    assert sorted(cdk.calls) == ["bootstrap", "deploy", "prepare", "synth"]
    assert cdk.calls[-1] == "deploy"
    assert cdk.contexts == [
        {"deployment": str(project / "deployments" / "churn.yaml"), "architecture": "both"}
    ]
    assert (cloud.running, cloud.shutdowns) == (True, 0)
    assert "churn-managed   http://127.0.0.1:1/live   x-api-key: the-key" in ran.out
    [line, *_] = [line for line in ran.out.splitlines() if "curl" in line]
    assert "-H 'x-api-key: the-key'" in line
    assert "'{\"instances\":[[0.0,0.0,0.0]]}' http://127.0.0.1:1/live/invocations" in line


def test_up_installs_exactly_the_images_that_the_stacks_build(cli, cdk: FakeCdk, project: Path) -> None:
    """One engine with and without PyTorch is two images."""
    network = {"model_type": "bert", "architectures": ["BertModel"]}
    weights = {"small": ("model.onnx", ONNX.read_bytes()), "large": ("model.safetensors", SAFETENSORS)}
    for name, (file, content) in weights.items():
        folder = project / "model_artifacts" / name
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(network))
        (folder / file).write_bytes(content)
        spec = project / "deployments" / f"{name}.yaml"
        model = f"{{source: artifact, path: model_artifacts/{name}, license: MIT}}"
        spec.write_text(f"name: {name}\nmodel: {model}\narchitecture: managed\n")
        lock(spec, project, ports(project))
    ran = cli("up", "--detach")
    assert "no REST API in large-managed, small-managed" in ran.err  # this cloud has churn's alone
    plans = load_plans(find_specs(project), "spec", project)
    built = [plan.runtime.image_arguments for plan in plans]
    assert {"ENGINE": "transformers"} in built
    assert [*map(sorted, built)].count(["ENGINE", "TORCH"]) == 1
    assert sorted(map(str, cdk.prepared)) == sorted(map(str, built))


def test_up_packages_models_itself_before_the_cdk_cli_is_given_another_address(cli, project: Path) -> None:
    lock = json.loads((project / "deployments" / "churn.lock.json").read_bytes())
    archive = project / ".modelstacks" / "models" / f"{lock['model']['archive']['sha256']}.tar.gz"
    archive.unlink(missing_ok=True)
    ran = cli("up", "churn", "--detach")
    assert "package models: churn" in ran.err
    assert archive.stat().st_size == lock["model"]["archive"]["size"]


def test_up_as_json_reports_on_stdout_alone(cli) -> None:
    ran = cli("up", "churn", "-a", "both", "--detach", "--json")
    report = ran.json()
    assert [one["architecture"] for one in report["deployments"]] == ["self-hosted", "managed"]
    assert report["deployments"][0]["url"] == "http://127.0.0.1:1/live"
    assert report["deployments"][0]["api_key"] == "the-key"


def test_off_a_terminal_progress_is_plain_lines(cli) -> None:
    lines = cli("up", "churn", "--detach").err.splitlines()
    assert lines[0].startswith("ok     check specs and locks: churn-self-hosted (")
    assert any(line.startswith("ok     start replicas: churn-self-hosted 2/2 (") for line in lines)


def test_types_that_nothing_emulates_are_listed(cli, cloud: FakeCloud) -> None:
    stacks = [
        stack.model_copy(update={"unemulated": (Unemulated(type="AWS::WAFv2::WebACL", logical_id="Acl"),)})
        for stack in cloud.current.stacks
    ]
    cloud.current = cloud.current.model_copy(update={"stacks": tuple(stacks)})
    assert "accepted, not emulated: AWS::WAFv2::WebACL (Acl)" in cli("up", "churn", "--detach").err
    report = cli("up", "churn", "--detach", "--json").json()
    assert report["accepted_not_emulated"] == [
        {"stack": "churn-self-hosted", "type": "AWS::WAFv2::WebACL", "logical_id": "Acl"}
    ]


def test_scaling_policies_that_are_not_followed_are_listed(cli, cloud: FakeCloud) -> None:
    what = "scaling policy memory: the predefined metric ECSServiceAverageMemoryUtilization"
    workloads = [one.model_copy(update={"unemulated": (what,)}) for one in cloud.current.workloads]
    cloud.current = cloud.current.model_copy(update={"workloads": tuple(workloads)})
    line = f"accepted, not emulated: churn-self-hosted-workload: {what}"
    assert line in cli("up", "churn", "--detach").err
    report = cli("up", "churn", "--detach", "--json").json()
    assert report["workloads_not_emulated"] == [{"workload": "churn-self-hosted-workload", "what": what}]


def test_the_port_is_handed_on(cli, cloud: FakeCloud) -> None:
    cli("up", "churn", "--detach", "--port", "4566")
    assert cloud.ports == [4566]


def interrupt_while_serving(cloud: FakeCloud) -> None:
    if cloud.asked > 1:  # the first status is asked while starting
        raise KeyboardInterrupt


def test_ctrl_c_while_serving_stops_everything(cli, cloud: FakeCloud) -> None:
    cloud.on_status = interrupt_while_serving
    ran = cli("up", "churn")
    assert (ran.code, cloud.running, cloud.shutdowns) == (130, False, 1)
    assert ran.err.splitlines()[-1] == "modelstacks: interrupted"


def test_ctrl_c_in_mid_deploy_stops_the_cdk_cli_and_everything_else(
    cli, cloud: FakeCloud, cdk: FakeCdk
) -> None:
    cdk.fails["deploy"] = KeyboardInterrupt()
    ran = cli("up", "churn")
    assert (ran.code, cloud.running, cdk.stopped) == (130, False, True)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """SIGINT raises KeyboardInterrupt, which a test process of its own may have switched off."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_cancels_a_start_that_does_not_end(cli, cloud: FakeCloud, interruptible: None) -> None:
    cloud.never_starts = True

    def interrupt() -> None:
        assert cloud.starting.wait(30)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    ran = cli("up", "churn")
    assert (ran.code, cloud.running) == (130, False)
    assert ran.err.splitlines()[-1] == "modelstacks: interrupted"


def test_ctrl_c_in_mid_deploy_of_a_detached_up_says_what_keeps_running(cli, cloud, cdk: FakeCdk) -> None:
    cdk.fails["deploy"] = KeyboardInterrupt()
    ran = cli("up", "churn", "--detach")
    assert (ran.code, cloud.running) == (130, True)
    assert "the embedded cloud keeps running; `modelstacks down` stops it" in ran.err


@pytest.mark.parametrize("step", ["synth", "bootstrap", "prepare", "deploy"])
def test_a_failed_step_stops_what_was_started(cli, cloud: FakeCloud, cdk: FakeCdk, step: str) -> None:
    cdk.fails[step] = DeploymentFailed("CREATE_FAILED: AWS::EC2::VPC Vpc: no more VPCs")
    ran = cli("up", "churn")
    assert (ran.code, cloud.running) == (5, False)
    assert ran.err.splitlines()[-1] == "modelstacks: CREATE_FAILED: AWS::EC2::VPC Vpc: no more VPCs"


def test_a_replica_that_cannot_start_is_exit_code_5_with_its_root_cause(cli, cloud: FakeCloud) -> None:
    cause = "the model archive's sha256 is not what was expected"
    failed = workload("churn-self-hosted", replica("r1", "failed", cause), state="failed", reason=cause)
    cloud.current = cloud.current.model_copy(update={"workloads": (failed,)})
    ran = cli("up", "churn")
    assert (ran.code, cloud.running) == (5, False)
    assert f"churn-self-hosted-workload: replica r1 died: {cause}" in ran.err.splitlines()[-1]


def test_a_failed_workload_of_another_deployment_does_not_fail_this_one(cli, cloud: FakeCloud) -> None:
    other = workload("wine-managed", replica("w1", "failed", "x"), state="failed", reason="x")
    cloud.current = cloud.current.model_copy(update={"workloads": (*cloud.current.workloads, other)})
    assert cli("up", "churn", "--detach").code == 0


def test_a_second_up_names_the_first(cli, project: Path, cloud: FakeCloud) -> None:
    lock = project / ".modelstacks" / "up.lock"
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        held.write("4711")
        held.flush()
        ran = cli("up", "churn")
    assert (ran.code, cloud.running) == (4, False)
    assert (
        "another `modelstacks up` is running in this project (pid 4711); fix: end it with Ctrl-C" in ran.err
    )
    assert cli("up", "churn", "--detach").code == 0  # the kernel lets go of the lock with its holder
    assert lock.read_text() == str(os.getpid())


def test_a_second_up_deploys_into_the_cloud_that_was_left_running(cli, cloud: FakeCloud) -> None:
    cli("up", "churn", "--detach")
    ran = cli("up", "churn", "--detach")
    assert ran.code == 0
    assert "already on http://localhost:4566" in ran.err


@pytest.mark.parametrize(
    "fault",
    [
        EnvironmentFault("port 4566 is in use", fix="choose another --port"),
        EnvironmentFault("the state file state.json is damaged", fix="rm state.json"),
    ],
)
def test_a_cloud_that_cannot_start_is_one_message(cli, cloud: FakeCloud, fault: EnvironmentFault) -> None:
    cloud.refuses = fault
    ran = cli("up", "churn")
    assert (ran.code, ran.err.splitlines()[-1]) == (4, f"modelstacks: {fault}")


def test_a_daemon_killed_while_serving_is_exit_code_4(cli, cloud: FakeCloud, project: Path) -> None:
    (project / ".modelstacks" / "state.json").write_text("{}")

    def die(cloud: FakeCloud) -> None:
        if cloud.asked > 1:
            raise stopped_answering()

    cloud.on_status = die
    ran = cli("up", "churn")
    assert ran.code == 4
    assert "its daemon was killed or crashed" in ran.err.splitlines()[-1]


def test_down_in_another_terminal_ends_up_without_an_error(cli, cloud: FakeCloud) -> None:
    def gone(cloud: FakeCloud) -> None:
        if cloud.asked > 1:
            raise stopped_answering()

    cloud.on_status = gone
    ran = cli("up", "churn")
    assert ran.code == 0, ran.err
    assert "another command has stopped the embedded cloud" in ran.err


def test_a_replica_that_dies_while_serving_is_named_once(cli, cloud: FakeCloud) -> None:
    def die_then_interrupt(cloud: FakeCloud) -> None:
        dead = workload("churn-self-hosted", replica("r1", "failed", "killed by signal 9"))
        cloud.current = cloud.current.model_copy(update={"workloads": (dead,)})
        if cloud.asked > 3:
            raise KeyboardInterrupt

    cloud.current = both()
    served: list[int] = []

    def after_report(cloud: FakeCloud) -> None:
        if cloud.asked > 1:
            served.append(cloud.asked)
            die_then_interrupt(cloud)

    cloud.on_status = after_report
    ran = cli("up", "churn")
    assert ran.err.count("replica r1 died: killed by signal 9") == 1
    assert len(served) == 3


def test_up_cleans_up_what_is_left_of_a_cloud_whose_control_plane_was_killed(cli, cloud: FakeCloud) -> None:
    healthy, cloud.running = cloud.current, True
    cloud.current = cloud.current.model_copy(update={"problem": "the control plane (pid 1) was killed"})

    def heal(cloud: FakeCloud) -> None:
        if cloud.shutdowns:
            cloud.current = healthy

    cloud.on_status = heal
    ran = cli("up", "churn", "--detach")
    assert (ran.code, cloud.shutdowns, cloud.running) == (0, 1, True), ran.err


def test_a_control_plane_killed_while_serving_is_exit_code_4(cli, cloud: FakeCloud) -> None:
    def kill(cloud: FakeCloud) -> None:
        if cloud.asked > 1:
            cloud.current = cloud.current.model_copy(update={"problem": "the control plane was killed"})

    cloud.on_status = kill
    ran = cli("up", "churn")
    assert (ran.code, cloud.running) == (4, False)
    assert ran.err.splitlines()[-1] == "modelstacks: the control plane was killed"


def test_up_outside_a_project_says_so(cli, project: Path) -> None:
    (project / "cdk.json").unlink()
    ran = cli("up", "churn")
    assert ran.code == 2
    assert "no cdk.json here or in a folder above" in ran.err


# demo ------------------------------------------------------------------------------------------


@pytest.fixture
def held_out(project: Path) -> list[list[float]]:
    folder = ROOT / "model_artifacts" / "churn-xgboost"
    for name in ("holdout.csv", "predictions.json"):
        shutil.copy(folder / name, project / "model_artifacts" / "churn-xgboost")
    return json.loads((folder / "predictions.json").read_text())["predictions"]


def test_demo_compares_both_architectures_with_the_trainer(cli, cloud, server: Server, held_out) -> None:
    cloud.current = both(server.url)
    server.answer = (200, "application/json", json.dumps({"predictions": held_out}).encode())
    ran = cli("demo", "--once")
    assert ran.code == 0, ran.err
    for words in ("self-hosted", "managed", "0.0e+00", "both agree with the trainer", "curl"):
        assert words in ran.out
    assert (cloud.running, cloud.shutdowns) == (False, 1)


def test_demo_fails_where_the_answers_differ(cli, cloud, server: Server, held_out) -> None:
    cloud.current = both(server.url)
    held_out[7][0] += 0.01
    server.answer = (200, "application/json", json.dumps({"predictions": held_out}).encode())
    ran = cli("demo", "--once")
    assert (ran.code, cloud.running) == (6, False)
    assert "the answers do not agree; got a difference of 1.0e-02" in ran.err


def test_demo_serves_until_ctrl_c(cli, cloud, server: Server, held_out) -> None:
    cloud.current = both(server.url)
    cloud.on_status = interrupt_while_serving
    server.answer = (200, "application/json", json.dumps({"predictions": held_out}).encode())
    ran = cli("demo")
    assert (ran.code, cloud.running) == (130, False)
    assert "serving; Ctrl-C stops everything" in ran.err


class WaitingCdk(FakeCdk):
    """A CDK CLI whose deploy ends only when it is stopped; `meanwhile` happens to the embedded cloud."""

    def __init__(self, cloud: FakeCloud, meanwhile: Callable[[FakeCloud], None]) -> None:
        super().__init__()
        self._cloud, self._over, self.meanwhile = cloud, threading.Event(), meanwhile

    def deploy(self, assembly: Path, status: object, note: object) -> None:
        super().deploy(assembly, status, note)
        self.meanwhile(self._cloud)
        assert self._over.wait(60)
        raise DeploymentFailed("cdk deploy was stopped")

    def stop(self) -> None:
        super().stop()
        self._over.set()


class TestDownDuringADeploy:
    @pytest.fixture
    def cdk(self, cloud: FakeCloud) -> FakeCdk:
        def down(cloud: FakeCloud) -> None:
            cloud.running = False

        return WaitingCdk(cloud, down)

    @pytest.mark.parametrize("flags", [("--detach",), ()])
    def test_ends_the_deploy_and_says_so(self, cli, flags: tuple[str, ...]) -> None:
        ran = cli("up", "churn", *flags)
        assert ran.code == 4
        assert "the embedded cloud was stopped while stacks were being deployed" in ran.err
        assert "keeps running" not in ran.err


class TestADefectDuringADeploy:
    @pytest.fixture
    def cdk(self, cloud: FakeCloud) -> FakeCdk:
        def breaks(cloud: FakeCloud) -> None:
            cloud.current = cloud.current.model_copy(update={"problem": "what was deployed is not followed"})

        return WaitingCdk(cloud, breaks)

    def test_ends_the_deploy_with_the_reason(self, cli, cloud: FakeCloud) -> None:
        ran = cli("up", "churn")
        assert (ran.code, cloud.running) == (4, False)
        assert ran.err.splitlines()[-1] == "modelstacks: what was deployed is not followed"


def test_demo_needs_the_example(cli, project: Path) -> None:
    (project / "deployments" / "churn.yaml").unlink()
    ran = cli("demo", "--once")
    assert (
        ran.code,
        "the demo deploys deployments/churn.yaml, which this project does not have" in ran.err,
    ) == (
        2,
        True,
    )


def test_demo_needs_the_held_out_rows(cli, cloud) -> None:
    cloud.current = both()
    ran = cli("demo", "--once")
    assert ran.code == 4
    assert "model_artifacts/churn-xgboost has no held-out rows with predictions" in ran.err
