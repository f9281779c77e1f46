"""AWS::CloudFormation: nested stacks."""

# ruff: noqa: ARG002  every type answers the same three questions, and not each needs all of what it is told
from __future__ import annotations

from typing import Any

from modelstacks.cloud.control_plane.resource import (
    Properties,
    Provisioned,
    Request,
    ResourceError,
    ResourceType,
    provides,
)


@provides("AWS::CloudFormation::Stack")
class NestedStack(ResourceType):
    """A stack within a stack. Ref is its id, `Outputs.X` its attributes."""

    def create(self, request: Request) -> Provisioned:
        name = request.generated_name(128)
        answer = request.client("cloudformation").create_stack(StackName=name, **self._given(request))
        return self._settled(request, answer["StackId"], "CREATE_COMPLETE")

    def update(self, request: Request, current: Provisioned, before: Properties) -> Provisioned | None:
        request.client("cloudformation").update_stack(StackName=current.physical_id, **self._given(request))
        return self._settled(request, current.physical_id, "UPDATE_COMPLETE")

    def delete(self, request: Request, current: Provisioned) -> None:
        client = request.client("cloudformation")
        client.delete_stack(StackName=current.physical_id)
        stack = client.describe_stacks(StackName=current.physical_id)["Stacks"][0]
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

    @staticmethod
    def _settled(request: Request, stack_id: str, wanted: str) -> Provisioned:
        client = request.client("cloudformation")
        stack = client.describe_stacks(StackName=stack_id)["Stacks"][0]
        if stack["StackStatus"] != wanted:
            events = client.describe_stack_events(StackName=stack_id)["StackEvents"]
            failed = [e for e in reversed(events) if e["ResourceStatus"].endswith("_FAILED")]
            why = (
                f": {failed[0]['LogicalResourceId']}: {failed[0].get('ResourceStatusReason')}"
                if failed
                else ""
            )
            if wanted == "CREATE_COMPLETE":
                client.delete_stack(StackName=stack_id)  # an outer stack keeps no ruins of an inner one
            raise ResourceError(f"the nested stack ended in {stack['StackStatus']}{why}")
        return Provisioned(
            stack_id, {f"Outputs.{one['OutputKey']}": one["OutputValue"] for one in stack.get("Outputs", [])}
        )
