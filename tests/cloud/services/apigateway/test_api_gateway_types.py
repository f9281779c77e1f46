"""REST APIs: what CloudFormation was told of them is what API Gateway's own API says."""

from __future__ import annotations

import copy
from typing import Any

from support.control_plane import LOGGING, NETWORK, Account

API = {"RestApiId": {"Ref": "Api"}}
BALANCER = "arn:aws:elasticloadbalancing:eu-west-1:123456789012:loadbalancer/app/a/1"


def typed(kind: str, /, **properties: Any) -> dict[str, Any]:
    return {"Type": f"AWS::ApiGateway::{kind}", "Properties": properties}


def rest_api() -> dict[str, Any]:
    """A REST API with everything that our stacks put into one."""
    integration = {
        "Type": "HTTP_PROXY",
        "IntegrationHttpMethod": "POST",
        "Uri": "http://alb.internal/v2/models/{model}/infer",
        "ConnectionType": "VPC_LINK",
        "ConnectionId": {"Ref": "Link"},
        "IntegrationTarget": BALANCER,
        "RequestParameters": {"integration.request.path.model": "method.request.path.model"},
        "TimeoutInMillis": 20000,
    }
    return copy.deepcopy(NETWORK | LOGGING) | {
        "Link": {
            "Type": "AWS::ApiGatewayV2::VpcLink",
            "Properties": {
                "Name": "l",
                "SubnetIds": [{"Ref": "Subnet"}],
                "SecurityGroupIds": [{"Ref": "Group"}],
            },
        },
        "Api": typed(
            "RestApi",
            Name="api",
            BinaryMediaTypes=["*/*"],
            EndpointConfiguration={"Types": ["REGIONAL"]},
            Tags=[{"Key": "team", "Value": "ml"}],
        ),
        "Models": typed(
            "Resource", **API, ParentId={"Fn::GetAtt": ["Api", "RootResourceId"]}, PathPart="models"
        ),
        "Model": typed("Resource", **API, ParentId={"Ref": "Models"}, PathPart="{model}"),
        "Validator": typed("RequestValidator", **API, Name="v", ValidateRequestParameters=True),
        "Schema": typed(
            "Model", **API, Name="Rows", ContentType="application/json", Schema={"type": "object"}
        ),
        "Infer": typed(
            "Method",
            **API,
            ResourceId={"Ref": "Model"},
            HttpMethod="POST",
            AuthorizationType="AWS_IAM",
            ApiKeyRequired=True,
            RequestValidatorId={"Ref": "Validator"},
            RequestModels={"application/json": {"Ref": "Schema"}},
            RequestParameters={"method.request.path.model": True, "method.request.header.Content-Type": True},
            Integration=integration,
        ),
        "Deployment": {**typed("Deployment", **API, Description="first"), "DependsOn": "Infer"},
        "Stage": {"DependsOn": "Account"}
        | typed(
            "Stage",
            **API,
            StageName="live",
            DeploymentId={"Ref": "Deployment"},
            TracingEnabled=True,
            Variables={"colour": "blue"},
            AccessLogSetting={
                "DestinationArn": "arn:aws:logs:eu-west-1:123456789012:log-group:g",
                "Format": "$context.requestId",
            },
            MethodSettings=[
                {
                    "HttpMethod": "*",
                    "ResourcePath": "/*",
                    "ThrottlingRateLimit": 100.5,
                    "ThrottlingBurstLimit": 50,
                    "MetricsEnabled": True,
                },
                {"HttpMethod": "POST", "ResourcePath": "/models/{model}", "ThrottlingRateLimit": 7},
            ],
        ),
        "NotAllowed": typed(
            "GatewayResponse",
            **API,
            ResponseType="UNAUTHORIZED",
            StatusCode="401",
            ResponseTemplates={"application/problem+json": "{}"},
        ),
        "Key": typed("ApiKey", Name="key", Enabled=True, Value="a-value-of-at-least-20-chars"),
        "Plan": typed(
            "UsagePlan",
            UsagePlanName="plan",
            ApiStages=[{"ApiId": {"Ref": "Api"}, "Stage": {"Ref": "Stage"}, "Throttle": {}}],
            Throttle={"RateLimit": 2.5, "BurstLimit": 5},
            Quota={"Limit": 1000, "Period": "DAY"},
        ),
        "Member": typed("UsagePlanKey", KeyId={"Ref": "Key"}, KeyType="API_KEY", UsagePlanId={"Ref": "Plan"}),
    }


