"""Checks what `modelstacks up` needs of this machine: Python, packages, Node, disk, ports, a sandbox."""

from __future__ import annotations

import os
import shutil
import socket
import sys
from collections.abc import Iterator
from importlib import metadata
from typing import TYPE_CHECKING

from modelstacks.cli.doctor.check import Check
from modelstacks.core.errors import ModelstacksError

if TYPE_CHECKING:
    from modelstacks.cli.context import CommandContext

__all__ = ["examine_machine"]

OLDEST_PYTHON = (3, 11)
#: Bytes; the environment of one engine takes several hundred MB.
LEAST_DISK = 2 << 30
#: The packages that each command imports; without them it cannot run.
PACKAGES = {
    "cdk synth": ("aws-cdk-lib", "constructs"),
    "modelstacks lock": ("boto3", "huggingface-hub", "sagemaker"),
    "modelstacks up": ("awslambdaric", "boto3", "moto", "psutil", "starlette", "uvicorn"),
}


def examine_machine(context: CommandContext) -> Iterator[Check]:
    """Yield one finding per thing that `up` needs."""
    yield _python()
    yield from _packages()
    yield from _node_and_cdk(context)
    yield from _disk(context)
    yield _ports()
    yield _sandbox(context)
    yield _embedded_cloud(context)


def _python() -> Check:
    version = ".".join(map(str, sys.version_info[:3]))
    fine = sys.version_info >= OLDEST_PYTHON
    return Check(
        "python",
        "ok" if fine else "failed",
        f"{version} at {sys.executable}",
        "" if fine else "make setup PYTHON=/path/to/python3.11",
    )


def _packages() -> Iterator[Check]:
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


def _node_and_cdk(context: CommandContext) -> Iterator[Check]:
    for name in ("node", "cdk CLI"):
        try:
            yield Check(name, "ok", context.cdk.node() if name == "node" else context.cdk.cli())
        except ModelstacksError as error:
            yield Check(name, "failed", error.what, error.fix or "make setup")


def _disk(context: CommandContext) -> Iterator[Check]:
    free = shutil.disk_usage(context.project).free
    fine = free >= LEAST_DISK
    yield Check(
        "disk",
        "ok" if fine else "failed",
        f"{free / (1 << 30):.1f} GiB free at {context.project}",
        ""
        if fine
        else f"free {LEAST_DISK >> 30} GiB, or `modelstacks down --purge` to delete installed images",
    )
    if not os.access(context.project, os.W_OK):
        yield Check(
            "project folder", "failed", f"{context.project} is not writable", "change its permissions"
        )


def _ports() -> Check:
    try:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
        address = socket.gethostbyname("localhost")
    except OSError as error:
        return Check(
            "ports", "failed", f"no loopback port can be opened: {error.strerror}", "check the firewall"
        )
    fine = address.startswith("127.")
    return Check(
        "ports",
        "ok" if fine else "warning",
        f"loopback ports open, localhost is {address}",
        "" if fine else "let localhost resolve to 127.0.0.1 in /etc/hosts",
    )


def _sandbox(context: CommandContext) -> Check:
    """Check what models run in, here and in the embedded cloud."""
    from modelstacks.adapters.sandbox import FIX

    try:
        sandbox = context.sandbox
    except ModelstacksError as error:
        return Check("sandbox", "failed", f"{error.what}: {error.got}", error.fix)
    if sandbox.kind == "none":
        return Check("sandbox", "warning", f"{sandbox.summary} ({sandbox.lacking})", FIX)
    return Check("sandbox", "ok", sandbox.summary)


def _embedded_cloud(context: CommandContext) -> Check:
    try:
        session = context.cloud.attach(context.project)
    except ModelstacksError as error:
        return Check("embedded cloud", "failed", error.what, error.fix)
    if session is None:
        return Check("embedded cloud", "ok", "not running")
    try:
        return Check("embedded cloud", "ok", f"running, pid {session.status().pid}")
    except ModelstacksError as error:
        return Check("embedded cloud", "failed", error.what, error.fix)
    finally:
        session.close()
