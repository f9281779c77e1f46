"""ECS, SageMaker, Lambda and their scaling: made by CloudFormation, read back by boto3, changed, deleted."""

from __future__ import annotations

import copy
import io
import zipfile
from typing import Any
from urllib.parse import urlsplit

import pytest
from botocore.exceptions import ClientError
from support.control_plane import FRONT, NETWORK, Account, role

TASK = {
    "Type": "AWS::ECS::TaskDefinition",
    "Properties": {
        "Family": "server",
        "Cpu": 256,  # CloudFormation lets a number be a number; the API wants text
        "Memory": "512",
        "NetworkMode": "awsvpc",
        "RequiresCompatibilities": ["FARGATE"],
        "TaskRoleArn": {"Fn::GetAtt": ["TaskRole", "Arn"]},
        "ExecutionRoleArn": {"Fn::GetAtt": ["TaskRole", "Arn"]},
        "RuntimePlatform": {"CpuArchitecture": "ARM64", "OperatingSystemFamily": "LINUX"},
        "Volumes": [{"Name": "tmp"}],
        "ContainerDefinitions": [
            {
                "Name": "server",
                "Image": "123456789012.dkr.ecr.eu-west-1.amazonaws.com/images:1",
                "Essential": True,
                "ReadonlyRootFilesystem": True,
                "User": "1000",
                "StopTimeout": 30,
                "Environment": [{"Name": "MODEL_SERVER_MODEL_NAME", "Value": "churn"}],
                "Secrets": [
                    {"Name": "TOKEN", "ValueFrom": "arn:aws:secretsmanager:eu-west-1:123456789012:secret:t"}
                ],
                "PortMappings": [{"ContainerPort": 8080, "Protocol": "tcp"}],
                "MountPoints": [{"ContainerPath": "/tmp", "SourceVolume": "tmp", "ReadOnly": False}],
                "LogConfiguration": {"LogDriver": "awslogs", "Options": {"awslogs-group": "g"}},
            }
        ],
    },
}


def service() -> dict[str, Any]:
    """A Fargate service behind a load balancer, which scales."""
    front: dict[str, Any] = copy.deepcopy(NETWORK | FRONT)
    return front | {
        "TaskRole": role("ecs-tasks.amazonaws.com"),
        "Cluster": {
            "Type": "AWS::ECS::Cluster",
            "Properties": {"ClusterSettings": [{"Name": "containerInsights", "Value": "enabled"}]},
        },
        "Task": copy.deepcopy(TASK),
        "Targets": {
            "Type": "AWS::ElasticLoadBalancingV2::TargetGroup",
            "Properties": {"Port": 8080, "Protocol": "HTTP", "TargetType": "ip", "VpcId": {"Ref": "Vpc"}},
        },
        "Service": {
            "Type": "AWS::ECS::Service",
            "DependsOn": "Listener",
            "Properties": {
                "Cluster": {"Ref": "Cluster"},
                "TaskDefinition": {"Ref": "Task"},
                "LaunchType": "FARGATE",
                "DesiredCount": 2,
                "HealthCheckGracePeriodSeconds": 60,
                "DeploymentConfiguration": {
                    "DeploymentCircuitBreaker": {"Enable": True, "Rollback": True},
                    "MinimumHealthyPercent": 100,
                    "MaximumPercent": 200,
                },
                "LoadBalancers": [
                    {"ContainerName": "server", "ContainerPort": 8080, "TargetGroupArn": {"Ref": "Targets"}}
                ],
                "NetworkConfiguration": {
                    "AwsvpcConfiguration": {
                        "AssignPublicIp": "DISABLED",
                        "Subnets": [{"Ref": "Subnet"}],
                        "SecurityGroups": [{"Ref": "Group"}],
                    }
                },
            },
        },
        "Scaled": {
            "Type": "AWS::ApplicationAutoScaling::ScalableTarget",
            "Properties": {
                "MinCapacity": 2,
                "MaxCapacity": 6,
                "ServiceNamespace": "ecs",
                "ScalableDimension": "ecs:service:DesiredCount",
                "ResourceId": {"Fn::Sub": "service/${Cluster}/${Service.Name}"},
            },
        },
        "OnCpu": {
            "Type": "AWS::ApplicationAutoScaling::ScalingPolicy",
            "Properties": {
                "PolicyName": "cpu",
                "PolicyType": "TargetTrackingScaling",
                "ScalingTargetId": {"Ref": "Scaled"},
                "TargetTrackingScalingPolicyConfiguration": {
                    "TargetValue": 60,
                    "PredefinedMetricSpecification": {
                        "PredefinedMetricType": "ECSServiceAverageCPUUtilization"
                    },
                },
            },
        },
    }


