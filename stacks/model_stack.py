"""One Plan as one CloudFormation stack: key, model data, compute, API, outputs."""

from __future__ import annotations

from typing import Final

from aws_cdk import CfnOutput, Environment, Stack, Tags
from constructs import Construct

from modelstacks.core.contract import PREDICTIVE_ROUTES
from modelstacks.core.plan import Plan
from stacks.constructs.encryption import customer_key
from stacks.constructs.model_data import ModelData
from stacks.constructs.rest_api import RestApi
from stacks.targets import Foundation, builder

__all__ = ["ModelStack"]


class ModelStack(Stack):
    """A model behind its REST API. It fits any account and region unless the spec's `aws` block names one."""

    API_URL: Final = "ApiUrl"
    API_KEY_ID: Final = "ApiKeyId"

    def __init__(self, scope: Construct, plan: Plan) -> None:
        super().__init__(
            scope,
            plan.stack_name,
            description=f"{plan.description or plan.name} ({plan.architecture}, {plan.model.engine})",
            env=Environment(account=plan.aws.account, region=plan.aws.region) if plan.aws else None,
        )
        key = customer_key(self, plan.stack_name)
        backend = builder(plan.target.target)(self, plan, Foundation(key, ModelData(self, plan.model)))
        api = RestApi(self, "Api", plan=plan, routes=PREDICTIVE_ROUTES, integrate=backend.integrate, key=key)
        backend.admit(api.execute_arn)

        self._output(self.API_URL, "address of the API", api.url)
        self._output("ApiId", "REST API", api.api_id)
        if api.api_key_id:
            self._output(
                self.API_KEY_ID, "aws apigateway get-api-key --include-value --api-key <this>", api.api_key_id
            )
        for name, (description, value) in backend.outputs.items():
            self._output(name, description, value)
        for tag, value in sorted(plan.tags.items()):
            Tags.of(self).add(tag, value)

    def _output(self, name: str, description: str, value: str) -> None:
        CfnOutput(self, name, description=description, value=value)
