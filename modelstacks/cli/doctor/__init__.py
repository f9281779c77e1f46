"""The checks of `modelstacks doctor`: this machine, the tools for a deploy into AWS, the AWS account."""

from __future__ import annotations

from typing import TYPE_CHECKING

from modelstacks.cli.doctor.account import examine_account
from modelstacks.cli.doctor.aws_tools import examine_aws_tools
from modelstacks.cli.doctor.check import Check
from modelstacks.cli.doctor.machine import examine_machine

if TYPE_CHECKING:
    from modelstacks.cli.context import CommandContext

__all__ = ["Check", "examine"]


def examine(context: CommandContext, *, aws: bool) -> list[Check]:
    """Return every finding, those of the caller's AWS account included if `aws`."""
    checks = [*examine_machine(context), *examine_aws_tools(context)]
    if aws:
        from modelstacks.adapters.aws_account import AwsAccount

        checks += examine_account(AwsAccount())
    return checks