def test_a_service_and_its_task_definition(account: Account) -> None:
    ids = account.create("service", service())
    ecs = account.client("ecs")
    task = ecs.describe_task_definition(taskDefinition=ids["Task"])["taskDefinition"]
    assert (task["cpu"], task["memory"], task["volumes"][0]["name"]) == ("256", "512", "tmp")
    assert task["runtimePlatform"]["cpuArchitecture"] == "ARM64"
    assert task["taskRoleArn"] == account.client("iam").get_role(RoleName=ids["TaskRole"])["Role"]["Arn"]
    (container,) = task["containerDefinitions"]
    assert container["readonlyRootFilesystem"] is True
    assert container["secrets"][0]["name"] == "TOKEN"
    assert container["environment"] == [{"name": "MODEL_SERVER_MODEL_NAME", "value": "churn"}]
    assert container["mountPoints"][0]["containerPath"] == "/tmp"
    (found,) = ecs.describe_services(cluster=ids["Cluster"], services=[ids["Service"]])["services"]
    assert (found["taskDefinition"], found["desiredCount"]) == (ids["Task"], 2)
    assert found["healthCheckGracePeriodSeconds"] == 60
    assert found["deploymentConfiguration"]["deploymentCircuitBreaker"] == {"enable": True, "rollback": True}
    assert found["loadBalancers"][0]["targetGroupArn"] == ids["Targets"]
    assert found["networkConfiguration"]["awsvpcConfiguration"]["subnets"] == [ids["Subnet"]]


def test_a_service_moves_to_a_new_task_definition(account: Account) -> None:
    resources = service()
    ids = account.create("rolling", resources)
    other = copy.deepcopy(resources)
    other["Task"]["Properties"]["ContainerDefinitions"][0]["Environment"][0]["Value"] = "renamed"
    other["Service"]["Properties"] |= {"DesiredCount": 3}
    after = account.update("rolling", other)
    assert after["Service"] == ids["Service"]
    assert after["Task"] != ids["Task"]
    ecs = account.client("ecs")
    (found,) = ecs.describe_services(cluster=ids["Cluster"], services=[ids["Service"]])["services"]
    assert (found["taskDefinition"], found["desiredCount"]) == (after["Task"], 3)
    assert found["deployments"][0]["taskDefinition"] == after["Task"]
    old = ecs.describe_task_definition(taskDefinition=ids["Task"])["taskDefinition"]
    assert old["status"] == "INACTIVE"


def test_a_service_scales_between_its_bounds(account: Account) -> None:
    resources = service()
    account.create("scaling", resources)
    scaling = account.client("application-autoscaling")
    (target,) = scaling.describe_scalable_targets(ServiceNamespace="ecs")["ScalableTargets"]
    assert (target["MinCapacity"], target["MaxCapacity"]) == (2, 6)
    (policy,) = scaling.describe_scaling_policies(ServiceNamespace="ecs")["ScalingPolicies"]
    assert policy["ResourceId"] == target["ResourceId"]
    assert policy["TargetTrackingScalingPolicyConfiguration"]["TargetValue"] == 60

    other = copy.deepcopy(resources)
    other["Scaled"]["Properties"]["MaxCapacity"] = 9
    other["OnCpu"]["Properties"]["TargetTrackingScalingPolicyConfiguration"]["TargetValue"] = 40
    account.update("scaling", other)
    (target,) = scaling.describe_scalable_targets(ServiceNamespace="ecs")["ScalableTargets"]
    assert (target["MinCapacity"], target["MaxCapacity"]) == (2, 9)
    (policy,) = scaling.describe_scaling_policies(ServiceNamespace="ecs")["ScalingPolicies"]
    assert policy["TargetTrackingScalingPolicyConfiguration"]["TargetValue"] == 40
    account.delete("scaling")
    assert account.client("cloudwatch").describe_alarms()["MetricAlarms"] == []
    assert scaling.describe_scalable_targets(ServiceNamespace="ecs")["ScalableTargets"] == []


