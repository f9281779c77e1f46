"""Lambda: a function's logging settings, a Code.Location that can be fetched, retired runtimes, limits.

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

import botocore.session
from moto.awslambda.exceptions import InvalidParameterValueException, LambdaClientError
from moto.awslambda.models import LambdaFunction, lambda_backends
from moto.awslambda.responses import LambdaResponse

from modelstacks.cloud.account.additions import Additions, Answer, Call
from modelstacks.cloud.account.client import OPEN_PATH
from modelstacks.cloud.account.patching import afterwards, beforehand
from modelstacks.cloud.services.lambda_.runtimes import lambda_runtimes

#: Where the code of functions is; what follows it in a path cannot be guessed.
CODE_PATH = f"{OPEN_PATH}function-code"
_SECRET = secrets.token_urlsafe(32)

#: A function's longest timeout in seconds, without a capacity provider, and its memory in MiB.
_LONGEST = 900
_MEMORY = (128, 10_240)

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
        answer: dict[str, Any] = {**get_configuration(self, on_create), "LoggingConfig": logging}
        return answer

    LambdaFunction.get_configuration = complete

    def keep_logging(self: Any, answer: Any) -> Any:
        """Remember what CreateFunction or UpdateFunctionConfiguration said of logging."""
        if answer[0] >= 300 or "LoggingConfig" not in self.json_body:
            return answer
        name = json.loads(answer[2])["FunctionName"]
        function = self.backend.get_function(name, None)
        function.logging_config = self.json_body["LoggingConfig"]
        return *answer[:2], json.dumps(function.get_configuration(on_create=answer[0] == 201))

    afterwards(LambdaResponse, "create_function")(keep_logging)
    afterwards(LambdaResponse, "update_function_configuration")(keep_logging)

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


def _check_first() -> None:
    """Refuse configurations and reservations that Lambda would refuse."""

    @beforehand(LambdaResponse, "create_function")
    def check(self: Any) -> None:
        _check_configuration(self.json_body, "create-block")

    @beforehand(LambdaResponse, "update_function_configuration")
    def check_change(self: Any) -> None:
        _check_configuration(self.json_body, "update-block")

    @beforehand(LambdaResponse, "put_function_concurrency")
    def check_reservation(self: Any) -> None:
        name = unquote(self.path.rsplit("/", 2)[-2]).rsplit(":", 1)[-1]
        _check_reservation(self.backend, name, int(self._get_param("ReservedConcurrentExecutions") or 0))


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


ADDITIONS = Additions(install=_install, routes={CODE_PATH: _code})
