"""Stack operations: each runs on its own thread and can be interrupted; its caller waits for some seconds."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from modelstacks.cloud.account.channel import CHANNEL, Channel
from modelstacks.cloud.cloudformation.schedule import InterruptedByUserError, Pace

__all__ = ["Operation", "settle"]

#: An API call that starts an operation answers when the operation is over, or after this many seconds. AWS
#: answers at once; the CDK CLI would then ask again only after five seconds, and most operations take two.
HOLD_SECONDS = 20.0
_POLL_SECONDS = 0.5

logger = logging.getLogger(__name__)
_request = threading.local()


class Operation:
    """One operation on one stack: the thread that carries it out, and how that thread waits."""

    def __init__(self, name: str, work: Callable[[Operation], None], channel: Channel = CHANNEL) -> None:
        self._work, self._channel = work, channel
        self._interrupted = False
        self._reports = 0  # how many there were when the engine last looked
        self.abandoned = False  # by DeleteStack: the rest of its work is not needed
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin. The request of the calling thread waits for the operation in `settle`."""
        _request.operation = self
        self._thread.start()

    def _run(self) -> None:
        try:
            self._work(self)
        except InterruptedByUserError:
            pass
        except Exception:
            logger.exception("%s", self._thread.name)
        finally:
            self._channel.announce()
            self._channel.wake()  # a stack that this one is nested in

    def join(self, seconds: float | None = None) -> None:
        """Wait until it is over."""
        self._thread.join(seconds)

    def cancel(self) -> None:
        """CancelUpdateStack: roll back."""
        self._interrupted = True
        self._channel.wake()

    def abandon(self) -> None:
        """DeleteStack: stop as soon as possible."""
        self.abandoned = True
        self.cancel()

    # --- the engine's pace ------------------------------------------------------------------------

    def now(self) -> float:
        """The system's monotonic clock."""
        return time.monotonic()

    def check(self) -> None:
        """Raises InterruptedByUserError after `cancel` or `abandon`."""
        if self._interrupted:
            raise InterruptedByUserError

    def rest(self, *, began: bool) -> None:
        """Wait for the data plane's next report; after something began, announce it first."""
        if began:
            self._channel.announce()
        self._reports = self._channel.reported(self._reports, _POLL_SECONDS)

    def until_restored(self) -> Pace:
        """The pace of a rollback, which only `abandon` ends."""
        return _Rollback(self)


class _Rollback:
    def __init__(self, operation: Operation) -> None:
        self._operation = operation
        self.now, self.rest = operation.now, operation.rest

    def check(self) -> None:
        if self._operation.abandoned:
            raise InterruptedByUserError

    def until_restored(self) -> Pace:
        return self


def settle(seconds: float = HOLD_SECONDS) -> None:
    """Wait for the operation that this thread's request started, if any, for at most `seconds`."""
    operation, _request.operation = getattr(_request, "operation", None), None
    if operation is not None:
        operation.join(seconds)
