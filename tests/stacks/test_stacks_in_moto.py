"""Both templates created by CloudFormation in this process, and what came to be read back through boto3."""

from __future__ import annotations

import io
import json
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import WaiterError
from moto import mock_aws

ACCOUNT, REGION = "123456789012", "us-east-1"
ASSETS = f"cdk-hnb659fds-assets-{ACCOUNT}-{REGION}"


@contextmanager
def succeeding_custom_resources() -> Iterator[None]:
    """What a data plane does: here no function runs, and every custom resource succeeds."""
    from modelstacks.cloud.services.cloudformation.custom_resources import custom_resources

    over = threading.Event()

    def answer() -> None:
        while not over.is_set():
            for question in custom_resources.take(0.2):
                custom_resources.answer(question["token"], {"Status": "SUCCESS", "PhysicalResourceId": "it"})

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    yield
    over.set()
    thread.join()


@pytest.fixture(scope="module")
def aws(assembly: Path) -> Iterator[None]:
    """An account with the bootstrap's bucket and both stacks."""
    from modelstacks.cloud.account import additions

    with pytest.MonkeyPatch.context() as patch, mock_aws(), succeeding_custom_resources():
        for name in ("AWS_ENDPOINT_URL", "AWS_PROFILE"):
            patch.delenv(name, raising=False)
        for name, value in {
            "AWS_ACCESS_KEY_ID": "id",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": REGION,
        }.items():
            patch.setenv(name, value)
        additions.install()
        boto3.client("ssm").put_parameter(Name="/cdk-bootstrap/hnb659fds/version", Value="30", Type="String")
        s3 = boto3.client("s3")
        s3.create_bucket(Bucket=ASSETS)
        code = io.BytesIO()
        with zipfile.ZipFile(code, "w") as archive:
            archive.writestr("handler.py", "")
        for name in ("churn-self-hosted", "churn-managed"):
            assets = json.loads((assembly / f"{name}.assets.json").read_text())
            for asset in assets["files"].values():
                for destination in asset["destinations"].values():
                    s3.put_object(Bucket=ASSETS, Key=destination["objectKey"], Body=code.getvalue())
            boto3.client("cloudformation").create_stack(
                StackName=name,
                TemplateBody=(assembly / f"{name}.template.json").read_text(),
                Capabilities=["CAPABILITY_IAM"],
            )
            patience = {"Delay": 1, "MaxAttempts": 120}
            waiter = boto3.client("cloudformation").get_waiter("stack_create_complete")
            with suppress(WaiterError):  # the tests show why
                waiter.wait(StackName=name, WaiterConfig=patience)
        yield


def outputs(stack: str) -> dict[str, str]:
    [described] = boto3.client("cloudformation").describe_stacks(StackName=stack)["Stacks"]
    return {output["OutputKey"]: output["OutputValue"] for output in described["Outputs"]}


@pytest.mark.usefixtures("aws")
@pytest.mark.parametrize("stack", ["churn-self-hosted", "churn-managed"])
def test_the_stack_is_created_whole(stack: str) -> None:
    cloudformation = boto3.client("cloudformation")
    [described] = cloudformation.describe_stacks(StackName=stack)["Stacks"]
    failed = [
        (event["LogicalResourceId"], event.get("ResourceStatusReason"))
        for event in cloudformation.describe_stack_events(StackName=stack)["StackEvents"]
        if "FAILED" in event["ResourceStatus"]
    ]
    assert failed == []
    assert described["StackStatus"] == "CREATE_COMPLETE"


@pytest.mark.usefixtures("aws")
@pytest.mark.parametrize("stack", ["churn-self-hosted", "churn-managed"])
def test_the_stage_is_live_and_its_key_is_on_the_usage_plan(stack: str) -> None:
    made, gateway = outputs(stack), boto3.client("apigateway")
    [stage] = gateway.get_stages(restApiId=made["ApiId"])["item"]
    assert stage["stageName"] == "live"
    plans = [
        plan
        for plan in gateway.get_usage_plans()["items"]
        if {"apiId": made["ApiId"], "stage": "live"}.items() <= plan["apiStages"][0].items()
    ]
    assert len(plans) == 1
    keys = gateway.get_usage_plan_keys(usagePlanId=plans[0]["id"])["items"]
    assert [key["id"] for key in keys] == [made["ApiKeyId"]]


