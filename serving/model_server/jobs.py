"""A request on its way through the batcher, and its answer or failure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from model_server.engines import Tensors
from model_server.logs import log
from model_server.problems import ProblemError, answer_too_large
from model_server.request import Request

# (a batch's outputs, first row, row after the last) -> (content type, body, further header lines)
Render = Callable[[Any, int, int], tuple[bytes, bytes, bytes]]

MODEL_FAILED = "the model failed on this request; the server's log has the reason"
# Milliseconds that the caller waits for an answer, as Envoy (and with it ECS Service Connect) says them.
DEADLINE = b"x-envoy-expected-rq-timeout-ms"
# Digits of such a number. A longer one bounds nothing, and may not fit in a float.
LONGEST_DEADLINE = 15


class RequestJob:
    __slots__ = ("alone", "arrived", "call", "inputs", "parameters", "render", "request", "rows")

    def __init__(
        self,
        request: Request,
        inputs: Tensors,
        rows: int,
        parameters: Mapping[str, object],
        render: Render,
        call: Callable[[], Any] | None = None,
    ) -> None:
        self.request = request
        self.inputs = inputs
        self.rows = rows
        self.parameters = parameters
        self.render = render
        self.call = call
        self.arrived = request.started
        self.alone = call is not None or bool(parameters)

    @property
    def gone(self) -> bool:
        return self.request.connection.closed

    def expires(self, patience: float) -> float:
        given = self.request.headers.get(DEADLINE)
        if given is not None and given.isdigit() and len(given) <= LONGEST_DEADLINE:
            patience = min(patience, int(given) / 1000)
        return self.request.started + patience

    def move(self, take: Callable[[Request], bool]) -> bool:
        return take(self.request)

    def finish(self, outputs: Any, start: int, end: int) -> None:
        try:
            content_type, body, extra = self.render(outputs, start, end)
        except Exception as error:  # an answer that cannot be written is this request's matter alone
            self.fail(error)
            return
        limit = self.request.connection.server.max_answer
        if len(body) > limit:
            self.request.refuse(answer_too_large(len(body), limit))
            return
        self.request.respond(200, content_type, body, extra)

    def fail(self, error: BaseException) -> None:
        fail(self.request, error)


def fail(request: Request, error: BaseException) -> None:
    """Answers with the problem; anything unforeseen is logged with its traceback and answered without it."""
    if isinstance(error, ProblemError):
        request.refuse(error)
        return
    log.error(
        "the model failed on a request",
        exc_info=error,
        extra={
            "fields": {
                "request_id": request.identify().decode("latin-1"),
                "error": f"{type(error).__name__}: {error}",
            }
        },
    )
    request.refuse(ProblemError(500, MODEL_FAILED))
