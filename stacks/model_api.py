"""A model behind its REST API, as a construct for a stack that somebody has already."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from aws_cdk import Aws, Names, Stack, Tags, Token
from aws_cdk import aws_apigateway as apigateway
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from constructs import Construct

from modelstacks.core.contract import STAGE, routes
from modelstacks.core.errors import UsageError
from modelstacks.core.model import ArtifactModel
from modelstacks.core.plan import Plan
from modelstacks.core.plan.outputs import outputs

from .constructs.encryption import customer_key, given_key
from .constructs.given_network import GivenNetwork, Place
from .constructs.iam import Statement
from .constructs.model_data import Archives, ModelData
from .constructs.network import Addresses, IsolatedNetwork, Network
from .constructs.rest_api import RestApi
from .targets import Backend, Foundation, Output, builder

__all__ = ["ModelApi"]

# SageMaker's endpoint names have at most 63 characters, 9 of which say which instance type it is.
NAME_LENGTH = 54


class ModelApi(Construct):
    """A REST API, the model behind it, and everything between them.

    Without a `vpc` it makes a network of its own, with no way out. With one, it uses that VPC's subnets and
    makes the endpoints that `endpoints` does not name. Properties of the model, the API and the compute come
    from the spec; an argument here is a CDK object, which a spec cannot name.

    Args:
        plan: what `load_plan` returns.
        vpc: the VPC to run in; None makes one.
        vpc_subnets: subnets of two zones or more; by default the VPC's isolated, or else its private ones.
        endpoints: the endpoints that the VPC has, by the last part of the service's name ("ecr.api", "s3").
        create_endpoints: whether the ones that the VPC lacks are made; False where the subnets have a route
            to AWS services.
        security_groups: groups that what holds the model gets beside its own.
        encryption_key: encrypts logs and volumes; None makes a key. An imported key's policy has to let
            CloudWatch Logs use it.
        name: the beginning of the names of all that needs one; by default made of the construct's path.
        project: the folder whose .modelstacks/ has the packaged archives; by default the working directory.
        archives: where the model's archive comes from when assets are published (constructs/model_data.py).

    Attributes:
        url: the API's address, with its stage and a slash at the end.
        api_key_id: the id of the API key; None where the spec has `api.auth: iam`.
        outputs: what a person will want to know of the deployment. A construct makes no stack outputs itself.

    Raises:
        UsageError: the VPC lacks what a deployment needs, or the spec names another account or region.

    Example:
        class Shop(Stack):
            def __init__(self, scope, id, *, vpc, **kwargs):
                super().__init__(scope, id, **kwargs)
                churn = ModelApi(self, "Churn", plan=load_plan("deployments/churn.yaml"), vpc=vpc)
                churn.grant_invoke(checkout_role)
                churn.metric_server_error().create_alarm(self, "Errors", threshold=1, evaluation_periods=3)
    """

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        plan: Plan,
        vpc: ec2.IVpc | None = None,
        vpc_subnets: ec2.SubnetSelection | None = None,
        endpoints: Mapping[str, ec2.IVpcEndpoint] | None = None,
        create_endpoints: bool = True,
        security_groups: Sequence[ec2.ISecurityGroup] = (),
        encryption_key: kms.IKey | None = None,
        name: str | None = None,
        project: str | os.PathLike[str] | None = None,
        archives: Archives = "auto",
    ) -> None:
        super().__init__(scope, id)
        _check_environment(self, plan)
        # Several of one spec can be in one account: one in each stage of an app, for example.
        self._plan = plan.model_copy(update={"stack_name": name or _name(self)})
        self._place = Place(vpc, vpc_subnets, endpoints or {}, create_endpoints) if vpc else None
        if vpc is None and (vpc_subnets or endpoints or not create_endpoints):
            raise UsageError(
                f"{self.node.path}: vpc_subnets and endpoints are parts of a VPC, and vpc is not given",
                fix="pass vpc, or leave them out",
            )
        self._key = given_key(encryption_key) if encryption_key else customer_key(self, self._plan.stack_name)
        model_data = self._model_data(Path(project or ""), archives)
        groups = tuple(group.security_group_id for group in security_groups)
        backend = builder(plan.target.target)(
            self, self._plan, Foundation(self._key, model_data, self._network, groups)
        )
        self._api = self._rest_api(backend)
        self.url: str = self._api.url
        self.api_key_id: str | None = self._api.api_key_id
        self.outputs: tuple[Output, ...] = self._outputs(backend)
        for tag, value in sorted(plan.tags.items()):
            Tags.of(self).add(tag, value)

    @property
    def api(self) -> apigateway.IRestApi:
        """The REST API as an object of the CDK's own library."""
        made = self.node.try_find_child("RestApi") or apigateway.RestApi.from_rest_api_attributes(
            self,
            "RestApi",
            rest_api_id=self._api.api_id,
            root_resource_id=self._api.root_resource_id,
        )
        return cast(apigateway.IRestApi, made)

    def grant_invoke(self, grantee: iam.IGrantable) -> iam.Grant:
        """Let a principal of this account sign requests to the API. The spec has to have `api.auth: iam`."""
        if self._plan.api.auth != "iam":
            raise UsageError(
                f"{self.node.path}: callers of this API show a key, and no IAM policy lets them in",
                got=f"api.auth: {self._plan.api.auth}",
                fix="set api.auth: iam in the spec, or let the caller read the key: grant_read_api_key",
            )
        return iam.Grant.add_to_principal(
            grantee=grantee, actions=["execute-api:Invoke"], resource_arns=[self._api.execute_arn]
        )

    def grant_read_api_key(self, grantee: iam.IGrantable) -> iam.Grant:
        """Let a principal read the API key's value (`aws apigateway get-api-key --include-value`)."""
        if self.api_key_id is None:
            raise UsageError(
                f"{self.node.path}: this API has no key",
                got=f"api.auth: {self._plan.api.auth}",
                fix="set api.auth: api-key in the spec, or use grant_invoke",
            )
        key = f"arn:{Aws.PARTITION}:apigateway:{Aws.REGION}::/apikeys/{self.api_key_id}"
        return iam.Grant.add_to_principal(grantee=grantee, actions=["apigateway:GET"], resource_arns=[key])

    def metric(self, metric_name: str, **options: Any) -> cloudwatch.Metric:
        """One of API Gateway's metrics of this API's stage; `options` are those of cloudwatch.Metric."""
        return cloudwatch.Metric(
            namespace="AWS/ApiGateway",
            metric_name=metric_name,
            dimensions_map={"ApiName": self._plan.stack_name, "Stage": STAGE},
            **options,
        ).attach_to(self)

    def metric_count(self, **options: Any) -> cloudwatch.Metric:
        """How many requests there were."""
        return self.metric("Count", **{"statistic": "SampleCount", **options})

    def metric_client_error(self, **options: Any) -> cloudwatch.Metric:
        """How many requests were answered with a 4xx status."""
        return self.metric("4XXError", **{"statistic": "Sum", **options})

    def metric_server_error(self, **options: Any) -> cloudwatch.Metric:
        """How many requests were answered with a 5xx status."""
        return self.metric("5XXError", **{"statistic": "Sum", **options})

    def metric_latency(self, **options: Any) -> cloudwatch.Metric:
        """Milliseconds from a request to its answer, API Gateway included; by default the 99th percentile."""
        return self.metric("Latency", **{"statistic": "p99", **options})

    def metric_integration_latency(self, **options: Any) -> cloudwatch.Metric:
        """Milliseconds that the model behind the API took; by default the 99th percentile."""
        return self.metric("IntegrationLatency", **{"statistic": "p99", **options})

    def _model_data(self, project: Path, archives: Archives) -> ModelData | None:
        """The model's archive; None where its provider hosts it."""
        model, command = self._plan.model, self._plan.package_command
        if not isinstance(model, ArtifactModel):
            return None
        return ModelData(self, model, package_command=command, project=project, archives=archives)

    def _network(self, s3: Sequence[Statement]) -> Network:
        """The user's subnets, or a network of its own; `s3` is all that may be asked of S3 from inside."""
        if self._place:
            return GivenNetwork(self, "Network", place=self._place, s3=s3)
        plan = self._plan
        return IsolatedNetwork(
            self,
            "Network",
            name=plan.stack_name,
            addresses=Addresses.of(plan.network),
            zones=plan.aws.zones if plan.aws else None,
            key=self._key,
            retention_days=plan.logs.retention_days,
            s3=s3,
        )

    def _rest_api(self, backend: Backend) -> RestApi:
        api = RestApi(
            self,
            "Api",
            plan=self._plan,
            routes=routes(self._plan.contracts),
            integrate=backend.integrate,
            before_methods=backend.before_methods,
            throttles=backend.throttles,
            identity=backend.identity,
            key=self._key,
        )
        backend.admit(api.execute_arn)
        return api

    def _outputs(self, backend: Backend) -> tuple[Output, ...]:
        values = {"ApiUrl": self.url, "ApiId": self._api.api_id, **backend.outputs}
        if self.api_key_id:
            values["ApiKeyId"] = self.api_key_id
        declared = outputs(self._plan)
        if values.keys() != declared.keys():
            name = self._plan.target.target
            raise TypeError(f"{name} declares the outputs {[*declared]} and is built with {[*values]}")
        return tuple(Output(name, declared[name], values[name]) for name in declared)


def _check_environment(construct: Construct, plan: Plan) -> None:
    """Refuse a stack in another account or region than the spec's `aws` block names.

    Raises:
        UsageError: the two differ. What the stack leaves open until it is deployed is not compared.
    """
    stack = Stack.of(construct)
    named = {"account": plan.aws.account, "region": plan.aws.region} if plan.aws else {}
    for what, wanted in named.items():
        got = stack.account if what == "account" else stack.region
        if wanted and not Token.is_unresolved(got) and got != wanted:
            raise UsageError(
                f"{construct.node.path}: the spec is for another {what} than the stack",
                got=f"aws.{what}: {wanted} in the spec, {got} in the stack",
                fix="make them the same, or leave the aws block out of the spec",
            )


def _name(construct: Construct) -> str:
    return Names.unique_resource_name(
        construct, max_length=NAME_LENGTH, separator="-", allowed_special_characters="-"
    )
