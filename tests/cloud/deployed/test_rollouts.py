"""A stack and its workloads fail and succeed together, and the old replicas serve meanwhile."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from modelstacks.cloud import api
from modelstacks.cloud.services.sagemaker.model_data import download
from modelstacks.cloud.services.sagemaker.runtime import Endpoints
from modelstacks.cloud.workloads.kind import StartFailedError

FIXTURES = Path(__file__).parent / "fixtures"
JSON = {"content-type": "application/json"}


class Traffic:
    """Requests to one stack's API, one after the other, for as long as the block runs."""

    def __init__(self, cloud: Any, stack: str, path: str, body: str) -> None:
        self._cloud, self._stack, self._path, self._body = cloud, stack, path, body
        self.answers: list[tuple[int, str]] = []
        self._over = threading.Event()

    def send(self) -> None:
        with self._cloud.http(self._stack) as http:
            while not self._over.is_set():
                answer = http.post(self._path, content=self._body, headers=JSON)
                self.answers.append((answer.status_code, answer.text))

    @contextmanager
    def flowing(self) -> Iterator[None]:
        sender = threading.Thread(target=self.send)
        sender.start()
        try:
            yield
        finally:
            self._over.set()
            sender.join()

    @property
    def failed(self) -> list[tuple[int, str]]:
        return [answer for answer in self.answers if answer[0] != 200]


def replicas(cloud: Any, stack: str, kind: str) -> tuple[api.Replica, ...]:
    found: tuple[api.Replica, ...] = cloud.workload(stack, kind).replicas
    return found


def healthy(cloud: Any, stack: str, kind: str) -> set[str]:
    return {one.id for one in replicas(cloud, stack, kind) if one.state == "healthy"}


@pytest.fixture
def rolled(cloud: Any) -> Iterator[Any]:
    """The stack `rolled`: a service of two tasks."""
    cloud.deploy("rolled", "self_hosted.yaml")
    yield cloud
    cloud.delete("rolled")


@pytest.fixture
def endpoint(cloud: Any) -> Iterator[Any]:
    """The stack `swapped`: an endpoint of two instances."""
    cloud.deploy("swapped", "managed.yaml")
    yield cloud
    cloud.delete("swapped")


