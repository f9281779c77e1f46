"""`modelstacks down` while `cdk deploy` waits for a resource: both end, and nothing stays behind."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from support.command_line import ROOT

from modelstacks.adapters.cdk_toolchain import CdkToolchain, EmulatedAccount
from modelstacks.cloud import client
from modelstacks.cloud.daemon.state import MARKER, StateDirectory
from modelstacks.cloud.host.docker import write_launcher
from modelstacks.core.errors import DeploymentFailed

pytestmark = pytest.mark.e2e

#: A custom resource whose function runs, and answers only after a minute.
SLOW = {
    "Role": {
        "Type": "AWS::IAM::Role",
        "Properties": {
            "AssumeRolePolicyDocument": {
                "Version": "2012-10-17",
                "Statement": [
                    {
                        "Effect": "Allow",
                        "Principal": {"Service": "lambda.amazonaws.com"},
                        "Action": "sts:AssumeRole",
                    }
                ],
            }
        },
    },
    "Function": {
        "Type": "AWS::Lambda::Function",
        "Properties": {
            "Runtime": "python3.13",
            "Handler": "index.handler",
            "Timeout": 120,
            "Role": {"Fn::GetAtt": ["Role", "Arn"]},
            "Code": {"ZipFile": "import time\ndef handler(event, context):\n    time.sleep(60)\n"},
        },
    },
    "Slow": {
        "Type": "Custom::Slow",
        "Properties": {"ServiceToken": {"Fn::GetAtt": ["Function", "Arn"]}},
    },
}


def assembly(folder: Path) -> Path:
    """A cloud assembly of one stack without assets, which is deployed with the caller's own keys."""
    folder.mkdir()
    template = json.dumps({"Resources": SLOW})
    (folder / "slow.template.json").write_text(template)
    properties = {"templateFile": "slow.template.json", "validateOnSynth": False}
    stack = {
        "type": "aws:cloudformation:stack",
        "environment": "aws://unknown-account/unknown-region",
        "properties": properties,
    }
    manifest = {"version": "36.0.0", "artifacts": {"slow": stack}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


@pytest.fixture
def session(tmp_path: Path) -> Iterator[client.Session]:
    with client.start(tmp_path) as started:
        yield started
    client.clean(tmp_path)


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not true():
        assert time.monotonic() < deadline, "it did not become true in time"
        time.sleep(0.05)


def left_running(project: Path) -> list[str]:
    """The processes that carry the project's mark or its path."""
    found = []
    for process in psutil.process_iter():
        try:
            own = process.environ().get(MARKER) == str(StateDirectory(project).root)
            if own or str(project) in " ".join(process.cmdline()):
                found.append(" ".join(process.cmdline()))
        except psutil.Error:
            continue
    return found


def test_down_in_the_middle_of_a_deploy_ends_both(session: client.Session, tmp_path: Path) -> None:
    status = session.status()
    keys = status.credentials
    account = EmulatedAccount(
        status.endpoint_url, keys.access_key_id, keys.secret_access_key, region=status.region
    )
    state = tmp_path / ".modelstacks"
    toolchain = CdkToolchain(ROOT, state, write_launcher(state / "bin" / "docker"), state / "images")
    failures: list[DeploymentFailed] = []

    def deploy() -> None:
        try:
            toolchain.deploy(assembly(tmp_path / "cdk.out"), account, lambda _: None)
        except DeploymentFailed as failed:
            failures.append(failed)

    deploying = threading.Thread(target=deploy)
    deploying.start()
    until(lambda: any(one.replicas for one in session.status().workloads))
    down = subprocess.run(
        [sys.executable, "-m", "modelstacks", "down", "--json"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (down.returncode, json.loads(down.stdout)["stopped"]) == (0, True), down.stderr
    toolchain.stop()  # as `up` does once the daemon is gone (tests/cli/test_cli_up.py)
    deploying.join(120)
    assert not deploying.is_alive()
    assert len(failures) == 1
    assert not client.running(tmp_path)
    until(lambda: left_running(tmp_path) == [])  # the daemon lets go of its lock just before it ends
