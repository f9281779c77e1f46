"""verify: which deployments are asked, what is reported and kept. The real thing is tested in tests/e2e."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.command_line import FakeCloud, Server, both


@pytest.fixture
def serving(cloud: FakeCloud, server: Server) -> Server:
    cloud.running = True
    cloud.current = both(server.url)
    return server


def test_verify_names_each_question_that_is_answered_wrong(cli, serving: Server) -> None:
    ran = cli("verify", "churn", "--no-overload", "-a", "managed")
    assert ran.code == 6
    assert "predictions in JSON" in ran.out
    assert "churn-managed: a caller without a key is refused" in ran.err
    assert "churn-self-hosted" not in ran.err


def test_verify_as_json_has_a_verdict_for_each_question(cli, serving: Server) -> None:
    report = cli("verify", "churn", "--no-overload", "--json").json()
    assert [one["stack"] for one in report["deployments"]] == ["churn-self-hosted", "churn-managed"]
    verdicts = {one["question"]: one for one in report["deployments"][0]["verdicts"]}
    assert verdicts["GET /ping"]["state"] == "failed"  # the server returns no request id
    assert verdicts["512 requests, 64 at once"]["state"] == "skipped"
    assert report["deployments"][0]["passed"] is False


def test_verify_sends_the_rows_that_the_user_names(cli, serving: Server, project: Path) -> None:
    (project / "mine.csv").write_text("a,b,c\n1,2,3\n")
    cli("verify", "churn", "--no-overload", "-a", "managed", "--data", "mine.csv")
    bodies = [body for _, path, _, body in serving.seen if path == "/live/invocations"]
    assert json.dumps({"instances": [[1.0, 2.0, 3.0]]}).encode() in bodies
    assert b"a,b,c\n1,2,3\n" in bodies


def test_verify_without_rows_sends_an_example_of_the_signature(cli, serving: Server) -> None:
    cli("verify", "churn", "--no-overload", "-a", "managed")
    assert json.dumps({"instances": [[0.0, 0.0, 0.0]]}).encode() in [body for *_, body in serving.seen]


def test_verify_of_unreadable_rows_is_exit_code_2(cli, serving: Server) -> None:
    ran = cli("verify", "churn", "--data", "nowhere.csv")
    assert (ran.code, serving.seen) == (2, [])
    assert "the rows in nowhere.csv cannot be read" in ran.err


def test_verify_without_an_embedded_cloud_says_how_to_start_it(cli) -> None:
    ran = cli("verify", "churn")
    assert (ran.code, "modelstacks up --detach starts it" in ran.err) == (4, True)