class TestAService:
    def test_is_stable_when_its_stack_is_complete(self, rolled: Any) -> None:
        service = rolled.workload("rolled", "ecs-service")
        assert (service.state, len(healthy(rolled, "rolled", "ecs-service"))) == ("stable", 2)
        (described,) = rolled.client("ecs").describe_services(
            cluster=self.cluster(rolled), services=[service.name]
        )["services"]
        assert [one["rolloutState"] for one in described["deployments"]] == ["COMPLETED"]
        assert described["runningCount"] == 2

    def cluster(self, cloud: Any) -> str:
        found = cloud.client("cloudformation").describe_stack_resource(
            StackName="rolled", LogicalResourceId="Cluster"
        )
        return str(found["StackResourceDetail"]["PhysicalResourceId"])

    def test_that_fails_its_update_serves_with_the_old_tasks_without_an_error(self, rolled: Any) -> None:
        before = healthy(rolled, "rolled", "ecs-service")
        traffic = Traffic(rolled, "rolled", "/invocations", "{}")
        with traffic.flowing():
            reasons = rolled.fail("rolled", "self_hosted.yaml", DieOf="a poisoned revision")
        assert traffic.answers
        assert traffic.failed == []
        assert "a poisoned revision" in reasons["Service"]
        assert healthy(rolled, "rolled", "ecs-service") == before
        assert rolled.status("rolled") == "UPDATE_ROLLBACK_COMPLETE"

    def test_replaces_an_old_task_that_dies_while_the_new_ones_come_up(self, rolled: Any) -> None:
        old = healthy(rolled, "rolled", "ecs-service")
        rolled.start("rolled", "self_hosted.yaml", HealthPath="/slow-ping", Greeting="new")
        rolled.until(lambda: len(replicas(rolled, "rolled", "ecs-service")) > 2)
        victim = min(old)
        rolled.plane.inject(api.KillReplica(replica=victim))
        rolled.client("cloudformation").cancel_update_stack(StackName="rolled")
        rolled.until(lambda: rolled.status("rolled") == "UPDATE_ROLLBACK_COMPLETE")
        rolled.settle()
        now = healthy(rolled, "rolled", "ecs-service")
        assert len(now) == 2
        assert victim not in now
        with rolled.http("rolled") as http:
            assert http.post("/invocations", content="{}", headers=JSON).json()["greeting"] == "hello"

    def test_replaces_an_old_task_that_dies_after_a_failed_update(self, rolled: Any) -> None:
        rolled.fail("rolled", "self_hosted.yaml", DieOf="a poisoned revision")
        victim = min(healthy(rolled, "rolled", "ecs-service"))
        rolled.plane.inject(api.KillReplica(replica=victim))
        rolled.until(lambda: len(healthy(rolled, "rolled", "ecs-service") - {victim}) == 2)

    def test_that_was_scaled_out_keeps_its_tasks_where_the_template_names_no_count(self, cloud: Any) -> None:
        cloud.deploy("grown", "self_hosted.yaml", Tasks="0")
        assert len(healthy(cloud, "grown", "ecs-service")) == 1  # AWS's default for a new service
        self.scale_out(cloud, "grown", 3)
        fewest = 3
        with Traffic(cloud, "grown", "/invocations", "{}").flowing():
            cloud.start("grown", "self_hosted.yaml", Tasks="0", Greeting="again")
            cloud.until(lambda: cloud.status("grown") == "UPDATE_IN_PROGRESS")
            while cloud.status("grown") == "UPDATE_IN_PROGRESS":
                fewest = min(fewest, len(healthy(cloud, "grown", "ecs-service")))
        now = cloud.workload("grown", "ecs-service")
        cloud.delete("grown")
        assert (now.desired, fewest) == (3, 3)

    def test_that_was_scaled_out_returns_to_the_count_that_an_update_names(self, rolled: Any) -> None:
        self.scale_out(rolled, "rolled", 3)
        rolled.deploy("rolled", "self_hosted.yaml", Greeting="again")
        assert len(healthy(rolled, "rolled", "ecs-service")) == 2

    def scale_out(self, cloud: Any, stack: str, count: int) -> None:
        """What Application Auto Scaling does."""
        found = cloud.client("cloudformation").describe_stack_resource(
            StackName=stack, LogicalResourceId="Cluster"
        )
        cloud.client("ecs").update_service(
            cluster=found["StackResourceDetail"]["PhysicalResourceId"],
            service=cloud.workload(stack, "ecs-service").name,
            desiredCount=count,
        )
        cloud.settle()
        cloud.until(lambda: len(healthy(cloud, stack, "ecs-service")) == count)

    def test_lets_its_tasks_finish_within_the_deregistration_delay(self, rolled: Any) -> None:
        """Ten seconds, which do not pass faster here, since requests do not either."""
        traffic = Traffic(rolled, "rolled", "/invocations", "unhurried")
        with traffic.flowing():
            rolled.until(lambda: traffic.answers)
            rolled.deploy("rolled", "self_hosted.yaml", Greeting="again")
        assert traffic.failed == []

    def test_keeps_a_task_that_stops_answering_within_its_grace_period(self, rolled: Any) -> None:
        victim = replicas(rolled, "rolled", "ecs-service")[0]
        assert victim.pid is not None

        def state() -> str | None:
            found = replicas(rolled, "rolled", "ecs-service")
            return next((one.state for one in found if one.id == victim.id), None)

        os.killpg(victim.pid, signal.SIGSTOP)
        try:
            rolled.until(lambda: state() != "healthy")
            assert state() == "unhealthy"
        finally:
            os.killpg(victim.pid, signal.SIGCONT)
        rolled.until(lambda: state() == "healthy")

    def test_whose_stack_is_deleted_while_it_comes_up_leaves_no_process(self, cloud: Any) -> None:
        cloud.start("dropped", "self_hosted.yaml", HealthPath="/slow-ping")
        cloud.until(lambda: any(one.stack == "dropped" and one.replicas for one in cloud.plane.workloads()))
        cloud.delete("dropped")
        assert all(one.stack != "dropped" for one in cloud.plane.workloads())

    def test_keeps_its_minimum_where_the_maximum_leaves_no_room_for_more(self, cloud: Any) -> None:
        cloud.deploy("tight", "self_hosted.yaml", Minimum="50", Maximum="100")
        most = 0
        stop = threading.Event()

        def watch() -> None:
            nonlocal most
            while not stop.is_set():
                states = [one.state for one in replicas(cloud, "tight", "ecs-service")]
                most = max(most, sum(state in ("starting", "healthy") for state in states))
                time.sleep(0.005)

        watcher = threading.Thread(target=watch)
        watcher.start()
        traffic = Traffic(cloud, "tight", "/invocations", "{}")
        try:
            with traffic.flowing():
                cloud.deploy("tight", "self_hosted.yaml", Minimum="50", Maximum="100", Greeting="again")
        finally:
            stop.set()
            watcher.join()
            cloud.delete("tight")
        assert traffic.failed == []
        assert most == 2

    def test_without_a_circuit_breaker_is_waited_for_until_the_update_is_cancelled(self, cloud: Any) -> None:
        cloud.deploy("stubborn", "self_hosted.yaml", Breaker="false")
        service = cloud.workload("stubborn", "ecs-service").name
        cloud.start("stubborn", "self_hosted.yaml", Breaker="false", DieOf="it always dies")
        cloud.until(lambda: _deaths(cloud, service) >= 5)  # a circuit breaker would have given up after three
        assert cloud.status("stubborn") == "UPDATE_IN_PROGRESS"
        cloud.client("cloudformation").cancel_update_stack(StackName="stubborn")
        cloud.until(lambda: cloud.status("stubborn") == "UPDATE_ROLLBACK_COMPLETE")
        cloud.delete("stubborn")

    def test_runs_one_task_in_each_zone(self, rolled: Any) -> None:
        zones = {one.zone for one in replicas(rolled, "rolled", "ecs-service")}
        assert zones == {"us-east-1a", "us-east-1b"}

    def test_goes_on_when_a_container_ends_that_is_not_essential(self, cloud: Any, tmp_path: Path) -> None:
        helper = """
        - Name: helper
          Image: !Ref Image
          Essential: false
          Environment: [{Name: DIE_OF, Value: its work is done}]
"""
        template = (
            (FIXTURES / "self_hosted.yaml").read_text().replace("\n  Service:\n", f"{helper}  Service:\n")
        )
        (tmp_path / "helped.yaml").write_text(template)
        cloud.deploy("helped", str(tmp_path / "helped.yaml"))
        try:
            cloud.until(lambda: self.states(cloud, "helped") == ["failed", "failed", "healthy", "healthy"])
            assert cloud.workload("helped", "ecs-service").state == "stable"
            reasons = {one.reason for one in replicas(cloud, "helped", "ecs-service") if one.reason}
            assert reasons == {"exited with code 3: its work is done"}
            with cloud.http("helped") as http:
                assert http.post("/invocations", content="{}", headers=JSON).status_code == 200
        finally:
            cloud.delete("helped")

    def states(self, cloud: Any, stack: str) -> list[str]:
        return sorted(one.state for one in replicas(cloud, stack, "ecs-service"))

    def test_with_a_strategy_that_is_not_emulated_is_refused_by_name(self, cloud: Any) -> None:
        reasons = cloud.fail("coloured", "self_hosted.yaml", Strategy="BLUE_GREEN")
        cloud.delete("coloured")
        assert "does not emulate the deployment strategy BLUE_GREEN" in reasons["Service"]