def endpoint(instance_type: str = "ml.g5.xlarge") -> dict[str, Any]:
    """A SageMaker endpoint in a VPC, from a model archive in S3."""
    source = {"S3Uri": "s3://bucket/model.tar.gz", "S3DataType": "S3Object", "CompressionType": "Gzip"}
    variant = {
        "ModelName": {"Fn::GetAtt": ["Model", "ModelName"]},
        "VariantName": "AllTraffic",
        "InstanceType": instance_type,
        "InitialInstanceCount": 2,
        "InitialVariantWeight": 1,
        "ContainerStartupHealthCheckTimeoutInSeconds": 300,
    }
    return NETWORK | {
        "Role": role("sagemaker.amazonaws.com"),
        "Model": {
            "Type": "AWS::SageMaker::Model",
            "Properties": {
                "ExecutionRoleArn": {"Fn::GetAtt": ["Role", "Arn"]},
                "EnableNetworkIsolation": True,
                "VpcConfig": {"Subnets": [{"Ref": "Subnet"}], "SecurityGroupIds": [{"Ref": "Group"}]},
                "PrimaryContainer": {
                    "Image": "123456789012.dkr.ecr.eu-west-1.amazonaws.com/images:1",
                    "Environment": {"MODEL_SERVER_MODEL_NAME": "churn"},
                    "ModelDataSource": {"S3DataSource": source},
                },
            },
        },
        "Config": {"Type": "AWS::SageMaker::EndpointConfig", "Properties": {"ProductionVariants": [variant]}},
        "Endpoint": {
            "Type": "AWS::SageMaker::Endpoint",
            "Properties": {
                "EndpointConfigName": {"Fn::GetAtt": ["Config", "EndpointConfigName"]},
                "RetainAllVariantProperties": False,
            },
        },
    }


def name(arn: str) -> str:
    return arn.rsplit("/", 1)[1]


def test_an_endpoint_with_its_model(account: Account) -> None:
    ids = account.create("endpoint", endpoint())
    sagemaker = account.client("sagemaker")
    model = sagemaker.describe_model(ModelName=name(ids["Model"]))
    assert model["EnableNetworkIsolation"] is True
    assert model["VpcConfig"] == {"Subnets": [ids["Subnet"]], "SecurityGroupIds": [ids["Group"]]}
    source = model["PrimaryContainer"]["ModelDataSource"]["S3DataSource"]
    assert (source["S3Uri"], source["CompressionType"]) == ("s3://bucket/model.tar.gz", "Gzip")
    assert model["PrimaryContainer"]["Environment"] == {"MODEL_SERVER_MODEL_NAME": "churn"}
    config = sagemaker.describe_endpoint_config(EndpointConfigName=name(ids["Config"]))
    (variant,) = config["ProductionVariants"]
    assert (variant["InstanceType"], variant["InitialInstanceCount"]) == ("ml.g5.xlarge", 2)
    assert variant["ModelName"] == name(ids["Model"])
    found = sagemaker.describe_endpoint(EndpointName=name(ids["Endpoint"]))
    assert found["EndpointConfigName"] == name(ids["Config"])
    assert found["EndpointStatus"] == "InService"


def test_an_endpoint_takes_a_new_configuration_and_the_old_one_goes(account: Account) -> None:
    resources = endpoint()
    ids = account.create("updated", resources)
    other = copy.deepcopy(resources)
    other["Config"]["Properties"]["ProductionVariants"][0]["InitialInstanceCount"] = 3
    after = account.update("updated", other)
    assert after["Endpoint"] == ids["Endpoint"]
    assert after["Config"] != ids["Config"]
    sagemaker = account.client("sagemaker")
    found = sagemaker.describe_endpoint(EndpointName=name(ids["Endpoint"]))
    assert found["EndpointConfigName"] == name(after["Config"])
    assert found["ProductionVariants"][0]["DesiredInstanceCount"] == 3
    with pytest.raises(ClientError, match="Could not find endpoint configuration"):
        sagemaker.describe_endpoint_config(EndpointConfigName=name(ids["Config"]))
    account.delete("updated")
    assert sagemaker.list_endpoints()["Endpoints"] == []


def test_an_instance_type_that_does_not_exist_fails_the_endpoint_configuration(account: Account) -> None:
    account.stacks.append("mistyped")
    body = account.template(endpoint("ml.g5.huge"))
    account.client("cloudformation").create_stack(StackName="mistyped", TemplateBody=body)
    assert account.status("mistyped") == "ROLLBACK_COMPLETE"
    assert "#/ProductionVariants/0/InstanceType: failed validation" in account.reasons("mistyped")["Config"]
    sagemaker = account.client("sagemaker")
    assert sagemaker.list_models()["Models"] == []
    variant = {"VariantName": "v", "ModelName": "m", "InstanceType": "ml.g5.huge", "InitialInstanceCount": 1}
    with pytest.raises(ClientError, match=r"Value 'ml.g5.huge' at 'instanceType' failed"):
        sagemaker.create_endpoint_config(EndpointConfigName="mistyped", ProductionVariants=[variant])


def test_nobody_can_mistake_the_control_plane_for_the_runtime(account: Account) -> None:
    ids = account.create("silent", endpoint())
    with pytest.raises(ClientError, match="served by the data plane"):
        account.client("sagemaker-runtime").invoke_endpoint(EndpointName=name(ids["Endpoint"]), Body=b"{}")


