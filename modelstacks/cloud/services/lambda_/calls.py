"""Lambda's calls: the invocation of a function."""

from __future__ import annotations

import re
from urllib.parse import unquote

from modelstacks.cloud.host.wire import Request
from modelstacks.cloud.network.calls import ApiCall, ServiceCalls
from modelstacks.cloud.snapshot import Account

__all__ = ["CALLS"]

INVOCATION = re.compile(r"/2015-03-31/functions/([^/]+)/invocations")


def _invocation(request: Request, account: Account) -> ApiCall | None:
    found = INVOCATION.fullmatch(request.path)
    if found is None or request.method != "POST":
        return None
    name = unquote(found[1]).split(":function:")[-1].partition(":")[0]
    arn = f"arn:aws:lambda:{account.region}:{account.id}:function:{name}"
    return ApiCall("lambda", "lambda", "lambda:InvokeFunction", arn)


CALLS = ServiceCalls("lambda", read=_invocation)
