"""AWS::Lambda: functions, their versions and aliases, and who may invoke them."""

from __future__ import annotations

import textwrap
import zipfile
from io import BytesIO
from typing import Any, ClassVar

from modelstacks.cloud.cloudformation.resource import (
    Properties,
    Provisioned,
    Request,
    ResourceError,
    ResourceType,
    ignoring,
    provides,
    undoing,
)

_GONE = ("ResourceNotFoundException",)
_CODE = ("S3Bucket", "S3Key", "S3ObjectVersion", "ImageUri")


def _tags(properties: Properties) -> dict[str, str]:
    return {str(tag["Key"]): str(tag["Value"]) for tag in properties.get("Tags", [])}


def _code(request: Request) -> dict[str, Any]:
    """The code as the API takes it.

    Inline code becomes a zip with one index file, as CloudFormation makes it.
    """
    code = request.properties["Code"]
    if "ZipFile" not in code:
        return {key: code[key] for key in _CODE if key in code}
    suffix = ".py" if str(request.properties.get("Runtime", "")).startswith("python") else ".js"
    packed = BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr(zipfile.ZipInfo(f"index{suffix}"), textwrap.dedent(code["ZipFile"]))
    return {"ZipFile": packed.getvalue()}


@provides("AWS::Lambda::Function")
class Function(ResourceType):
    """A function: code, configuration, reserved concurrency. Stable once it is Active. Ref is its name."""

    immutable: ClassVar = frozenset({"FunctionName", "PackageType"})
    _apart: ClassVar = (
        "Code",
        "FunctionName",
        "ReservedConcurrentExecutions",
        "Tags",
        "RuntimeManagementConfig",
        "RecursiveLoop",
    )

    def create(self, request: Request) -> Provisioned:
        name = request.properties.get("FunctionName") or request.generated_name(64)
        arn = request.call(
            "lambda",
            "CreateFunction",
            request.without(*self._apart),
            FunctionName=name,
            Code=_code(request),
            Tags=_tags(request.properties),
        )["FunctionArn"]
        with undoing(lambda: request.client("lambda").delete_function(FunctionName=name)):
            self._reserve(request, name)
        return Provisioned(name, {"Arn": arn})

    def update(self, request: Request, current: Provisioned, before: Properties) -> Provisioned | None:
        client, name, after = request.client("lambda"), current.physical_id, request.properties
        if after["Code"] != before["Code"] or after.get("Architectures") != before.get("Architectures"):
            client.update_function_code(FunctionName=name, **_code(request), **request.only("Architectures"))
        unchangeable = (*self._apart, "Architectures", "CodeSigningConfigArn", "PackageType")
        # A property that the new template leaves out returns to its default, which the API has to receive.
        defaults: Properties = {
            "Environment": {"Variables": {}},
            "Timeout": 3,
            "MemorySize": 128,
            "Description": "",
        }
        dropped = {key: value for key, value in defaults.items() if key in before and key not in after}
        request.call(
            "lambda",
            "UpdateFunctionConfiguration",
            {**dropped, **request.without(*unchangeable)},
            FunctionName=name,
        )
        if after.get("ReservedConcurrentExecutions") != before.get("ReservedConcurrentExecutions"):
            client.delete_function_concurrency(FunctionName=name)
            self._reserve(request, name)
        return current

    def stabilised(self, request: Request, current: Provisioned) -> Provisioned | None:
        name = current.physical_id
        found = request.client("lambda").get_function_configuration(FunctionName=name)
        for status in ("State", "LastUpdateStatus"):
            if found.get(status) in ("Pending", "InProgress"):
                return None
            if found.get(status) == "Failed":
                raise ResourceError(
                    f"Resource of type '{request.type_name}' with identifier '{name}' did not stabilize. "
                    f"Status Reason is {found[f'{status}Reason']} (HandlerErrorCode: NotStabilized)"
                )
        return current

    def delete(self, request: Request, current: Provisioned) -> None:
        with ignoring(*_GONE):
            request.client("lambda").delete_function(FunctionName=current.physical_id)

    @staticmethod
    def _reserve(request: Request, name: str) -> None:
        if (count := request.properties.get("ReservedConcurrentExecutions")) is not None:
            request.client("lambda").put_function_concurrency(
                FunctionName=name, ReservedConcurrentExecutions=int(count)
            )


@provides("AWS::Lambda::Permission")
class Permission(ResourceType):
    """One statement of a function's resource policy; any change makes a new one."""

    def create(self, request: Request) -> Provisioned:
        statement_id = request.generated_name(100)
        request.call("lambda", "AddPermission", request.properties, StatementId=statement_id)
        return Provisioned(statement_id, {"Id": statement_id})

    def delete(self, request: Request, current: Provisioned) -> None:
        with ignoring(*_GONE):
            request.client("lambda").remove_permission(
                FunctionName=request.properties["FunctionName"], StatementId=current.physical_id
            )


@provides("AWS::Lambda::Version")
class Version(ResourceType):
    """A published version; never changed."""

    def create(self, request: Request) -> Provisioned:
        answer = request.client("lambda").publish_version(**request.only("FunctionName", "Description"))
        return Provisioned(
            answer["FunctionArn"], {"Version": answer["Version"], "FunctionArn": answer["FunctionArn"]}
        )

    def delete(self, request: Request, current: Provisioned) -> None:
        with ignoring(*_GONE):
            request.client("lambda").delete_function(
                FunctionName=request.properties["FunctionName"], Qualifier=current.attributes["Version"]
            )


@provides("AWS::Lambda::Alias")
class Alias(ResourceType):
    """A name for a version. Ref is its ARN."""

    immutable: ClassVar = frozenset({"FunctionName", "Name"})

    def create(self, request: Request) -> Provisioned:
        arn = request.call("lambda", "CreateAlias", request.without("ProvisionedConcurrencyConfig"))[
            "AliasArn"
        ]
        return Provisioned(arn, {"AliasArn": arn})

    def update(self, request: Request, current: Provisioned, before: Properties) -> Provisioned | None:
        request.call("lambda", "UpdateAlias", request.without("ProvisionedConcurrencyConfig"))
        return current

    def delete(self, request: Request, current: Provisioned) -> None:
        with ignoring(*_GONE):
            request.call("lambda", "DeleteAlias", request.only("FunctionName", "Name"))
