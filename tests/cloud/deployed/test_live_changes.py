"""Live changes lose no request: of a stack's network, which replaces everything, and of a function."""

from __future__ import annotations

import functools
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

FIXTURES = Path(__file__).parent / "fixtures"
JSON = {"content-type": "application/json"}

#: What another network replaces in AWS, under other logical ids; the methods and the task stay.
REPLACED = (
    "Vpc|SubnetA|SubnetB|Routes|RouteA|RouteB|S3|LinkGroup|BalancerGroup|TaskGroup|LinkToBalancer|"
    "BalancerToTasks|Balancer|Targets|Listener|Rule|Service|Link|Deployment"
)


def in_another_network(template: str) -> str:
    """The template with its network replaced, and an API that moves when the tasks are ready."""
    moved = re.sub(rf"^  ({REPLACED}):", r"  \g<1>B:", template, flags=re.MULTILINE)
    moved = re.sub(rf"(!Ref |!GetAtt |DependsOn: |\[)({REPLACED})\b(?!:)", r"\g<1>\g<2>B", moved)
    moved = moved.replace("${Balancer.", "${BalancerB.").replace("10.0.", "10.9.")
    return moved.replace("DependsOn: [Post, Get]", "DependsOn: [Post, Get, ServiceB]")


class Clients:
    """Clients that call one stack's API, each one request after the other, for as long as the block runs."""

    def __init__(self, cloud: Any, stack: str, path: str, body: str, count: int) -> None:
        self._cloud, self._stack, self._path, self._body, self._count = cloud, stack, path, body, count
        self.answers: list[tuple[int, str]] = []
        self._over = threading.Event()

    def _call(self) -> None:
        with self._cloud.http(self._stack) as http:
            while not self._over.is_set():
                try:
                    answer = http.post(self._path, content=self._body, headers=JSON)
                except httpx.TransportError as error:
                    self.answers.append((0, repr(error)))
                    continue
                why = answer.headers.get("x-modelstacks-reason", answer.text)
                self.answers.append((answer.status_code, why))

    @contextmanager
    def calling(self) -> Iterator[None]:
        threads = [threading.Thread(target=self._call) for _ in range(self._count)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._over.set()
            for thread in threads:
                thread.join()

    def have_answers(self, count: int) -> bool:
        """Whether they have got more than `count` answers."""
        return len(self.answers) > count

    @property
    def failed(self) -> list[tuple[int, str]]:
        return [answer for answer in self.answers if answer[0] != 200]


def test_a_stack_moves_to_another_network_without_losing_a_request(cloud: Any, tmp_path: Path) -> None:
    here = (FIXTURES / "self_hosted.yaml").read_text()
    there = tmp_path / "moved.yaml"
    there.write_text(in_another_network(here))
    cloud.deploy("moving", "self_hosted.yaml")
    before = cloud.workload("moving", "ecs-service").replicas
    clients = Clients(cloud, "moving", "/invocations", "{}", 4)
    try:
        with clients.calling():
            cloud.until(lambda: clients.have_answers(4))
            cloud.deploy("moving", str(there), Greeting="from the other network")
            answered = len(clients.answers)
            cloud.until(lambda: clients.have_answers(answered + 4))
        with cloud.http("moving") as http:
            now = http.post("/invocations", content="{}", headers=JSON).json()["greeting"]
        after = cloud.workload("moving", "ecs-service").replicas
    finally:
        cloud.delete("moving")
    assert clients.failed == []
    assert now == "from the other network"
    assert not {one.id for one in before} & {one.id for one in after}


@pytest.mark.usefixtures("managed")
def test_a_function_is_changed_under_load_without_losing_an_invocation(
    cloud: Any, managed: dict[str, str]
) -> None:
    """Two invocations of a second each: a change always meets some in flight."""
    client, name = cloud.client("lambda"), managed["Function"]
    clients = Clients(cloud, "managed", "/x", "unhurried", 2)
    with clients.calling():
        cloud.until(lambda: clients.answers)
        for size in (384, 256):
            client.update_function_configuration(FunctionName=name, MemorySize=size)
            cloud.settle()
            enough = len(clients.answers) + 2
            cloud.until(functools.partial(clients.have_answers, enough))
    assert clients.failed == []


def with_an_endpoint_of_its_own(template: str, endpoint: str) -> str:
    """The template with a function that calls an endpoint of this logical id, whatever that is named."""
    named = template.replace("GREETING: from", f"ENDPOINT: !GetAtt {endpoint}.EndpointName, GREETING: from")
    open_to_all = named.replace('Action: "sagemaker:InvokeEndpoint", Resource: !Ref Endpoint', ANY_ENDPOINT)
    renamed = open_to_all.replace("\n  Endpoint:\n", f"\n  {endpoint}:\n")
    named_after_it = f'EndpointName: !Sub "${{AWS::StackName}}-{endpoint}"'
    return renamed.replace('EndpointName: !Sub "${AWS::StackName}"', named_after_it)


ANY_ENDPOINT = 'Action: "sagemaker:InvokeEndpoint", Resource: "*"'


def test_a_stack_moves_to_another_endpoint_without_losing_a_request(cloud: Any, tmp_path: Path) -> None:
    """As where an endpoint is replaced by one of another instance type under another name."""
    template = (FIXTURES / "managed.yaml").read_text()
    for name in ("First", "Second"):
        (tmp_path / f"{name}.yaml").write_text(with_an_endpoint_of_its_own(template, name))
    cloud.deploy("swap", str(tmp_path / "First.yaml"), Greeting="first")
    clients = Clients(cloud, "swap", "/x", "invoke", 2)
    try:
        with clients.calling():
            cloud.until(lambda: clients.have_answers(2))
            cloud.deploy("swap", str(tmp_path / "Second.yaml"), Greeting="second")
            answered = len(clients.answers)
            cloud.until(lambda: clients.have_answers(answered + 2))
        with cloud.http("swap") as http:
            now = http.post("/x", content="invoke").json()["greeting"]
    finally:
        cloud.delete("swap")
    assert clients.failed == []
    assert now == "second"