def methods(api: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for resource in boto3.client("apigateway").get_resources(restApiId=api, embed=["methods"])["items"]:
        for verb, method in resource.get("resourceMethods", {}).items():
            yield verb, resource["path"], method


@pytest.mark.usefixtures("aws")
def test_every_route_leads_through_the_link_to_the_listener_whose_rule_finds_the_tasks() -> None:
    made = outputs("churn-self-hosted")
    routes = list(methods(made["ApiId"]))
    assert len(routes) == 9
    elb = boto3.client("elbv2")
    [balancer] = elb.describe_load_balancers()["LoadBalancers"]
    [listener] = elb.describe_listeners(LoadBalancerArn=balancer["LoadBalancerArn"])["Listeners"]
    for _, path, method in routes:
        assert method["methodIntegration"]["uri"] == f"http://{balancer['DNSName']}{path}"
    [rule] = [
        r for r in elb.describe_rules(ListenerArn=listener["ListenerArn"])["Rules"] if not r["IsDefault"]
    ]
    [service] = boto3.client("ecs").describe_services(
        cluster=made["ClusterName"], services=[made["ServiceName"]]
    )["services"]
    assert rule["Actions"][0]["TargetGroupArn"] == service["loadBalancers"][0]["targetGroupArn"]
    # The template names no desired count: the scalable target raises a new service to its minimum.
    [scaled] = boto3.client("application-autoscaling").describe_scalable_targets(ServiceNamespace="ecs")[
        "ScalableTargets"
    ]
    assert scaled["ResourceId"] == f"service/{made['ClusterName']}/{made['ServiceName']}"
    assert (scaled["MinCapacity"], scaled["MaxCapacity"]) == (2, 8)


@pytest.mark.usefixtures("aws")
def test_the_way_from_the_link_to_the_tasks_is_open_and_no_wider() -> None:
    made = outputs("churn-self-hosted")
    [service] = boto3.client("ecs").describe_services(
        cluster=made["ClusterName"], services=[made["ServiceName"]]
    )["services"]
    tasks = service["networkConfiguration"]["awsvpcConfiguration"]["securityGroups"][0]
    [balancer] = boto3.client("elbv2").describe_load_balancers()["LoadBalancers"]
    [group] = boto3.client("ec2").describe_security_groups(GroupIds=[tasks])["SecurityGroups"]
    [rule] = group["IpPermissions"]
    assert (rule["FromPort"], rule["ToPort"]) == (8080, 8080)
    assert [pair["GroupId"] for pair in rule["UserIdGroupPairs"]] == balancer["SecurityGroups"]
    assert rule["IpRanges"] == []


@pytest.mark.usefixtures("aws")
def test_the_endpoint_runs_the_model_that_was_published() -> None:
    sagemaker = boto3.client("sagemaker")
    endpoint = sagemaker.describe_endpoint(EndpointName=outputs("churn-managed")["EndpointName"])
    configuration = sagemaker.describe_endpoint_config(EndpointConfigName=endpoint["EndpointConfigName"])
    [variant] = configuration["ProductionVariants"]
    model = sagemaker.describe_model(ModelName=variant["ModelName"])
    assert variant["InitialInstanceCount"] == 2
    uri = model["PrimaryContainer"]["ModelDataSource"]["S3DataSource"]["S3Uri"]
    assert uri == f"s3://{ASSETS}/{'a' * 64}.tar.gz"


@pytest.mark.usefixtures("aws")
def test_the_function_knows_the_endpoint_and_has_a_way_to_the_runtime() -> None:
    made = outputs("churn-managed")
    configuration = boto3.client("lambda").get_function_configuration(FunctionName=made["FunctionName"])
    assert configuration["Environment"]["Variables"]["ENDPOINT_NAME"] == made["EndpointName"]
    ec2 = boto3.client("ec2")
    [interface] = [
        endpoint
        for endpoint in ec2.describe_vpc_endpoints()["VpcEndpoints"]
        if endpoint["ServiceName"] == f"com.amazonaws.{REGION}.sagemaker.runtime"
    ]
    assert set(interface["SubnetIds"]) == set(configuration["VpcConfig"]["SubnetIds"])
    [guard] = ec2.describe_security_groups(GroupIds=[g["GroupId"] for g in interface["Groups"]])[
        "SecurityGroups"
    ]
    [rule] = guard["IpPermissions"]
    assert [pair["GroupId"] for pair in rule["UserIdGroupPairs"]] == configuration["VpcConfig"][
        "SecurityGroupIds"
    ]
