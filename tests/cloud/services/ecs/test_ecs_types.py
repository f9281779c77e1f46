"""ECS: made by CloudFormation, read back by boto3, changed, deleted."""

from __future__ import annotations

import copy
from typing import Any

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
