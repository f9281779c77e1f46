"""An AWS service is a folder: one that is dropped in is taken by the embedded cloud with no other edit."""

from __future__ import annotations

import json
import shutil
from typing import Any

import pytest
from support.drop_in import FIXTURES, copy_product, run

SERVICE = FIXTURES / "service"


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What became of two stacks of queues in a product into which the service's folder was dropped."""
    product = copy_product(tmp_path_factory.mktemp("product"))
    shutil.copytree(SERVICE / "sqs", product / "modelstacks" / "cloud" / "services" / "sqs")
    project = tmp_path_factory.mktemp("project")
    printed = run(product, str(SERVICE / "deploy_queues.py"), str(project))
    answer: dict[str, Any] = json.loads(printed.splitlines()[-1])
    return answer


def test_its_resource_type_creates_updates_and_deletes(found: dict[str, Any]) -> None:
    assert found["delay"] == "9"
    assert found["left"] == []
    assert found["unemulated"] == []


def test_its_patch_refuses_what_moto_accepts(found: dict[str, Any]) -> None:
    [reason] = found["reasons"]
    assert reason.startswith("You can use one type of server-side encryption (SSE) at one time.")


def test_its_route_is_answered_by_the_accounts_server(found: dict[str, Any]) -> None:
    assert found["route"] == {"account": "123456789012", "refused": 1}


def test_its_snapshot_is_read_and_its_runtime_says_what_runs(found: dict[str, Any]) -> None:
    assert found["workloads"] == [["sqs-queue", found["name"], "good", "stable"]]
    assert found["in_part"] == [["AWS::SQS::Queue", "Queue", "its delay of 9 s"]]


def test_its_runtime_answers_a_call_in_the_control_planes_place(found: dict[str, Any]) -> None:
    assert found["moved"] == "task-1"


def test_its_calls_are_told_apart_by_resource_for_the_policies_of_roles(found: dict[str, Any]) -> None:
    assert found["call"] == ["sqs:SendMessage", "arn:aws:sqs:us-east-1:123456789012:jobs"]
