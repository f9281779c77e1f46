"""AWS::CloudFormation: nested stacks and custom resources."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

from modelstacks.cloud.cloudformation.resource import (
    Properties,
    Provisioned,
    Request,
    ResourceError,
    ResourceType,
    provides,
)
from modelstacks.cloud.services.cloudformation.custom_resources import NoAnswerError, custom_resources

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


@provides("AWS::CloudFormation::CustomResource")
class CustomResource(ResourceType):
    """A resource that a Lambda function makes, `Custom::Anything` as well. Ref is what the function says."""

    def create(self, request: Request) -> Provisioned:
        return self._provisioned(request, "Create", {})

    def update(self, request: Request, current: Provisioned, before: Properties) -> Provisioned | None:
        return self._provisioned(
            request,
            "Update",
            {"PhysicalResourceId": current.physical_id, "OldResourceProperties": _as_text(before)},
        )

    def delete(self, request: Request, current: Provisioned) -> None:
        self._ask(request, "Delete", {"PhysicalResourceId": current.physical_id})

    def _provisioned(self, request: Request, kind: str, more: Mapping[str, Any]) -> Provisioned:
        answer = self._ask(request, kind, more)
        physical_id = answer.get("PhysicalResourceId")
        if not isinstance(physical_id, str) or not physical_id:
            raise ResourceError("Invalid PhysicalResourceId: the function's response names none")
        data = answer.get("Data") or {}
        return Provisioned(physical_id, {str(name): value for name, value in data.items()})

    @staticmethod
    def _ask(request: Request, kind: str, more: Mapping[str, Any]) -> Mapping[str, Any]:
        token = str(request.properties.get("ServiceToken", ""))
        if ":lambda:" not in token:
            raise ResourceError(f"custom resources are answered by Lambda functions here, not by {token}")
        event = {
            "RequestType": kind,
            "ServiceToken": token,
            "StackId": request.stack_id,
            "RequestId": str(uuid4()),
            "ResourceType": request.type_name,
            "LogicalResourceId": request.logical_id,
            "ResourceProperties": _as_text(request.properties),
            **more,
        }
        seconds = str(request.properties.get("ServiceTimeout", 3600))
        if not seconds.isdigit() or not 1 <= int(seconds) <= 3600:
            raise ResourceError(f"ServiceTimeout must be 1 to 3600 seconds, not {seconds}")
        try:
            answer = custom_resources.ask(token, event, int(seconds))
        except NoAnswerError as error:
            raise ResourceError(
                f"CloudFormation did not receive a response from your Custom Resource: {error}"
            ) from None
        if answer.get("Status") != "SUCCESS":
            raise ResourceError(
                f"Received response status [{answer.get('Status')}] from custom resource. "
                f"Message returned: {answer.get('Reason', '')}"
            )
        return answer


def _as_text(value: Any) -> Any:
    """Properties as CloudFormation sends them to a function: every value is text."""
    if isinstance(value, Mapping):
        return {str(name): _as_text(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_as_text(inner) for inner in value]
    return str(value).lower() if isinstance(value, bool) else str(value)


@provides("AWS::CDK::Metadata")
@provides("AWS::CloudFormation::WaitConditionHandle")
class Marker(ResourceType):
    """A resource that only records something: the CDK's version, or the URL that a WaitCondition waits at."""

    def create(self, request: Request) -> Provisioned:
        return Provisioned(request.generated_name())

    def update(self, request: Request, current: Provisioned, before: Properties) -> Provisioned | None:
        return current

    def delete(self, request: Request, current: Provisioned) -> None:
        return None
