"""The REST API in front of either architecture: the contract's routes, each a resource of its own.

The backend decides what answers a route (`integrate`). Everything that a caller notices is here, so it is the
same whichever architecture answers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence

from aws_cdk import Aws, CfnDeletionPolicy, CfnResource, Stack
from aws_cdk import aws_apigateway as apigateway
from constructs import Construct

from modelstacks.core.contract import STAGE, Route
from modelstacks.core.plan import Plan

from .encryption import EncryptionKey
from .gateway_responses import gateway_responses
from .iam import allow, service_role
from .logs import log_group
from .nag import acknowledge

__all__ = ["Integration", "RestApi"]

Integration = apigateway.CfnMethod.IntegrationProperty

# One JSON object a request. Nothing of a body, a key or a caller's identity beyond its address.
_ACCESS_LOG = {
    "requestId": "$context.requestId",
    "time": "$context.requestTimeEpoch",
    "ip": "$context.identity.sourceIp",
    "method": "$context.httpMethod",
    "path": "$context.path",
    "route": "$context.resourcePath",
    "status": "$context.status",
    "bytes": "$context.responseLength",
    "latency": "$context.responseLatency",
    "integrationStatus": "$context.integration.status",
    "integrationLatency": "$context.integration.latency",
    "integrationError": "$context.integration.error",
    "error": "$context.error.message",
    "apiKeyId": "$context.identity.apiKeyId",
    "trace": "$context.xrayTraceId",
}

# What API Gateway's own managed policy for its logs allows.
_WRITE_LOGS = [
    "logs:CreateLogGroup",
    "logs:CreateLogStream",
    "logs:DescribeLogGroups",
    "logs:DescribeLogStreams",
    "logs:FilterLogEvents",
    "logs:GetLogEvents",
    "logs:PutLogEvents",
]


class RestApi(Construct):
    """A regional REST API with one stage, throttled, logged and traced. Callers show an API key or sign.

    Args:
        integrate: what answers a route. before_methods: what has to exist before a method is made.
        throttles: API Gateway's failure to call what answers is in the first place its being throttled.
        identity: what replaces the resources behind the integrations when it changes.
    """

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        plan: Plan,
        routes: Sequence[Route],
        integrate: Callable[[Route], Integration],
        before_methods: Sequence[CfnResource],
        identity: Sequence[str],
        key: EncryptionKey,
        throttles: bool = False,
    ) -> None:
        super().__init__(scope, id)
        self._plan = plan
        self._api = self._make_api()
        self.api_id: str = self._api.ref
        self.root_resource_id: str = self._api.attr_root_resource_id
        self._validator = self._make_validator()
        self._resources: dict[str, str] = {"": self.root_resource_id}
        methods = [self._method(route, integrate(route)) for route in routes]
        for method in methods:
            for resource in before_methods:
                method.add_resource_dependency(resource)
        problems = gateway_responses(
            self, self.api_id, auth=plan.api.auth, max_body_bytes=plan.max_body_bytes, throttles=throttles
        )
        deployment = self._deployment(methods, problems, identity)
        self._stage = self._make_stage(deployment, key)
        # Fn::Sub rather than tokens in a string: the output is the URL a person copies.
        self.url: str = f"https://{self.api_id}.execute-api.{Aws.REGION}.{Aws.URL_SUFFIX}/{STAGE}/"
        self.execute_arn: str = (
            f"arn:{Aws.PARTITION}:execute-api:{Aws.REGION}:{Aws.ACCOUNT_ID}:{self.api_id}/{STAGE}/*/*"
        )
        self.api_key_id: str | None = self._usage_plan() if plan.api.auth == "api-key" else None

    def _make_api(self) -> apigateway.CfnRestApi:
        return apigateway.CfnRestApi(
            self,
            "Resource",
            name=self._plan.stack_name,
            description=self._plan.description or None,
            endpoint_configuration=apigateway.CfnRestApi.EndpointConfigurationProperty(types=["REGIONAL"]),
            binary_media_types=["*/*"],  # bodies pass as they are: tensors and images are not text
            api_key_source_type="HEADER",
        )

    def _make_validator(self) -> apigateway.CfnRequestValidator:
        return apigateway.CfnRequestValidator(
            self,
            "Validator",
            rest_api_id=self.api_id,
            name="everything",
            validate_request_parameters=True,
            validate_request_body=True,
        )

    def _resource(self, path: str) -> str:
        """The id of the API resource at a path, made with its parents where it is not there yet."""
        if path not in self._resources:
            parent, _, part = path.rpartition("/")
            resource = apigateway.CfnResource(
                self,
                "Path" + path.replace("/", "-").replace("{", "").replace("}", ""),
                rest_api_id=self.api_id,
                parent_id=self._resource(parent),
                path_part=part,
            )
            self._resources[path] = resource.ref
        return self._resources[path]

    def _method(self, route: Route, integration: Integration) -> apigateway.CfnMethod:
        needs_key = self._plan.api.auth == "api-key"
        required = {f"method.request.path.{name}": True for name in route.parameters}
        required |= {f"method.request.header.{name}": True for name in route.headers}
        method = apigateway.CfnMethod(
            self,
            f"{route.method.capitalize()}{route.path}".replace("/", "-").replace("{", "").replace("}", ""),
            rest_api_id=self.api_id,
            resource_id=self._resource(route.path),
            http_method=route.method,
            operation_name=route.summary[:64],
            authorization_type="NONE" if needs_key else "AWS_IAM",
            api_key_required=needs_key,
            request_validator_id=self._validator.ref,
            request_parameters=required,
            integration=integration,
        )
        if needs_key:
            reason = (
                "api.auth is api-key: each method needs a key of the usage plan; api.auth: iam asks for SigV4"
            )
            acknowledge(method, "APIG4", reason)
        acknowledge(
            method,
            "COG4",
            "callers are programs; they come with an API key or sign with IAM, not with Cognito",
        )
        return method

    def _deployment(
        self,
        methods: Sequence[apigateway.CfnMethod],
        problems: Sequence[apigateway.CfnGatewayResponse],
        identity: Sequence[str],
    ) -> apigateway.CfnDeployment:
        # A deployment is a snapshot of the API: a new logical id, and so a new snapshot, whenever the API
        # changes, or what its integrations refer to is replaced under the same name.
        described = [
            *identity,
            *(
                [m.http_method, m.resource_id, m.authorization_type, m.request_parameters, m.integration]
                for m in methods
            ),
            *(
                [p.response_type, p.status_code, p.response_parameters, p.response_templates]
                for p in problems
            ),
        ]
        resolved = json.dumps(Stack.of(self).resolve(described), sort_keys=True)
        deployment = apigateway.CfnDeployment(
            self, f"Deployment{hashlib.sha256(resolved.encode()).hexdigest()[:12]}", rest_api_id=self.api_id
        )
        for part in (*methods, *problems):
            deployment.add_resource_dependency(part)
        return deployment

    def _make_stage(self, deployment: apigateway.CfnDeployment, key: EncryptionKey) -> apigateway.CfnStage:
        retention = self._plan.logs.retention_days
        access_log = log_group(self, "AccessLog", key=key, retention_days=retention)
        # API Gateway writes its errors to a group of this name. Made here, it is encrypted and has an end.
        errors = log_group(
            self,
            "ExecutionLog",
            key=key,
            retention_days=retention,
            name=f"API-Gateway-Execution-Logs_{self.api_id}/{STAGE}",
        )
        stage = apigateway.CfnStage(
            self,
            "Stage",
            rest_api_id=self.api_id,
            deployment_id=deployment.ref,
            stage_name=STAGE,
            tracing_enabled=True,
            access_log_setting=apigateway.CfnStage.AccessLogSettingProperty(
                # Not the group's own Arn attribute: that ends in ":*", which API Gateway drops and calls a
                # drift.
                destination_arn=(
                    f"arn:{Aws.PARTITION}:logs:{Aws.REGION}:{Aws.ACCOUNT_ID}:log-group:{access_log.ref}"
                ),
                format=json.dumps(_ACCESS_LOG),
            ),
            method_settings=[self._settings_of_methods()],
        )
        if self._plan.api.account_logging_role == "create":
            stage.add_resource_dependency(self._may_log())
        stage.add_resource_dependency(errors)
        acknowledge(
            stage,
            "APIG3",
            "no web ACL: bodies are tensors, and each caller is known by key or signature and throttled; "
            "an organisation's own ACL can be associated with the stage by its ARN",
        )
        return stage

    def _settings_of_methods(self) -> apigateway.CfnStage.MethodSettingProperty:
        throttle = self._plan.api.throttle
        return apigateway.CfnStage.MethodSettingProperty(
            http_method="*",
            resource_path="/*",
            metrics_enabled=True,
            logging_level="ERROR",
            data_trace_enabled=False,  # would write bodies into the log
            throttling_rate_limit=throttle.rate,
            throttling_burst_limit=throttle.burst,
        )

    def _may_log(self) -> apigateway.CfnAccount:
        """API Gateway writes logs under one role for the whole account and region.

        Role and setting outlive the stack, since other APIs of the account may rely on them by then
        (docs/leftovers.md). `api.account_logging_role: existing` leaves both out.
        """
        logs = f"arn:{Aws.PARTITION}:logs:{Aws.REGION}:{Aws.ACCOUNT_ID}:log-group:*"
        role = service_role(
            self,
            "LogsRole",
            service="apigateway.amazonaws.com",
            description="API Gateway writes access and execution logs",
            only_for_this_account=False,
            policies={"write": [allow(_WRITE_LOGS, logs)]},
        )
        acknowledge(
            role,
            "IAM5[Resource::arn:<AWS::Partition>:logs:<AWS::Region>:<AWS::AccountId>:log-group:*]",
            "the account's one role for API Gateway's logs; it names its execution log groups itself",
        )
        account = apigateway.CfnAccount(self, "Account", cloud_watch_role_arn=role.attr_arn)
        # In an account that never had an API the setting cannot be made before there is one.
        account.add_resource_dependency(self._api)
        for resource in (role, account):
            resource.cfn_options.deletion_policy = CfnDeletionPolicy.RETAIN
            resource.cfn_options.update_replace_policy = CfnDeletionPolicy.RETAIN
        return account

    def _usage_plan(self) -> str:
        api, throttle = self._plan.api, self._plan.api.throttle
        plan = apigateway.CfnUsagePlan(
            self,
            "UsagePlan",
            usage_plan_name=self._plan.stack_name,
            api_stages=[
                apigateway.CfnUsagePlan.ApiStageProperty(api_id=self.api_id, stage=self._stage.ref),
            ],
            throttle=apigateway.CfnUsagePlan.ThrottleSettingsProperty(
                rate_limit=throttle.rate, burst_limit=throttle.burst
            ),
            quota=(
                apigateway.CfnUsagePlan.QuotaSettingsProperty(
                    limit=api.quota.requests, period=api.quota.per.upper()
                )
                if api.quota
                else None
            ),
        )
        key = apigateway.CfnApiKey(
            self,
            "Key",
            enabled=True,
            description=f"calls {self._plan.stack_name}; its value never stands in a template",
        )
        apigateway.CfnUsagePlanKey(
            self, "UsagePlanKey", key_id=key.ref, key_type="API_KEY", usage_plan_id=plan.ref
        )
        return key.ref
