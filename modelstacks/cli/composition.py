"""Connects the commands to the real embedded cloud, CDK CLI and sandbox, each imported on first use."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from modelstacks.cli.console.terminal import Terminal
from modelstacks.cli.context import CommandContext
from modelstacks.cli.project import find_project

if TYPE_CHECKING:
    from modelstacks.adapters.sandbox import Sandbox
    from modelstacks.cli.interfaces import Cdk, Cloud
    from modelstacks.core.ports import Ports

__all__ = ["real_context"]


def real_context() -> CommandContext:
    """Return the context of a command that a person runs in the current directory."""
    return CommandContext(
        project=find_project(Path.cwd()),
        terminal=Terminal(),
        open_cloud=_cloud,
        open_cdk=_cdk,
        open_ports=_ports,
        open_sandbox=_sandbox,
        debug=os.environ.get("MODELSTACKS_DEBUG", "") not in ("", "0"),
    )


def _cloud() -> Cloud:
    from modelstacks.cloud import client

    return client


def _cdk(project: Path) -> Cdk:
    from modelstacks.cli.toolchain import CdkCli

    return CdkCli(project)


def _ports(project: Path) -> Ports:
    from modelstacks.cli.ports import real_ports

    return real_ports(project)


def _sandbox() -> Sandbox:
    from modelstacks.adapters.sandbox import choose, wish

    return choose(wish())
