"""SageMaker's calls: those of its runtime go to an endpoint service of their own."""

from __future__ import annotations

import re
from urllib.parse import unquote

from modelstacks.cloud.host.wire import Request
from modelstacks.cloud.network.calls import ApiCall, ServiceCalls
from modelstacks.cloud.snapshot import Account

__all__ = ["CALLS"]

INVOCATION = re.compile(r"/endpoints/([^/]+)/(async-invocations|invocations|invocations-response-stream)")


def _invocation(request: Request, account: Account) -> ApiCall | None:
    found = INVOCATION.fullmatch(request.path)
    if found is None:
        return None
    action = "sagemaker:InvokeEndpointAsync" if found[2].startswith("async") else "sagemaker:InvokeEndpoint"
    name = unquote(found[1]).lower()
    arn = f"arn:aws:sagemaker:{account.region}:{account.id}:endpoint/{name}"
    return ApiCall("sagemaker", "sagemaker.runtime", action, arn)


CALLS = ServiceCalls("sagemaker", network="sagemaker.api", read=_invocation)