def function(account: Account) -> dict[str, Any]:
    """A function in a VPC, whose code lies in a bucket as an asset does."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("index.py", "def handler(event, context): return 1")
    s3 = account.client("s3")
    s3.create_bucket(Bucket="code", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    s3.put_object(Bucket="code", Key="asset.zip", Body=packed.getvalue())
    return NETWORK | {
        "Role": role("lambda.amazonaws.com"),
        "Function": {
            "Type": "AWS::Lambda::Function",
            "Properties": {
                "Runtime": "python3.13",
                "Handler": "index.handler",
                "Role": {"Fn::GetAtt": ["Role", "Arn"]},
                "Code": {"S3Bucket": "code", "S3Key": "asset.zip"},
                "Architectures": ["arm64"],
                "Timeout": 25,
                "MemorySize": 256,
                "ReservedConcurrentExecutions": 20,
                "Environment": {"Variables": {"ENDPOINT_NAME": "e"}},
                "TracingConfig": {"Mode": "Active"},
                "LoggingConfig": {"LogGroup": "functions", "LogFormat": "JSON"},
                "VpcConfig": {"SubnetIds": [{"Ref": "Subnet"}], "SecurityGroupIds": [{"Ref": "Group"}]},
            },
        },
        "MayInvoke": {
            "Type": "AWS::Lambda::Permission",
            "Properties": {
                "Action": "lambda:InvokeFunction",
                "FunctionName": {"Fn::GetAtt": ["Function", "Arn"]},
                "Principal": "apigateway.amazonaws.com",
                "SourceArn": "arn:aws:execute-api:eu-west-1:123456789012:api/live/POST/invocations",
            },
        },
    }


def test_a_function_with_its_surroundings_and_its_code(account: Account) -> None:
    resources = function(account)
    ids = account.create("function", resources)
    client = account.client("lambda")
    found = client.get_function(FunctionName=ids["Function"])
    own = found["Configuration"]
    assert (own["Timeout"], own["MemorySize"], own["Architectures"]) == (25, 256, ["arm64"])
    assert own["Environment"]["Variables"] == {"ENDPOINT_NAME": "e"}
    assert own["VpcConfig"]["SubnetIds"] == [ids["Subnet"]]
    assert own["VpcConfig"]["SecurityGroupIds"] == [ids["Group"]]
    assert own["LoggingConfig"] == {"LogGroup": "functions", "LogFormat": "JSON"}
    assert found["Concurrency"]["ReservedConcurrentExecutions"] == 20
    where = urlsplit(found["Code"]["Location"]).path
    assert zipfile.ZipFile(io.BytesIO(account.control_plane.get(where))).namelist() == ["index.py"]
    guessed = where.replace(where.split("/")[3], "a-guess")
    assert account.control_plane.get(guessed) == b""
    assert "execute-api" in client.get_policy(FunctionName=ids["Function"])["Policy"]

    other = copy.deepcopy(resources)
    own = other["Function"]["Properties"]
    own |= {"Timeout": 10, "ReservedConcurrentExecutions": 5}
    del own["Environment"]
    assert account.update("function", other)["Function"] == ids["Function"]
    found = client.get_function(FunctionName=ids["Function"])
    assert found["Configuration"]["Timeout"] == 10
    assert not found["Configuration"].get("Environment", {}).get("Variables")
    assert found["Concurrency"]["ReservedConcurrentExecutions"] == 5
    account.delete("function")
    assert client.list_functions()["Functions"] == []


def test_a_function_s_permission_can_go_alone(account: Account) -> None:
    inline = "def handler(event, context):\n    return 1\n"
    resources = {
        "Role": role("lambda.amazonaws.com"),
        "Function": {
            "Type": "AWS::Lambda::Function",
            "Properties": {
                "Runtime": "python3.13",
                "Handler": "index.handler",
                "Role": {"Fn::GetAtt": ["Role", "Arn"]},
                "Code": {"ZipFile": inline},
            },
        },
        "MayInvoke": {
            "Type": "AWS::Lambda::Permission",
            "Properties": {
                "Action": "lambda:InvokeFunction",
                "FunctionName": {"Ref": "Function"},
                "Principal": "apigateway.amazonaws.com",
            },
        },
    }
    ids = account.create("inline", resources)
    client = account.client("lambda")
    where = urlsplit(client.get_function(FunctionName=ids["Function"])["Code"]["Location"]).path
    code = zipfile.ZipFile(io.BytesIO(account.control_plane.get(where)))
    assert code.read("index.py").decode() == inline
    del resources["MayInvoke"]
    account.update("inline", resources)
    assert "apigateway" not in str(client.get_function(FunctionName=ids["Function"]))
    with pytest.raises(ClientError):
        client.get_policy(FunctionName=ids["Function"])
