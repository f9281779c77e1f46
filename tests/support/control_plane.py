"""An account of a control plane, for tests that deploy small templates and read back what was made."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import boto3

from modelstacks.cloud.account.client import ENDPOINT, Connection
from modelstacks.cloud.account.process import ControlPlane
from modelstacks.cloud.api import Credentials
from modelstacks.cloud.clients import Clients
from modelstacks.cloud.daemon.plane import assemble
from modelstacks.cloud.daemon.state import StateDirectory
from modelstacks.cloud.host.docker import resolve
from modelstacks.cloud.host.listener import listen
from modelstacks.cloud.host.replicas import Registry

REGION = "eu-west-1"  # not the default one: what is hard-wired to us-east-1 shows


@dataclass
class Account:
    """boto3 clients of the control plane, and stacks made from dictionaries."""

    control_plane: Connection
    region: str = REGION
    stacks: list[str] = field(default_factory=list)

    def __hash__(self) -> int:
        return id(self)

    @cache  # noqa: B019  the session's one account
    def client(self, service: str) -> Any:
        return self.control_plane.carry(
            boto3.client(
                service,
                endpoint_url=ENDPOINT,
                region_name=self.region,
                aws_access_key_id="AKIATEST",
                aws_secret_access_key="test",
            )
        )

    def template(self, resources: Mapping[str, Any], **sections: Any) -> str:
        return json.dumps({"Resources": resources, **sections})

    def create(self, name: str, resources: Mapping[str, Any], **sections: Any) -> dict[str, str]:
        """Create a stack. Returns logical id -> physical id; fails with the reasons where it rolled back."""
        cloudformation = self.client("cloudformation")
        self.stacks.append(name)
        cloudformation.create_stack(StackName=name, TemplateBody=self.template(resources, **sections))
        assert self.status(name) == "CREATE_COMPLETE", self.reasons(name)
        return self.physical_ids(name)

    def refuse(self, name: str, resources: Mapping[str, Any], **sections: Any) -> dict[str, str]:
        """Create a stack that must fail and leave nothing. Returns logical id -> the reason."""
        cloudformation = self.client("cloudformation")
        self.stacks.append(name)
        cloudformation.create_stack(StackName=name, TemplateBody=self.template(resources, **sections))
        assert self.status(name) == "ROLLBACK_COMPLETE"
        return self.reasons(name)

    def refuse_update(self, name: str, resources: Mapping[str, Any], **sections: Any) -> dict[str, str]:
        """Update a stack, which must fail and go back. Returns logical id -> the reason."""
        cloudformation = self.client("cloudformation")
        cloudformation.update_stack(StackName=name, TemplateBody=self.template(resources, **sections))
        assert self.status(name) == "UPDATE_ROLLBACK_COMPLETE"
        return self.reasons(name)

    def update(self, name: str, resources: Mapping[str, Any], **sections: Any) -> dict[str, str]:
        """Update a stack, and return the physical ids as they are after it."""
        cloudformation = self.client("cloudformation")
        cloudformation.update_stack(StackName=name, TemplateBody=self.template(resources, **sections))
        assert self.status(name) == "UPDATE_COMPLETE", self.reasons(name)
        return self.physical_ids(name)

    def delete(self, name: str) -> None:
        """Delete a stack; nothing of it may be left."""
        self.client("cloudformation").delete_stack(StackName=name)
        found = self.client("cloudformation").list_stacks()["StackSummaries"]
        statuses = {stack["StackStatus"] for stack in found if stack["StackName"] == name}
        assert statuses == {"DELETE_COMPLETE"}, self.reasons(name)

    def status(self, name: str) -> str:
        status: str = self.client("cloudformation").describe_stacks(StackName=name)["Stacks"][0][
            "StackStatus"
        ]
        return status

    def outputs(self, name: str) -> dict[str, str]:
        stack = self.client("cloudformation").describe_stacks(StackName=name)["Stacks"][0]
        return {output["OutputKey"]: output["OutputValue"] for output in stack.get("Outputs", [])}

    def events(self, name: str) -> list[dict[str, Any]]:
        """The stack's events, the oldest first."""
        events: list[dict[str, Any]] = self.client("cloudformation").describe_stack_events(StackName=name)[
            "StackEvents"
        ]
        return events[::-1]

    def reasons(self, name: str) -> dict[str, str]:
        """Logical id -> why it failed."""
        return {
            event["LogicalResourceId"]: event["ResourceStatusReason"]
            for event in self.events(name)
            if event["ResourceStatus"].endswith("_FAILED") and "ResourceStatusReason" in event
        }

    def physical_ids(self, name: str) -> dict[str, str]:
        resources = self.client("cloudformation").describe_stack_resources(StackName=name)["StackResources"]
        return {resource["LogicalResourceId"]: resource["PhysicalResourceId"] for resource in resources}


