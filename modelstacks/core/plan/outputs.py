"""The outputs of a stack: those of the API, which every stack has, and those that its target declares.

Scripts read outputs by name, so a name stays what it is.
"""

from __future__ import annotations

from collections.abc import Mapping

from modelstacks.core.plan.plan import Plan
from modelstacks.core.registry import targets

__all__ = ["outputs"]


def outputs(plan: Plan) -> Mapping[str, str]:
    """Name -> description, in the order in which people are shown them."""
    declared = {
        "ApiUrl": "address of the API",
        "ApiId": "REST API",
        **targets()[plan.target.target].outputs,
    }
    if plan.api.auth == "api-key":
        declared["ApiKeyId"] = "aws apigateway get-api-key --include-value --query value --api-key <this>"
    return declared
