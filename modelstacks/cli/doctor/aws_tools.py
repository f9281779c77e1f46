"""Checks what only `modelstacks deploy` into AWS needs on this machine: an image builder and credentials."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from modelstacks.cli.doctor.check import Check

__all__ = ["examine_aws_tools"]


def examine_aws_tools() -> Iterator[Check]:
    """Check the container builder and the AWS credentials. Neither is needed by `up`."""
    docker = shutil.which(os.environ.get("CDK_DOCKER", "docker"))
    answers = docker is not None and _runs([docker, "info"])
    yield Check(
        "docker (AWS only)",
        "ok" if answers else "warning",
        docker if answers and docker else "no docker engine answers" if docker else "not installed",
        "" if answers else "`modelstacks up` works without it; to deploy into AWS, install and start Docker",
    )
    named = any(
        os.environ.get(name) for name in ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE")
    )
    known = named or any((Path.home() / ".aws" / name).is_file() for name in ("credentials", "config"))
    yield Check(
        "credentials (AWS only)",
        "ok" if known else "warning",
        "configured; not verified" if known else "none configured",
        "" if known else "`modelstacks up` works without them; to deploy into AWS, run `aws configure`",
    )


def _runs(command: list[str]) -> bool:
    try:
        return subprocess.run(command, capture_output=True, timeout=5, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False
