"""What the data plane reports becomes the state of a resource, and CloudFormation waits for that state."""

from __future__ import annotations

import json
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from support.control_plane import FRONT, NETWORK, Account, role
from support.templates import targets

from modelstacks.cloud.account.channel import Report
from modelstacks.cloud.account.process import start

CODE = {"ZipFile": "def handler(event, context): pass"}
FUNCTION: dict[str, Any] = {
    "Role": role("lambda.amazonaws.com"),
    "Function": {
        "Type": "AWS::Lambda::Function",
        "Properties": {
            "FunctionName": "f",
            "Runtime": "python3.13",
            "Handler": "index.handler",
            "Role": {"Fn::GetAtt": ["Role", "Arn"]},
            "Code": CODE,
        },
    },
}
LINK: dict[str, Any] = NETWORK | {
    "Link": {
        "Type": "AWS::ApiGatewayV2::VpcLink",
        "Properties": {"Name": "l", "SubnetIds": [{"Ref": "Subnet"}]},
    }
}
BALANCER: dict[str, Any] = NETWORK | FRONT | {"Targets": targets()}


class Attached(Account):
    """An account with a data plane, whose reports are the test's."""

    def report(self, *reports: Report) -> None:
        body = json.dumps([asdict(one) for one in reports]).encode()
        answer = self.control_plane._pool.urlopen("POST", "/_modelstacks/workloads", body=body)
        assert answer.status == 200

    def begin(self, stack: str, resources: dict[str, Any], *, update: bool = False) -> None:
        """Begin an operation; the call that begins it answers only when the operation is over."""
        client = self.client("cloudformation")
        call = client.update_stack if update else client.create_stack
        if not update:
            self.stacks.append(stack)
        arguments = {"StackName": stack, "TemplateBody": self.template(resources)}
        threading.Thread(target=call, kwargs=arguments, daemon=True).start()

    def until(self, found: Callable[[], Any]) -> Any:
        """What `found` gives, once it is something."""
        deadline = time.monotonic() + 60
        while True:
            try:
                if value := found():
                    return value
            except (self.client("cloudformation").exceptions.ClientError, LookupError):
                pass
            assert time.monotonic() < deadline, "it did not become true in time"
            time.sleep(0.02)

    def until_status(self, stack: str, status: str) -> None:
        self.until(lambda: self.status(stack) == status)

    # what is waited for: its report, but for the state

    def function(self, state: str = "") -> Report:
        """The function's current revision, once it has this State or LastUpdateStatus."""

        def found() -> Any:
            one = self.client("lambda").get_function_configuration(FunctionName="f")
            return one if state in ("", one["State"], one["LastUpdateStatus"]) else None

        one = self.until(found)
        return Report("lambda-function", one["FunctionArn"], one["RevisionId"], "stable")

    def link(self) -> Report:
        link = self.until(lambda: self.client("apigatewayv2").get_vpc_links()["Items"])[0]
        assert link["VpcLinkStatus"] == "PENDING"
        arn = f"arn:aws:apigateway:{self.region}::/vpclinks/{link['VpcLinkId']}"
        return Report("vpc-link", arn, link["VpcLinkId"], "stable")

    def balancer(self) -> Report:
        found = self.until(lambda: self.client("elbv2").describe_load_balancers()["LoadBalancers"])[0]
        assert found["State"] == {"Code": "provisioning"}
        return Report("load-balancer", found["LoadBalancerArn"], found["LoadBalancerArn"], "stable")


@pytest.fixture(scope="module")
def attached(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attached]:
    log = tmp_path_factory.mktemp("control-plane") / "log"
    with tempfile.TemporaryDirectory() as sockets, start(Path(sockets), log=log) as running:
        account = Attached(running.connection)
        account.report()
        yield account


@pytest.fixture(autouse=True)
def nothing_is_left(attached: Attached) -> Iterator[None]:
    yield
    for name in attached.stacks:
        attached.client("cloudformation").delete_stack(StackName=name)
    attached.stacks.clear()


WAITED_FOR = [("Function", FUNCTION), ("Link", LINK), ("Balancer", BALANCER)]


@pytest.mark.parametrize(("name", "resources"), WAITED_FOR)
def test_the_stack_is_complete_once_the_data_plane_has_the_resource(
    attached: Attached, name: str, resources: dict[str, Any]
) -> None:
    attached.begin("waits", resources)
    report = getattr(attached, name.lower())()
    assert attached.status("waits") == "CREATE_IN_PROGRESS"
    attached.report(report)
    attached.until_status("waits", "CREATE_COMPLETE")


@pytest.mark.parametrize(("name", "resources"), WAITED_FOR)
def test_a_resource_that_the_data_plane_cannot_have_fails_the_stack(
    attached: Attached, name: str, resources: dict[str, Any]
) -> None:
    attached.begin("fails", resources)
    report = getattr(attached, name.lower())()
    failed = {**asdict(report), "state": "failed", "reason": "there is no room"}
    attached.report(Report(**failed))
    attached.until_status("fails", "ROLLBACK_COMPLETE")
    reason = attached.reasons("fails")[name]
    assert "stabilize" in reason
    assert "there is no room" in reason


def test_a_report_on_an_older_revision_of_a_function_is_ignored(attached: Attached) -> None:
    attached.begin("old", FUNCTION)
    report = attached.function("Pending")
    attached.report(Report(**{**asdict(report), "generation": "another"}))
    assert attached.function("Pending") == report
    attached.report(report)
    attached.until_status("old", "CREATE_COMPLETE")


def test_an_update_of_a_function_that_fails_is_rolled_back(attached: Attached) -> None:
    attached.begin("updated", FUNCTION)
    attached.report(attached.function("Pending"))
    attached.until_status("updated", "CREATE_COMPLETE")
    properties = {**FUNCTION["Function"]["Properties"], "Timeout": 9}
    changed = {**FUNCTION, "Function": {**FUNCTION["Function"], "Properties": properties}}
    attached.begin("updated", changed, update=True)
    report = attached.function("InProgress")
    attached.report(Report(**{**asdict(report), "state": "failed", "reason": "it does not start"}))
    attached.until(lambda: attached.function("InProgress").generation != report.generation)
    attached.report(attached.function("InProgress"))
    attached.until_status("updated", "UPDATE_ROLLBACK_COMPLETE")
    assert "Status Reason is it does not start" in attached.reasons("updated")["Function"]
    found = attached.client("lambda").get_function_configuration(FunctionName="f")
    assert (found["State"], found["LastUpdateStatus"], found["Timeout"]) == ("Active", "Successful", 3)
