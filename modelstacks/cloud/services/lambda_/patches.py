"""Lambda: states of functions, their logging settings, a Code.Location that works, retired runtimes, limits.

A function is Pending, and its update InProgress, until the data plane reports that it can run it.

AWS answers GetFunction with a URL, signed for some minutes, from which anyone can fetch the code. So does
this: the URL is one of the account's own routes (CODE_PATH), with a secret of this process in its path.
"""

from __future__ import annotations

import hmac
import json
import secrets
from datetime import UTC, datetime
from functools import cache
from typing import Any
from urllib.parse import quote, unquote
from uuid import uuid4

import botocore.session
from moto.awslambda.exceptions import InvalidParameterValueException, LambdaClientError
from moto.awslambda.models import LambdaFunction, lambda_backends
from moto.awslambda.responses import LambdaResponse
from moto.iam.models import iam_backends

from modelstacks.cloud.account.additions import Additions, Answer, Call
from modelstacks.cloud.account.channel import CHANNEL, Report
from modelstacks.cloud.account.client import OPEN_PATH
from modelstacks.cloud.account.patching import afterwards, beforehand
from modelstacks.cloud.services.iam.permissions import denied_to_service, mentions
from modelstacks.cloud.services.lambda_.runtimes import lambda_runtimes

#: Where the code of functions is; what follows it in a path cannot be guessed.
CODE_PATH = f"{OPEN_PATH}function-code"
_SECRET = secrets.token_urlsafe(32)

#: A function's longest timeout in seconds, without a capacity provider, and its memory in MiB.
_LONGEST = 900
_MEMORY = (128, 10_240)

#: What Lambda does with a function's role to connect the function to a network.
_INTERFACE_ACTIONS = (
    "ec2:CreateNetworkInterface",
    "ec2:DescribeNetworkInterfaces",
    "ec2:DeleteNetworkInterface",
)

#: Concurrent executions of an account and region, and how many of them no reservation may take. A new
#: account's quota may be 10, where nothing can be reserved.
_QUOTA = 1000
_FLOOR = 100


def _code(call: Call) -> Answer:
    """The deployment package behind a Code.Location's path; 404 where the path is not one of ours."""
    secret, region, name, *_ = [*call.rest.split("/", 3), "", ""]
    if hmac.compare_digest(secret.encode(), _SECRET.encode()):
        for function in lambda_backends[call.account][region].list_functions():
            if function.function_name == name:
                return Answer(function.code_bytes, "application/zip")
    return Answer(b"", "application/zip", 404)


def _install() -> None:
    """Change moto's Lambda."""
    _check_first()
    get_configuration = LambdaFunction.get_configuration

    def complete(self: LambdaFunction, on_create: bool = False) -> dict[str, Any]:
        standard = {"LogFormat": "Text", "LogGroup": f"/aws/lambda/{self.function_name}"}
        logging = {**standard, **getattr(self, "logging_config", {})}
        own = get_configuration(self, on_create)
        answer: dict[str, Any] = {**own, "LoggingConfig": logging, **_state(self, on_create=on_create)}
        return answer

    LambdaFunction.get_configuration = complete

    def keep(self: Any, answer: Any) -> Any:
        """Remember the logging settings that moto drops, and begin the function's new revision."""
        if answer[0] >= 300:
            return answer
        function = self.backend.get_function(json.loads(answer[2])["FunctionName"], None)
        if "LoggingConfig" in self.json_body:
            function.logging_config = self.json_body["LoggingConfig"]
        _begin(function, created=answer[0] == 201)
        return *answer[:2], json.dumps(function.get_configuration(on_create=answer[0] == 201))

    for action in ("create_function", "update_function_configuration", "update_function_code"):
        afterwards(LambdaResponse, action)(keep)

    @afterwards(LambdaResponse, "get_function")
    def locate(self: Any, answer: str) -> str:
        body = json.loads(answer)
        function = body["Configuration"]
        if function["PackageType"] == "Zip":
            key = self.backend.get_function(function["FunctionName"], None).code.get("S3Key", "code.zip")
            place = f"/{_SECRET}/{self.region}/{quote(function['FunctionName'])}/{quote(key)}"
            location = f"http://{self.headers['Host']}{CODE_PATH}{place}"
            body["Code"] = {"RepositoryType": "S3", "Location": location}
        reserved = self.backend.get_function(function["FunctionName"], None).reserved_concurrency
        if reserved is not None:  # moto leaves out a reservation of 0, which stops every invocation
            body["Concurrency"] = {"ReservedConcurrentExecutions": int(reserved)}
        return json.dumps(body)


def _begin(function: LambdaFunction, *, created: bool) -> None:
    """A new revision of a function; without a data plane, it can be invoked at once."""
    function.revision_id = str(uuid4())
    waits = CHANNEL.attached
    if created or function.state == "Failed":
        function.state, function.state_reason = "Pending" if waits else "Active", ""
    else:
        function.last_update, function.last_update_reason = "InProgress" if waits else "Successful", ""
    if waits:
        CHANNEL.announce()


def _hear(account: str, report: Report) -> None:
    """Take over the data plane's report on a function's current revision."""
    if report.state == "starting":
        return
    failed = report.state == "failed"
    for function in lambda_backends[account][report.arn.split(":")[3]].list_functions():
        if (function.function_arn, getattr(function, "revision_id", "")) != (report.arn, report.generation):
            continue
        if function.state == "Pending":
            function.state, function.state_reason = "Failed" if failed else "Active", report.reason
        elif getattr(function, "last_update", "") == "InProgress":
            function.last_update = "Failed" if failed else "Successful"
            function.last_update_reason = report.reason


