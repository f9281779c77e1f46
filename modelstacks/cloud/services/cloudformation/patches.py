"""CloudFormation: our engine in place of moto's, and the questions of custom resources to their functions."""

from __future__ import annotations

import json

from modelstacks.cloud.account.additions import Additions, Answer, Call, answered
from modelstacks.cloud.cloudformation import backend
from modelstacks.cloud.cloudformation.operations import settle
from modelstacks.cloud.services.cloudformation.custom_resources import ROUTE, custom_resources

_LONGEST_WAIT = 20.0  # seconds


def _unemulated(call: Call) -> Answer:
    """The resources of a region that nothing emulates, by stack."""
    return answered(backend.unemulated(call.account, call.query.get("region", "us-east-1")))


def _questions(call: Call) -> Answer:
    """GET takes the questions that wait for a function; POST to a question's token brings its answer."""
    if call.method == "GET":
        return answered(custom_resources.take(_LONGEST_WAIT))
    return answered({"waiting": custom_resources.answer(call.rest, json.loads(call.body))})


# An operation takes long, and its events are read meanwhile.
ADDITIONS = Additions(
    install=backend.install,
    routes={"/_modelstacks/unemulated": _unemulated, ROUTE: _questions},
    in_parallel=("cloudformation",),
    before_answer=settle,
)