def test_an_integration_remembers_its_connection(account: Account) -> None:
    ids = account.create("integration", rest_api())
    gateway = account.client("apigateway")
    words = {"restApiId": ids["Api"], "resourceId": ids["Model"], "httpMethod": "POST"}
    method = gateway.get_method(**words)
    assert (method["authorizationType"], method["apiKeyRequired"]) == ("AWS_IAM", True)
    assert method["requestValidatorId"] == ids["Validator"]
    assert method["requestParameters"]["method.request.header.Content-Type"] is True
    assert method["requestModels"] == {"application/json": "Rows"}
    integration = gateway.get_integration(**words)
    assert integration["connectionType"] == "VPC_LINK"
    assert integration["connectionId"] == ids["Link"]
    assert integration["integrationTarget"] == BALANCER
    assert integration["uri"] == "http://alb.internal/v2/models/{model}/infer"
    assert integration["requestParameters"] == {"integration.request.path.model": "method.request.path.model"}
    assert integration["timeoutInMillis"] == 20000
    resource = next(
        r for r in gateway.get_resources(restApiId=ids["Api"])["items"] if r["id"] == ids["Model"]
    )
    assert resource["path"] == "/models/{model}"


def test_a_method_changes_in_place(account: Account) -> None:
    resources = rest_api()
    ids = account.create("method", resources)
    other = copy.deepcopy(resources)
    other["Infer"]["Properties"] |= {"ApiKeyRequired": False, "AuthorizationType": "NONE"}
    other["Infer"]["Properties"]["Integration"]["TimeoutInMillis"] = 5000
    assert account.update("method", other) == ids
    words = {"restApiId": ids["Api"], "resourceId": ids["Model"], "httpMethod": "POST"}
    method = account.client("apigateway").get_method(**words)
    assert (method["authorizationType"], method["apiKeyRequired"]) == ("NONE", False)
    assert method["methodIntegration"]["timeoutInMillis"] == 5000


def test_an_api_and_its_stage_say_what_the_template_says(account: Account) -> None:
    resources = rest_api()
    ids = account.create("stage", resources)
    gateway = account.client("apigateway")
    api = gateway.get_rest_api(restApiId=ids["Api"])
    assert (api["binaryMediaTypes"], api["endpointConfiguration"]["types"]) == (["*/*"], ["REGIONAL"])
    assert api["tags"] == {"team": "ml"}

    def stage() -> Any:
        return gateway.get_stage(restApiId=ids["Api"], stageName="live")

    assert stage()["deploymentId"] == ids["Deployment"]
    assert stage()["tracingEnabled"] is True
    assert stage()["variables"] == {"colour": "blue"}
    assert stage()["accessLogSettings"]["format"] == "$context.requestId"
    assert stage()["methodSettings"]["*/*"]["throttlingRateLimit"] == 100.5
    assert stage()["methodSettings"]["*/*"]["metricsEnabled"] is True
    assert stage()["methodSettings"]["~1models~1{model}/POST"]["throttlingRateLimit"] == 7

    other = copy.deepcopy(resources)
    own = other["Stage"]["Properties"]
    own["MethodSettings"] = [{"HttpMethod": "*", "ResourcePath": "/*", "ThrottlingRateLimit": 3}]
    own["Variables"] = {"shape": "round"}
    del own["AccessLogSetting"]
    assert account.update("stage", other)["Stage"] == "live"
    assert stage()["methodSettings"]["*/*"]["throttlingRateLimit"] == 3
    assert stage()["variables"] == {"shape": "round"}
    assert not stage().get("accessLogSettings")


