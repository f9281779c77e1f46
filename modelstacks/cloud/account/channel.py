"""The channel between the account's server and the data plane.

The server announces that the account has changed. The data plane waits for that, reads the account back
through boto3, and reports on what it runs. A report becomes the answer of the service's own Describe call,
and CloudFormation decides by these answers, as it does in AWS.

Until a data plane has reported for the first time, nothing is waited for: every workload is stable at once.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Literal

__all__ = ["CHANNEL", "Channel", "Report"]


@dataclass(frozen=True, slots=True)
class Report:
    """How one workload is doing.

    `kind` selects the service that takes the report over: one of those that a service's ADDITIONS.hears
    declares. `generation` identifies what the report is about, for example the id of a service's deployment
    or the name of an endpoint's config; a report about another one than the current is ignored. `revision` is
    what runs after a failure: the task definition that a service was rolled back to, empty without one.
    """

    kind: str
    arn: str
    generation: str
    state: Literal["starting", "stable", "failed"]
    running: int = 0
    reason: str = ""
    revision: str = ""


class Channel:
    """Counts announcements and reports, and lets threads wait for the next one."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._announced = self._reported = 0
        self.attached = False  # whether there is a data plane

    def announce(self) -> None:
        """The account has changed in a way that the data plane has to follow."""
        with self._condition:
            self._announced += 1
            self._condition.notify_all()

    def announced(self, after: int, seconds: float) -> int:
        """The number of announcements, once there are more than `after` or the time is over."""
        with self._condition:
            self._condition.wait_for(lambda: self._announced > after, seconds)
            return self._announced

    def heard(self) -> None:
        """The data plane has reported."""
        self.attached = True
        self.wake()

    def wake(self) -> None:
        """Let those who wait for a report look again: an operation was interrupted."""
        with self._condition:
            self._reported += 1
            self._condition.notify_all()

    def reported(self, after: int, seconds: float) -> int:
        """The number of reports, once there are more than `after` or the time is over."""
        with self._condition:
            self._condition.wait_for(lambda: self._reported > after, seconds)
            return self._reported


#: This process's channel: moto's state is one for the process too.
CHANNEL = Channel()
