"""`modelstacks doctor`: what this machine, or with --aws the account, lacks, and how to fix it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from modelstacks.adapters.aws_account import AwsAccount
from modelstacks.core.errors import EnvironmentFault, ModelstacksError

if TYPE_CHECKING:
    from modelstacks.cli.bench import Bench

OLDEST_PYTHON = (3, 11)
LEAST_DISK = 2 << 30  # bytes; one engine's environment takes some hundred MB
# What each half of the toolkit imports; a command that lacks one could not run.
PACKAGES = {
    "cdk synth": ("aws-cdk-lib", "constructs"),
    "modelstacks lock": ("boto3", "huggingface-hub", "sagemaker"),
    "modelstacks up": ("awslambdaric", "boto3", "moto", "psutil", "starlette", "uvicorn"),
}


@dataclass(frozen=True, slots=True)
class Check:
    """One finding. `warning` is for what only some commands need."""

    name: str
    state: Literal["ok", "warning", "failed"]
    found: str
    fix: str = ""


def run(bench: Bench, *, aws: bool, as_json: bool) -> None:
    """Show every finding. Raises EnvironmentFault where `up`, or with `aws` a deploy, would fail."""
    checks = [check for examine in EXAMINATIONS for check in examine(bench)]
    if aws:
        checks += _account(AwsAccount())
    if as_json:
        bench.terminal.json({"checks": [asdict(check) for check in checks]})
    else:
        colours = {"ok": "green", "warning": "yellow", "failed": "red"}
        bench.terminal.table(
            ("check", "", "found", "fix"),
            [
                (
                    c.name,
                    f"[{colours[c.state]}]{c.state}[/{colours[c.state]}]",
                    c.found.replace("[", "\\["),
                    c.fix.replace("[", "\\["),
                )
                for c in checks
            ],
        )
    failed = [check for check in checks if check.state == "failed"]
    if failed:
        raise EnvironmentFault(
            f"{len(failed)} check{'s' * (len(failed) != 1)} failed: {', '.join(c.name for c in failed)}",
            fix=failed[0].fix,
        )


def _python(_: Bench) -> Iterable[Check]:
    version = ".".join(map(str, sys.version_info[:3]))
    fine = sys.version_info >= OLDEST_PYTHON
    yield Check(
        "python",
        "ok" if fine else "failed",
        f"{version} at {sys.executable}",
        "" if fine else "make setup PYTHON=/path/to/python3.11",
    )


def _packages(_: Bench) -> Iterable[Check]:
    for command, packages in PACKAGES.items():
        missing = [name for name in packages if not _installed(name)]
        yield Check(
            f"packages for {command}",
            "failed" if missing else "ok",
            f"missing: {', '.join(missing)}" if missing else f"{len(packages)} of {len(packages)}",
            'pip install "modelstacks[synth,lock,cloud]", or make setup in a checkout' if missing else "",
        )


def _installed(package: str) -> bool:
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True


def _node_and_cdk(bench: Bench) -> Iterable[Check]:
    for name in ("node", "cdk CLI"):
        try:
            yield Check(name, "ok", bench.cdk.node() if name == "node" else bench.cdk.cli())
        except ModelstacksError as error:
            yield Check(name, "failed", error.what, error.fix or "make setup")


def _disk(bench: Bench) -> Iterable[Check]:
    free = shutil.disk_usage(bench.project).free
    fine = free >= LEAST_DISK
    yield Check(
        "disk",
        "ok" if fine else "failed",
        f"{free / (1 << 30):.1f} GiB free at {bench.project}",
        ""
        if fine
        else f"free {LEAST_DISK >> 30} GiB, or `modelstacks down --purge` to drop installed images",
    )
    writable = os.access(bench.project, os.W_OK)
    if not writable:
        yield Check("project folder", "failed", f"{bench.project} is not writable", "change its permissions")


def _ports(_: Bench) -> Iterable[Check]:
    try:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
        address = socket.gethostbyname("localhost")
    except OSError as error:
        yield Check(
            "ports", "failed", f"no loopback port can be opened: {error.strerror}", "check the firewall"
        )
        return
    yield Check(
        "ports",
        "ok" if address.startswith("127.") else "warning",
        f"loopback ports open, localhost is {address}",
        "" if address.startswith("127.") else "let localhost resolve to 127.0.0.1 in /etc/hosts",
    )


def _sandbox(bench: Bench) -> Iterable[Check]:
    """What models run in, here and in the embedded cloud."""
    from modelstacks.adapters.sandbox import FIX

    try:
        sandbox = bench.sandbox
    except ModelstacksError as error:
        yield Check("sandbox", "failed", f"{error.what}: {error.got}", error.fix)
        return
    if sandbox.kind == "none":
        yield Check("sandbox", "warning", f"{sandbox.summary} ({sandbox.lacking})", FIX)
    else:
        yield Check("sandbox", "ok", sandbox.summary)


def _embedded_cloud(bench: Bench) -> Iterable[Check]:
    try:
        session = bench.cloud.attach(bench.project)
    except ModelstacksError as error:
        yield Check("embedded cloud", "failed", error.what, error.fix)
        return
    if session is None:
        yield Check("embedded cloud", "ok", "not running")
        return
    try:
        yield Check("embedded cloud", "ok", f"running, pid {session.status().pid}")
    except ModelstacksError as error:
        yield Check("embedded cloud", "failed", error.what, error.fix)
    finally:
        session.close()


def _aws(_: Bench) -> Iterable[Check]:
    """What only `modelstacks deploy` into AWS needs."""
    docker = shutil.which(os.environ.get("CDK_DOCKER", "docker"))
    answers = docker is not None and _runs([docker, "info"])
    yield Check(
        "docker (AWS only)",
        "ok" if answers else "warning",
        docker if answers and docker else "no docker engine answers" if docker else "not installed",
        "" if answers else "`modelstacks up` does without it; to deploy into AWS, install and start Docker",
    )
    named = any(
        os.environ.get(name) for name in ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE")
    )
    known = named or any((Path.home() / ".aws" / name).is_file() for name in ("credentials", "config"))
    yield Check(
        "credentials (AWS only)",
        "ok" if known else "warning",
        "configured; not verified" if known else "none configured",
        "" if known else "`modelstacks up` does without them; to deploy into AWS, run `aws configure`",
    )


# What the services create on their first use: in the middle of a first deploy, which can then fail.
SERVICE_LINKED_ROLES = {
    "AWSServiceRoleForECS": "ecs.amazonaws.com",
    "AWSServiceRoleForElasticLoadBalancing": "elasticloadbalancing.amazonaws.com",
    "AWSServiceRoleForAPIGateway": "ops.apigateway.amazonaws.com",
    "AWSServiceRoleForApplicationAutoScaling_ECSService": "ecs.application-autoscaling.amazonaws.com",
    "AWSServiceRoleForApplicationAutoScaling_SageMakerEndpoint": (
        "sagemaker.application-autoscaling.amazonaws.com"
    ),
}


def _account(account: AwsAccount) -> Iterable[Check]:
    """What a first deploy into an account needs. Every question is a read."""
    try:
        yield Check("AWS account", "ok", f"{account.account_id()} in {account.region()}")
        version = account.bootstrap_version()
        yield Check(
            "CDK bootstrap",
            "failed" if version is None else "ok",
            "this account and region are not bootstrapped" if version is None else f"version {version}",
            "cdk bootstrap" if version is None else "",
        )
        for role, service in SERVICE_LINKED_ROLES.items():
            present = account.has_role(role)
            yield Check(
                f"role {role}",
                "ok" if present else "warning",
                "exists"
                if present
                else "does not exist: the service creates it on its first use, "
                "and a first deploy can fail meanwhile",
                "" if present else f"aws iam create-service-linked-role --aws-service-name {service}",
            )
    except EnvironmentFault as error:
        yield Check("AWS account", "failed", error.what, error.fix)


def _runs(command: list[str]) -> bool:
    try:
        return subprocess.run(command, capture_output=True, timeout=5, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


EXAMINATIONS: tuple[Callable[[Bench], Iterable[Check]], ...] = (
    _python,
    _packages,
    _node_and_cdk,
    _disk,
    _ports,
    _sandbox,
    _embedded_cloud,
    _aws,
)