#: The reason of a state that is about to change, and its code.
_UNDER_WAY = ("The function is being created.", "Creating")


def _state(function: LambdaFunction, *, on_create: bool) -> dict[str, Any]:
    """The members of a function's configuration that say whether it can be invoked."""
    found = {"RevisionId": getattr(function, "revision_id", ""), "State": function.state}
    if function.state != "Active":
        reason, code = getattr(function, "state_reason", ""), "InternalError"
        found["StateReason"], found["StateReasonCode"] = (reason, code) if reason else _UNDER_WAY
    update = getattr(function, "last_update", "Successful")
    if on_create:
        return found
    found["LastUpdateStatus"] = update
    if update != "Successful":
        reason, code = getattr(function, "last_update_reason", ""), "InternalError"
        found["LastUpdateStatusReason"], found["LastUpdateStatusReasonCode"] = (
            (reason, code) if reason else _UNDER_WAY
        )
    return found


def _check_first() -> None:
    """Refuse configurations and reservations that Lambda would refuse."""

    @beforehand(LambdaResponse, "create_function")
    def check(self: Any) -> None:
        _check_configuration(self.json_body, "create-block")
        _check_role(self, self.json_body["Role"], in_a_network=_has_subnets(self.json_body))

    @beforehand(LambdaResponse, "update_function_configuration")
    def check_change(self: Any) -> None:
        _check_configuration(self.json_body, "update-block")
        if "Role" in self.json_body:
            _check_role(self, self.json_body["Role"], in_a_network=_has_subnets(self.json_body))

    @beforehand(LambdaResponse, "put_function_concurrency")
    def check_reservation(self: Any) -> None:
        name = unquote(self.path.rsplit("/", 2)[-2]).rsplit(":", 1)[-1]
        _check_reservation(self.backend, name, int(self._get_param("ReservedConcurrentExecutions") or 0))


def _has_subnets(body: dict[str, Any]) -> bool:
    return bool((body.get("VpcConfig") or {}).get("SubnetIds"))


def _check_role(response: Any, arn: str, *, in_a_network: bool) -> None:
    """Raise what Lambda raises for a role that it cannot use; moto says whether the role exists."""
    roles = iam_backends[response.current_account]["aws"].get_roles()
    role = next((one for one in roles if one.arn == arn), None)
    if role is None:
        return
    trust = role.assume_role_policy_document
    if denied_to_service(trust, "lambda.amazonaws.com", ["sts:AssumeRole"], arn, {}):
        raise InvalidParameterValueException("The role defined for the function cannot be assumed by Lambda.")
    documents = [*role.policies.values(), *(one.document for one in role.managed_policies.values())]
    for action in _INTERFACE_ACTIONS if in_a_network else ():
        if not any(mentions(document, action) for document in documents):
            name = action.removeprefix("ec2:")
            raise InvalidParameterValueException(
                f"The provided execution role does not have permissions to call {name} on EC2"
            )


def _check_reservation(backend: Any, name: str, count: int) -> None:
    """Raise what PutFunctionConcurrency raises for a reservation that leaves too little to the others."""
    others = (one for one in backend.list_functions() if one.function_name != name)
    reserved = sum(int(one.reserved_concurrency or 0) for one in others)
    if count and _QUOTA - reserved - count < _FLOOR:
        raise InvalidParameterValueException(
            "Specified ReservedConcurrentExecutions for function decreases account's "
            f"UnreservedConcurrentExecution below its minimum value of [{_FLOOR}]."
        )


def _check_configuration(body: dict[str, Any], block: str) -> None:
    """Raise what CreateFunction and UpdateFunctionConfiguration raise for limits and runtimes."""
    bounds = {} if "CapacityProviderConfig" in body else {"Timeout": (1, _LONGEST), "MemorySize": _MEMORY}
    for name, (least, most) in bounds.items():
        value = int(body.get(name, least))
        if not least <= value <= most:
            limit = f"less than or equal to {most}" if value > most else f"greater than or equal to {least}"
            member = name[0].lower() + name[1:]
            raise LambdaClientError(
                "ValidationException",
                f"1 validation error detected: Value '{value}' at '{member}' failed to satisfy constraint: "
                f"Member must have value {limit}",
            )
    if not (runtime := body.get("Runtime")):
        return
    if runtime not in _runtimes():
        raise InvalidParameterValueException(
            f"Value {runtime} at 'runtime' failed to satisfy constraint: Member must satisfy enum value set: "
            f"[{', '.join(_runtimes())}]"
        )
    life = lambda_runtimes().get(runtime, {})
    blocked = life.get(block)
    if blocked and blocked <= datetime.now(UTC).date().isoformat():
        successor = f"({life['successor']}) " if life.get("successor") else ""
        raise InvalidParameterValueException(
            f"The runtime parameter of {runtime} is no longer supported for creating or updating AWS Lambda "
            f"functions. We recommend you use the new runtime {successor}while creating or updating "
            "functions."
        )


@cache
def _runtimes() -> list[str]:
    model = botocore.session.get_session().get_service_model("lambda")
    return list(model.shape_for("Runtime").enum)


ADDITIONS = Additions(install=_install, routes={CODE_PATH: _code}, hears={"lambda-function": _hear})
