"""What is kept of a verification."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.contract_api import KEY

from modelstacks.core.errors import EnvironmentFault
from modelstacks.verification.checks import checks
from modelstacks.verification.evidence import report, write
from modelstacks.verification.subject import Subject

ACCOUNT = "210987654321"


def test_the_record_has_verdicts_and_answers_and_no_secrets(subject: Subject, tmp_path: Path) -> None:
    findings = [(check, verdict) for check in checks()[:3] for verdict in check.run(subject)]
    facts = {"Service": {"answer": {"arn": f"arn:aws:ecs:eu-west-1:{ACCOUNT}:service/a"}}}
    made = report(subject.plan, {"cloud": "aws", "account": ACCOUNT}, findings, facts)
    write(tmp_path / "record.json", [made], [ACCOUNT])
    text = (tmp_path / "record.json").read_text()
    assert ACCOUNT not in text
    assert "arn:aws:ecs:eu-west-1:********4321:service/a" in text
    assert KEY not in text
    (kept,) = json.loads(text)["deployments"]
    assert kept["passed"] is True
    assert kept["verdicts"][0]["exchange"]["status"] == 200
    assert kept["verdicts"][0]["settles"]


def test_a_record_that_cannot_be_written_is_an_error_of_the_environment(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFault, match="cannot be written"):
        write(tmp_path / "nowhere" / "record.json", [])
