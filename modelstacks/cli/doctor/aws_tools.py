"""Checks what only `modelstacks deploy` into AWS needs on this machine: an image builder and credentials."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from modelstacks.cli.doctor.check import Check
from modelstacks.core.errors import ModelstacksError

if TYPE_CHECKING:
    from modelstacks.cli.context import CommandContext

__all__ = ["examine_aws_tools"]


def examine_aws_tools(context: CommandContext) -> Iterator[Check]:
    """Check the program that builds images, and the AWS credentials. Neither is needed by `up`."""
    name = "image builder (AWS only)"
    try:
        yield Check(name, "ok", context.cdk.image_builder())
    except ModelstacksError as error:
        found = f"{error.what}: {error.got}" if error.got else error.what
        yield Check(name, "warning", found, error.fix)
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
