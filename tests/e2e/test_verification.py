"""`modelstacks verify` passes for everything that is deployed, and keeps its evidence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from e2e.conftest import EXAMPLES, Cloud, modelstacks

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize("deployment", EXAMPLES)
def test_every_example_answers_every_question_on_both_architectures(cloud: Cloud, deployment: str) -> None:
    ran = modelstacks(cloud.project, "verify", deployment, "--json", "--no-overload")
    report = json.loads(ran.stdout)
    wrong = [
        f"{one['stack']}: {verdict['question']}: {verdict['detail']}"
        for one in report["deployments"]
        for verdict in one["verdicts"]
        if verdict["state"] == "failed"
    ]
    assert wrong == []
    assert ran.returncode == 0, ran.stderr
    assert [one["architecture"] for one in report["deployments"]] == ["self-hosted", "managed"]


def test_under_overload_every_answer_is_right_or_a_refusal_that_says_when_to_come_back(
    cloud: Cloud, tmp_path: Path
) -> None:
    record = tmp_path / "record.json"
    ran = modelstacks(cloud.project, "verify", "churn", "--record", str(record))
    assert ran.returncode == 0, ran.stdout + ran.stderr
    for one in json.loads(record.read_text())["deployments"]:
        (overload,) = (verdict for verdict in one["verdicts"] if verdict["check"] == "overload")
        assert set(overload["figures"]) <= {"answered", "refused", "p50_ms", "p99_ms"}
        assert any("answer" in resource for resource in one["resources"].values())