def _deaths(cloud: Any, service: str) -> int:
    history = cloud.plane.context.registry.history
    return sum(one.workload == service and one.state == "failed" for one in history)


class TestAnEndpoint:
    def test_that_fails_its_update_serves_with_the_old_configuration(self, endpoint: Any) -> None:
        before = healthy(endpoint, "swapped", "sagemaker-endpoint")
        sagemaker = endpoint.client("sagemaker")
        old = sagemaker.describe_endpoint(EndpointName="swapped")["EndpointConfigName"]
        traffic = Traffic(endpoint, "swapped", "/x", "invoke swapped")
        with traffic.flowing():
            reasons = endpoint.fail("swapped", "managed.yaml", ServerPort="9000")
        assert traffic.answers
        assert traffic.failed == []
        assert "did not pass the ping health check" in reasons["Endpoint"]
        assert "SageMaker calls port 8080, the container listens on 9000" in reasons["Endpoint"]
        described = sagemaker.describe_endpoint(EndpointName="swapped")
        assert (described["EndpointStatus"], described["EndpointConfigName"]) == ("InService", old)
        assert healthy(endpoint, "swapped", "sagemaker-endpoint") == before

    def test_is_updated_without_losing_a_request(self, endpoint: Any) -> None:
        before = healthy(endpoint, "swapped", "sagemaker-endpoint")
        traffic = Traffic(endpoint, "swapped", "/x", "invoke swapped")
        with traffic.flowing():
            endpoint.deploy("swapped", "managed.yaml", Greeting="another")
        assert traffic.failed == []
        assert not before & healthy(endpoint, "swapped", "sagemaker-endpoint")

    def test_that_was_scaled_out_keeps_its_instances_where_an_update_retains_them(
        self, cloud: Any, tmp_path: Path
    ) -> None:
        config = "EndpointConfigName: !GetAtt Config.EndpointConfigName"
        template = (FIXTURES / "managed.yaml").read_text()
        kept = tmp_path / "retaining.yaml"
        kept.write_text(template.replace(config, f"{config}, RetainAllVariantProperties: true"))
        cloud.deploy("retained", str(kept))
        try:
            before = healthy(cloud, "retained", "sagemaker-endpoint")
            change = {"VariantName": "main", "DesiredInstanceCount": 3, "DesiredWeight": 1}
            cloud.client("sagemaker").update_endpoint_weights_and_capacities(
                EndpointName="retained", DesiredWeightsAndCapacities=[change]
            )
            cloud.settle()
            cloud.until(lambda: len(healthy(cloud, "retained", "sagemaker-endpoint")) == 3)
            assert before < healthy(cloud, "retained", "sagemaker-endpoint"), "an instance was replaced"
            cloud.deploy("retained", str(kept), Greeting="again")
            now = healthy(cloud, "retained", "sagemaker-endpoint")
        finally:
            cloud.delete("retained")
        assert len(now) == 3
        assert not before & now

    def test_whose_model_takes_too_long_to_download_fails(self, endpoint: Any) -> None:
        maker = endpoint.plane.runtimes[Endpoints]._endpoints["swapped"].workload.active.maker
        ready = maker._ready["main"]

        with pytest.raises(StartFailedError, match=r"within 0 s \(ModelDataDownloadTimeoutInSeconds\)"):
            endpoint.run(download(endpoint.plane.context, ready.model, 0.0))

    def test_whose_first_instances_fail_is_failed_and_kept_where_failures_are(self, cloud: Any) -> None:
        cloud.fail("kept", "managed.yaml", keep=True, ServerPort="9000")
        described = cloud.client("sagemaker").describe_endpoint(EndpointName="kept")
        cloud.delete("kept")
        assert described["EndpointStatus"] == "Failed"
        assert "did not pass the ping health check" in described["FailureReason"]
