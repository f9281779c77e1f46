"""Lambda: a function's logging settings, and a Code.Location that can be fetched.

AWS answers GetFunction with a URL, signed for some minutes, behind which the code lies. So does this: the URL
is one of the control plane's own routes (server.py), which asks `code_of` for the bytes.
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

from moto.awslambda.models import LambdaFunction, lambda_backends
from moto.awslambda.responses import LambdaResponse

from modelstacks.cloud.control_plane.fixes import afterwards

CODE_PATH = "/_modelstacks/function-code/"


def code_of(account: str, path: str) -> bytes | None:
    """The deployment package behind a Code.Location's path, or None where there is no such function."""
    region, name, *_key = path.removeprefix(CODE_PATH).split("/", 2)
    for function in lambda_backends[account][region].list_functions():
        if function.function_name == name:
            packed: bytes = function.code_bytes
            return packed
    return None


def install() -> None:
    """Change moto's Lambda."""
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
            place = f"{self.region}/{quote(function['FunctionName'])}/{quote(key)}"
            location = f"http://{self.headers['Host']}{CODE_PATH}{place}"
            body["Code"] = {"RepositoryType": "S3", "Location": location}
        return json.dumps(body)
