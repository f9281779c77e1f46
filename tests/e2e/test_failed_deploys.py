"""A deploy whose replicas fail is a failed deploy: exit code, cause, rollback, and the old replicas serve."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from e2e.conftest import Cloud, modelstacks
from e2e.holdout import holdout

from modelstacks.cloud.api import PoisonDeploys

pytestmark = pytest.mark.e2e

DEPLOY_FAILED = 5  # docs/cli.md


@contextmanager
def edited(cloud: Cloud, deployment: str) -> Iterator[str]:
    """A spec that makes another revision of the model server, until the block is over."""
    spec = cloud.project / "deployments" / f"{deployment}.yaml"
    before = spec.read_text()
    more = "server: {max_queue: 77"
    changed = before.replace("server: {", f"{more}, ") if "server: {" in before else f"{before}{more}}}\n"
    spec.write_text(changed)
    try:
        yield str(spec)
    finally:
        spec.write_text(before)


@contextmanager
def asked_all_the_time(cloud: Cloud, deployment: str, architecture: str) -> Iterator[list[int]]:
    """The statuses of predictions that are asked for, one after the other, while the block runs."""
    statuses: list[int] = []
    body, over = holdout(deployment).body, threading.Event()

    def ask() -> None:
        while not over.wait(0.05):  # slower than the API's throttle
            statuses.append(cloud.predict(deployment, architecture, body).status)

    asker = threading.Thread(target=ask)
    asker.start()
    try:
        yield statuses
    finally:
        over.set()
        asker.join()


@pytest.mark.parametrize(
    ("deployment", "architecture", "kind", "in_awss_words"),
    [
        ("wine", "self-hosted", "ecs-service", "ECS Deployment Circuit Breaker was triggered"),
        ("diabetes", "managed", "sagemaker-endpoint", "did not pass the ping health check"),
    ],
)
def test_a_poisoned_deploy_fails_and_the_old_replicas_serve_without_an_error(
    cloud: Cloud, deployment: str, architecture: str, kind: str, in_awss_words: str
) -> None:
    stack = f"{deployment}-{architecture}"
    old = {one.id for one in cloud.workload(stack, kind).replicas}
    cloud.session.inject(PoisonDeploys(workload=cloud.workload(stack, kind).name))
    try:
        with edited(cloud, deployment) as spec, asked_all_the_time(cloud, deployment, architecture) as asked:
            up = modelstacks(cloud.project, "up", spec, "--architecture", architecture, "--detach")
    finally:
        cloud.session.clear_faults()
    assert up.returncode == DEPLOY_FAILED, up.stderr
    assert in_awss_words in up.stderr
    assert "poisoned by an injected fault" in up.stderr
    assert "Traceback" not in up.stderr
    (status,) = (one.status for one in cloud.status().stacks if one.name == stack)
    assert status == "UPDATE_ROLLBACK_COMPLETE"
    assert asked
    assert set(asked) == {200}
    assert {one.id for one in cloud.workload(stack, kind).replicas} == old
    again = modelstacks(
        cloud.project, "up", f"deployments/{deployment}.yaml", "--architecture", architecture, "--detach"
    )
    assert again.returncode == 0, again.stderr
