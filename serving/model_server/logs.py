"""Logs: one JSON object a line on stdout, {"time", "level", "message", ...}."""

from __future__ import annotations

import json
import logging
import os
import sys
from datetime import UTC, datetime
from typing import Any

log = logging.getLogger("model_server")


class JsonLines(logging.Handler):
    """Writes each record with one system call, so that lines of several workers do not mix."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor

    def emit(self, record: logging.LogRecord) -> None:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
        }
        line.update(getattr(record, "fields", {}))
        if record.exc_info:
            line["traceback"] = logging.Formatter().formatException(record.exc_info)
        try:
            os.write(self._descriptor, json.dumps(line, default=str).encode() + b"\n")
        except OSError:  # whoever read the log is gone
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """A log that cannot be written is no reason to stop answering."""


def set_up(level: str, descriptor: int | None = None) -> None:
    root = logging.getLogger()
    root.handlers[:] = [JsonLines(sys.stdout.fileno() if descriptor is None else descriptor)]
    root.setLevel(logging.WARNING)  # the libraries'
    log.setLevel(level.upper())
    logging.captureWarnings(capture=True)


def event(level: int, message: str, **fields: Any) -> None:
    """A line with fields of its own: event(logging.INFO, "ready", seconds=0.4)."""
    log.log(level, message, extra={"fields": fields})