def test_a_new_deployment_moves_the_stage_and_the_old_one_goes(account: Account) -> None:
    resources = rest_api()
    ids = account.create("redeployed", resources)
    other = {
        ("Deployment2" if name == "Deployment" else name): value
        for name, value in copy.deepcopy(resources).items()
    }
    other["Stage"]["Properties"]["DeploymentId"] = {"Ref": "Deployment2"}
    after = account.update("redeployed", other)
    gateway = account.client("apigateway")
    assert gateway.get_stage(restApiId=ids["Api"], stageName="live")["deploymentId"] == after["Deployment2"]
    assert [one["id"] for one in gateway.get_deployments(restApiId=ids["Api"])["items"]] == [
        after["Deployment2"]
    ]


def test_keys_and_plans_limit_their_callers(account: Account) -> None:
    resources = rest_api()
    ids = account.create("plan", resources)
    gateway = account.client("apigateway")
    plan = gateway.get_usage_plan(usagePlanId=ids["Plan"])
    assert plan["throttle"] == {"rateLimit": 2.5, "burstLimit": 5}
    assert plan["quota"]["limit"] == 1000
    assert [(one["apiId"], one["stage"]) for one in plan["apiStages"]] == [(ids["Api"], "live")]
    (key,) = gateway.get_usage_plan_keys(usagePlanId=ids["Plan"])["items"]
    assert key["id"] == ids["Key"]
    found = gateway.get_api_key(apiKey=ids["Key"], includeValue=True)
    assert (found["value"], found["enabled"]) == ("a-value-of-at-least-20-chars", True)

    other = copy.deepcopy(resources)
    other["Plan"]["Properties"]["Throttle"] = {"RateLimit": 9.5, "BurstLimit": 10}
    del other["Plan"]["Properties"]["Quota"]
    other["Key"]["Properties"]["Enabled"] = False
    assert account.update("plan", other) == ids
    plan = gateway.get_usage_plan(usagePlanId=ids["Plan"])
    assert plan["throttle"] == {"rateLimit": 9.5, "burstLimit": 10}
    assert not plan.get("quota")
    assert [one["apiId"] for one in plan["apiStages"]] == [ids["Api"]]
    assert gateway.get_api_key(apiKey=ids["Key"])["enabled"] is False
    account.delete("plan")
    assert gateway.get_usage_plans()["items"] == []
    assert gateway.get_api_keys()["items"] == []


def test_validators_and_gateway_responses_change(account: Account) -> None:
    resources = rest_api()
    ids = account.create("answers", resources)
    gateway = account.client("apigateway")
    other = copy.deepcopy(resources)
    other["Validator"]["Properties"] |= {"ValidateRequestBody": True, "ValidateRequestParameters": False}
    other["NotAllowed"]["Properties"]["StatusCode"] = "403"
    account.update("answers", other)
    validator = gateway.get_request_validator(restApiId=ids["Api"], requestValidatorId=ids["Validator"])
    assert (validator["validateRequestBody"], validator["validateRequestParameters"]) == (True, False)
    answer = gateway.get_gateway_response(restApiId=ids["Api"], responseType="UNAUTHORIZED")
    assert answer["statusCode"] == "403"
    assert answer["responseTemplates"] == {"application/problem+json": "{}"}


def test_the_account_s_logging_role_is_kept(account: Account) -> None:
    ids = account.create("logging", LOGGING)
    arn = account.client("iam").get_role(RoleName=ids["LogsRole"])["Role"]["Arn"]
    assert account.client("apigateway").get_account()["cloudwatchRoleArn"] == arn


def test_an_api_written_as_openapi_is_refused_by_name(account: Account) -> None:
    account.stacks.append("openapi")
    body = account.template({"Api": typed("RestApi", Body={"openapi": "3.0.1"})})
    account.client("cloudformation").create_stack(StackName="openapi", TemplateBody=body)
    assert account.reasons("openapi") == {
        "Api": "Body is not emulated: define the API by resources and methods"
    }
