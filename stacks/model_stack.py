"""One Plan as one CloudFormation stack: key, model data, compute, API, outputs."""

from __future__ import annotations

from aws_cdk import CfnOutput, Environment, Stack, Tags
from constructs import Construct

from modelstacks.core.contract import routes
from modelstacks.core.model import ArtifactModel
from modelstacks.core.plan import Plan

from .constructs.encryption import customer_key
from .constructs.model_data import ModelData
from .constructs.rest_api import RestApi
from .targets import Foundation, Output, builder

__all__ = ["ModelStack"]


class ModelStack(Stack):
    """A model behind its REST API. It fits any account and region unless the spec's `aws` block names one."""

    def __init__(self, scope: Construct, plan: Plan) -> None:
        super().__init__(
            scope,
            plan.stack_name,
            description=f"{plan.description or plan.name} ({plan.architecture}, {_served_by(plan)})",
            env=Environment(account=plan.aws.account, region=plan.aws.region) if plan.aws else None,
        )
        key = customer_key(self, plan.stack_name)
        backend = builder(plan.target.target)(self, plan, Foundation(key, _model_data(self, plan)))
        api = RestApi(
            self,
            "Api",
            plan=plan,
            routes=routes(plan.contracts),
            integrate=backend.integrate,
            before_methods=backend.before_methods,
            throttles=backend.throttles,
            identity=backend.identity,
            key=key,
        )
        backend.admit(api.execute_arn)

        outputs = [
            Output("ApiUrl", "address of the API", api.url),
            Output("ApiId", "REST API", api.api_id),
            *backend.outputs,
        ]
        if api.api_key_id:
            how = "aws apigateway get-api-key --include-value --query value --api-key <this>"
            outputs.append(Output("ApiKeyId", how, api.api_key_id))
        for output in outputs:
            CfnOutput(self, output.name, description=output.description, value=output.value)
        for tag, value in sorted(plan.tags.items()):
            Tags.of(self).add(tag, value)


def _model_data(stack: Stack, plan: Plan) -> ModelData | None:
    """The model's archive; None where its provider hosts it."""
    if not isinstance(plan.model, ArtifactModel):
        return None
    return ModelData(stack, plan.model, package_command=plan.package_command)


def _served_by(plan: Plan) -> str:
    return plan.model.engine if isinstance(plan.model, ArtifactModel) else plan.model.provider
