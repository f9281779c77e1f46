"""What `deploy` and `destroy` do before they run the CDK CLI on the caller's own AWS account."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from modelstacks.core.errors import EnvironmentFault

if TYPE_CHECKING:
    from pathlib import Path

    from modelstacks.cli.context import CommandContext
    from modelstacks.core.plan import Plan, Selection

__all__ = ["cdk_arguments", "refuse_another_endpoint"]


def refuse_another_endpoint() -> None:
    """Raise EnvironmentFault if AWS_ENDPOINT_URL names something other than AWS."""
    if endpoint := os.environ.get("AWS_ENDPOINT_URL"):
        raise EnvironmentFault(
            f"AWS_ENDPOINT_URL points to {endpoint}: this would not reach AWS",
            fix="unset AWS_ENDPOINT_URL, or use `modelstacks up` for the embedded cloud",
        )


def cdk_arguments(
    context: CommandContext, paths: Sequence[Path], plans: Sequence[Plan], architecture: Selection
) -> list[str]:
    """Return the arguments of `cdk deploy` or `cdk destroy`: stacks, context values, the caller's own."""
    return [
        *(plan.stack_name for plan in plans),
        "-c",
        f"deployment={','.join(map(str, paths))}",
        "-c",
        f"architecture={architecture}",
        *context.cdk_arguments,
    ]