#: A network of one isolated subnet, for the types that live in one. Merge it into a template's resources.
NETWORK: dict[str, Any] = {
    "Vpc": {
        "Type": "AWS::EC2::VPC",
        "Properties": {"CidrBlock": "10.0.0.0/16", "EnableDnsSupport": True, "EnableDnsHostnames": True},
    },
    "Subnet": {
        "Type": "AWS::EC2::Subnet",
        "Properties": {
            "VpcId": {"Ref": "Vpc"},
            "CidrBlock": {"Fn::Select": [0, {"Fn::Cidr": [{"Fn::GetAtt": ["Vpc", "CidrBlock"]}, 2, "8"]}]},
            "AvailabilityZone": {"Fn::Select": [0, {"Fn::GetAZs": ""}]},
        },
    },
    "Other": {
        "Type": "AWS::EC2::Subnet",
        "Properties": {
            "VpcId": {"Ref": "Vpc"},
            "CidrBlock": "10.0.1.0/24",
            "AvailabilityZone": {"Fn::Select": [1, {"Fn::GetAZs": ""}]},
        },
    },
    "Group": {
        "Type": "AWS::EC2::SecurityGroup",
        "Properties": {"GroupDescription": "callers", "VpcId": {"Ref": "Vpc"}},
    },
}


def role(service: str, *statements: Mapping[str, Any]) -> dict[str, Any]:
    """A role that `service` may assume, with an inline policy."""
    trust = {"Effect": "Allow", "Principal": {"Service": service}, "Action": "sts:AssumeRole"}
    properties: dict[str, Any] = {"AssumeRolePolicyDocument": {"Version": "2012-10-17", "Statement": [trust]}}
    if statements:
        document = {"Version": "2012-10-17", "Statement": list(statements)}
        properties["Policies"] = [{"PolicyName": "inline", "PolicyDocument": document}]
    return {"Type": "AWS::IAM::Role", "Properties": properties}


class Endpoint:
    """A front door on a port of its own, as the CDK CLI needs one: signatures are verified."""

    def __init__(self, plane: ControlPlane, directory: Path, region: str) -> None:
        self.credentials = Credentials(access_key_id=f"AKIA{plane.pid:016}", secret_access_key="secret")
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        state = StateDirectory(directory)
        made = assemble(
            state=state,
            clients=Clients(plane.connection, self.credentials, region),
            control_plane=plane.socket,
            images=lambda uri: resolve(uri, directory),
            registry=Registry(state.logs, lambda: None),
            changed=lambda: None,
        )
        self._listener = self._run(listen(made.front_door.handle, localhost=True))
        self.url = f"http://localhost:{self._listener.port}"

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    def close(self) -> None:
        self._run(self._listener.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()


#: The role with which an account's REST APIs write logs. A template's stages are to depend on "Account".
LOGGING: dict[str, Any] = {
    "LogsRole": role(
        "apigateway.amazonaws.com",
        {
            "Effect": "Allow",
            "Action": ["logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents"],
            "Resource": "*",
        },
    ),
    "Account": {
        "Type": "AWS::ApiGateway::Account",
        "Properties": {"CloudWatchRoleArn": {"Fn::GetAtt": ["LogsRole", "Arn"]}},
    },
}

#: An internal load balancer in NETWORK, whose listener forwards to a target group called "Targets".
FRONT: dict[str, Any] = {
    "Balancer": {
        "Type": "AWS::ElasticLoadBalancingV2::LoadBalancer",
        "Properties": {
            "Type": "application",
            "Scheme": "internal",
            "Subnets": [{"Ref": "Subnet"}, {"Ref": "Other"}],
            "SecurityGroups": [{"Ref": "Group"}],
        },
    },
    "Listener": {
        "Type": "AWS::ElasticLoadBalancingV2::Listener",
        "Properties": {
            "LoadBalancerArn": {"Ref": "Balancer"},
            "Port": 80,
            "Protocol": "HTTP",
            "DefaultActions": [{"Type": "forward", "TargetGroupArn": {"Ref": "Targets"}}],
        },
    },
}
