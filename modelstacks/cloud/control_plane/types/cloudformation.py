"""AWS::CloudFormation: nested stacks."""

# ruff: noqa: ARG002  every type answers the same three questions, and not each needs all of what it is told
from __future__ import annotations

import time
from typing import Any

from modelstacks.cloud.control_plane.resource import (
    Properties,
    Provisioned,
    Request,
    ResourceError,
    ResourceType,
    provides,
)

_POLL_SECONDS = 0.05


@provides("AWS::CloudFormation::Stack")
class NestedStack(ResourceType):
    """A stack within a stack. Ref is its id, `Outputs.X` its attributes."""

    def create(self, request: Request) -> Provisioned:
        name = request.generated_name(128)
        answer = request.client("cloudformation").create_stack(StackName=name, **self._given(request))
        return Provisioned(answer["StackId"])

    def update(self, request: Request, current: Provisioned, before: Properties) -> Provisioned | None:
        request.client("cloudformation").update_stack(StackName=current.physical_id, **self._given(request))
        return current

    def stabilised(self, request: Request, current: Provisioned) -> Provisioned | None:
        client = request.client("cloudformation")
        stack = client.describe_stacks(StackName=current.physical_id)["Stacks"][0]
        status = stack["StackStatus"]
        if status.endswith("_IN_PROGRESS"):
            return None
        if status in ("CREATE_COMPLETE", "UPDATE_COMPLETE"):
            outputs = {f"Outputs.{one['OutputKey']}": one["OutputValue"] for one in stack.get("Outputs", [])}
            return Provisioned(current.physical_id, outputs)
        events = client.describe_stack_events(StackName=current.physical_id)["StackEvents"]
        failed = [event for event in reversed(events) if event["ResourceStatus"].endswith("_FAILED")]
        why = f": {failed[0]['LogicalResourceId']}: {failed[0].get('ResourceStatusReason')}" if failed else ""
        raise ResourceError(f"the nested stack ended in {status}{why}")

    def delete(self, request: Request, current: Provisioned) -> None:
        client = request.client("cloudformation")
        client.delete_stack(StackName=current.physical_id)
        while True:
            stack = client.describe_stacks(StackName=current.physical_id)["Stacks"][0]
            if not stack["StackStatus"].endswith("_IN_PROGRESS"):
                break
            time.sleep(_POLL_SECONDS)
        if stack["StackStatus"] != "DELETE_COMPLETE":
            raise ResourceError(
                f"the nested stack is {stack['StackStatus']}: {stack.get('StackStatusReason')}"
            )

    @staticmethod
    def _given(request: Request) -> dict[str, Any]:
        parameters = request.properties.get("Parameters", {})
        return {
            "TemplateURL": request.properties["TemplateURL"],
            "Parameters": [
                {
                    "ParameterKey": key,
                    "ParameterValue": ",".join(value) if isinstance(value, list) else str(value),
                }
                for key, value in parameters.items()
            ],
        }
