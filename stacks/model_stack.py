"""One Plan as one CloudFormation stack: a ModelApi with a network of its own, and the outputs."""

from __future__ import annotations

import os

from aws_cdk import CfnOutput, Environment, Stack, Tags
from constructs import Construct

from modelstacks.core.model import ArtifactModel
from modelstacks.core.plan import Plan

from .constructs.model_data import Archives
from .model_api import NAME_LENGTH, ModelApi

__all__ = ["ModelStack"]


class ModelStack(Stack):
    """A model behind its REST API. It fits any account and region unless the spec's `aws` block names one.

    Args:
        project, archives: as ModelApi has them.

    Attributes:
        model_api: the construct, for grants and metrics.
    """

    def __init__(
        self,
        scope: Construct,
        plan: Plan,
        *,
        project: str | os.PathLike[str] | None = None,
        archives: Archives = "auto",
    ) -> None:
        super().__init__(
            scope,
            plan.stack_name,
            description=f"{plan.description or plan.name} ({plan.architecture}, {_served_by(plan)})",
            env=Environment(account=plan.aws.account, region=plan.aws.region) if plan.aws else None,
        )
        # "Default" is left out of logical ids, so they are what they would be without the construct between.
        self.model_api = ModelApi(
            self,
            "Default",
            plan=plan,
            name=self.stack_name if len(self.stack_name) <= NAME_LENGTH else None,
            project=project,
            archives=archives,
        )
        for output in self.model_api.outputs:
            CfnOutput(self, output.name, description=output.description, value=output.value)
        for tag, value in sorted(plan.tags.items()):
            Tags.of(self).add(tag, value)


def _served_by(plan: Plan) -> str:
    return plan.model.engine if isinstance(plan.model, ArtifactModel) else plan.model.provider
