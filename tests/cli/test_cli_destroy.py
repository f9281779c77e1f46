"""What a change of architecture leaves behind, and the command that removes it."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.command_line import FakeCdk, FakeCloud, both

from modelstacks.core.errors import EnvironmentFault

COMMAND = "modelstacks destroy churn --architecture managed"


def test_up_names_the_stack_of_the_other_architecture_and_the_command(cli) -> None:
    ran = cli("up", "churn", "--detach")
    assert (
        f"churn-managed is still running beside it; in AWS it would still cost; to remove it: {COMMAND}\n"
        in (ran.err)
    )
    report = cli("up", "churn", "--detach", "--json").json()
    assert report["superseded"] == [{"stack": "churn-managed", "command": COMMAND}]


def test_up_of_both_architectures_leaves_nothing_behind(cli) -> None:
    ran = cli("up", "churn", "-a", "both", "--detach")
    assert "still running" not in ran.err
    assert cli("up", "churn", "-a", "both", "--detach", "--json").json()["superseded"] == []


def test_status_names_what_the_spec_does_not(cli, cloud: FakeCloud) -> None:
    cloud.running = True
    out = cli("status").out
    assert "churn-managed is deployed, but deployments/churn.yaml says self-hosted" in out
    assert out.count(COMMAND) == 1


def test_status_passes_over_a_spec_with_faults(cli, cloud: FakeCloud, project: Path) -> None:
    cloud.running = True
    (project / "deployments" / "bad.yaml").write_text("name: bad\n")
    assert cli("status").code == 0


def test_deploy_names_what_is_left_in_aws(cli, cdk: FakeCdk) -> None:
    cdk.in_aws = ("churn-managed", "churn-self-hosted")
    ran = cli("deploy", "churn")
    assert ran.code == 0
    assert f"churn-managed is still deployed, and still costs; to remove it: {COMMAND} --aws\n" in ran.err
    assert "churn-self-hosted is still" not in ran.err


def test_a_deploy_is_no_failure_because_the_other_stack_cannot_be_looked_up(cli, cdk: FakeCdk) -> None:
    cdk.fails["deployed_in_aws"] = EnvironmentFault("AWS refused cloudformation describe_stacks")
    ran = cli("deploy", "churn")
    assert ran.code == 0
    assert "could not check whether churn-managed still runs: AWS refused" in ran.err


def test_destroy_removes_one_architecture_from_the_embedded_cloud(
    cli, cloud: FakeCloud, cdk: FakeCdk
) -> None:
    cloud.running = True
    ran = cli("destroy", "churn", "-a", "managed")
    assert ran.code == 0, ran.err
    assert cdk.calls == ["synth", "destroy"]
    assert cdk.contexts[0]["architecture"] == "managed"
    assert cdk.arguments == ["churn-managed"]


def test_destroy_refuses_a_stack_that_is_not_there(cli, cloud: FakeCloud, cdk: FakeCdk) -> None:
    cloud.running = True
    cloud.current = both().model_copy(update={"stacks": both().stacks[:1]})
    ran = cli("destroy", "churn", "-a", "managed")
    assert (ran.code, cdk.calls) == (2, [])
    assert "no such stack; got churn-managed; allowed: churn-self-hosted" in ran.err


def test_destroy_from_aws_hands_over_to_the_cdk_cli(cli, cdk: FakeCdk, project: Path) -> None:
    ran = cli("destroy", "churn", "--aws", "--", "--force")
    assert ran.code == 0, ran.err
    assert cdk.calls == ["leftovers_in_aws", "destroy_in_aws"]
    assert "left in the account: KMS key k-1: deleted 30 days later\n" in ran.err
    assert cdk.arguments[0] == "churn-self-hosted"
    assert cdk.arguments[-1] == "--force"
    cdk.exit_code = 1
    failed = cli("destroy", "churn", "--aws")
    assert (failed.code, "cdk destroy failed with exit code 1" in failed.err) == (5, True)


def test_destroy_goes_on_where_the_leftovers_cannot_be_looked_up(cli, cdk: FakeCdk) -> None:
    cdk.fails["leftovers_in_aws"] = EnvironmentFault("AWS refused cloudformation get_template")
    ran = cli("destroy", "churn", "--aws")
    assert ran.code == 0
    assert "could not look up what churn-self-hosted will leave: AWS refused" in ran.err


def test_destroy_from_aws_does_not_mistake_an_emulator_for_aws(
    cli, cdk: FakeCdk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://localhost:4566")
    assert (cli("destroy", "churn", "--aws").code, cdk.calls) == (4, [])
