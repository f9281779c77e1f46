"""Plans in, cloud assembly out."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from aws_cdk import App
from aws_cdk.cx_api import CloudAssembly

from modelstacks.core.plan import Plan

from .constructs.model_data import Archives
from .model_stack import ModelStack

__all__ = ["build_app", "synthesize"]


def build_app(
    plans: Sequence[Plan],
    *,
    outdir: str | None = None,
    context: Mapping[str, Any] | None = None,
    project: str | os.PathLike[str] | None = None,
    archives: Archives = "auto",
) -> App:
    """An app with one stack a plan. The CDK CLI gives `outdir` and `context` through the environment."""
    app = App(outdir=outdir, context=dict(context) if context else None, analytics_reporting=False)
    for plan in plans:
        ModelStack(app, plan, project=project, archives=archives)
    return app


def synthesize(
    plans: Sequence[Plan],
    *,
    outdir: str | None = None,
    context: Mapping[str, Any] | None = None,
    project: str | os.PathLike[str] | None = None,
    archives: Archives = "auto",
) -> CloudAssembly:
    """Write the templates and asset manifests of `plans`."""
    return build_app(plans, outdir=outdir, context=context, project=project, archives=archives).synth()
